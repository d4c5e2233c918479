"""Predict strips with networks that run on a Triton or OpenVINO Model Server.

    python examples/remote_prediction.py BUNDLE http://HOST:8000 strip.jpg [strip.jpg ...]

The bundle is the one that `steelseg repository` was given. Its networks stay on the server; its
settings, flips, crops, first look, thresholds and sizes are used here, by the code that
`steelseg predict` uses. Prints a row of submission.csv for each strip and class.

Both servers speak the KServe protocol, version 2, with tensors as bytes behind the JSON.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelseg.data.formats import rle
from steelseg.data.formats.images import read_image
from steelseg.inference.cascade import Cascade
from steelseg.inference.ensemble import Ensemble
from steelseg.inference.forward import Network, forward_plan
from steelseg.inference.members import Member
from steelseg.inference.model_source import resolve_model
from steelseg.models.model import at_multiples
from steelseg.run.bundle_manifest import BundledModel, read_manifest
from steelseg.run.tuned_postprocess import mask_maker


def main(words: Sequence[str]) -> None:
    """Predict the strips named on the command line."""
    bundle, url, *paths = words
    predictor = RemotePredictor(Path(bundle), url)
    print("ImageId_ClassId,EncodedPixels")
    for path in paths:
        for class_id, mask in enumerate(predictor(Path(path)), start=1):
            print(f"{Path(path).name}_{class_id},{rle.encode(mask)}")


class RemotePredictor:
    """A bundle whose networks run on a server."""

    def __init__(self, bundle: Path, url: str) -> None:
        """Read the bundle; the server is called with the first strip."""
        model, manifest = resolve_model(bundle), read_manifest(bundle)
        cpu, self._config = torch.device("cpu"), model.config
        members = [
            on_server(member, bundled, url)
            for member, bundled in zip(model.members, manifest.models, strict=True)
        ]
        self._networks: Ensemble | Cascade = Ensemble(members, sequential=False, device=cpu)
        if model.screener is not None and manifest.first is not None:
            first = on_server(model.screener.member, manifest.first.model, url)
            self._networks = Cascade(
                Ensemble([first], sequential=False, device=cpu),
                self._networks,
                first_plan=forward_plan(model.screener.config),
                cut=model.screener.cut,
                batch_size=1,
                num_classes=model.config.data.num_classes,
            )
        self._to_mask = mask_maker(model.masks)

    def __call__(self, path: Path) -> NDArray[np.bool_]:
        """Find the defects of one strip: masks, shape (classes, H, W)."""
        image_hwc = read_image(path, channels=self._config.data.channels)
        batch = ((path.name,), image_hwc[None])
        ((_, _, probs_chw),) = self._networks.predict([batch], forward_plan(self._config))
        return self._to_mask(probs_chw)


def on_server(member: Member, model: BundledModel, url: str) -> Member:
    """Let the server compute one network of a bundle."""
    network = remote_network(url, Path(model.file).stem, multiple=model.multiple or 1)
    return replace(member, load=lambda _: network)


def remote_network(url: str, name: str, *, multiple: int) -> Network:
    """Stand for a network: pixels of any size in, logits of the same size out.

    Args:
        url: http://HOST:PORT of the server.
        name: The model's name there, such as fold_0.
        multiple: What the sizes that it takes are multiples of.
    """

    def core(images_nchw: Tensor) -> Tensor:
        return torch.from_numpy(infer(url, name, images_nchw.contiguous().numpy()))

    return lambda images_nchw: at_multiples(core, images_nchw, multiple=multiple)


def infer(url: str, name: str, images_nchw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Send images to a server and read the logits."""
    pixels = images_nchw.tobytes()
    request = {
        "inputs": [
            {
                "name": "images",
                "datatype": "UINT8",
                "shape": images_nchw.shape,
                "parameters": {"binary_data_size": len(pixels)},
            }
        ],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(request).encode()
    parts = urlsplit(url)
    make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = make(parts.netloc, timeout=60)
    try:
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        }
        connection.request("POST", f"/v2/models/{name}/infer", head + pixels, headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        sys.exit(
            f"error: {url} answers {response.status}: {content[:300].decode(errors='replace')}"
        )
    length = int(response.headers["Inference-Header-Content-Length"])
    shape = json.loads(content[:length])["outputs"][0]["shape"]
    return np.frombuffer(content, np.float32, offset=length).reshape(shape).copy()


if __name__ == "__main__":
    main(sys.argv[1:])
