"""Checks of a data set and a config.py, for test_setup.py, test_crops.py and test_precropped.py.

Each check prints one line: what it found in order, or an error. Strips are a sample of the data
set, evenly spaced; only `_check_data` reads every one. Nothing is written.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelseg.cli.main import guard
from steelseg.cli.unet_baseline import in_baseline_words, load_settings
from steelseg.config.config import Config, DataConfig
from steelseg.config.loss_terms import BASELINE
from steelseg.data.augment.steps import find_augmentation
from steelseg.data.checks.check import inspect_data, refuse_faults
from steelseg.data.crops import Box, crop_boxes
from steelseg.data.folder import DataSet
from steelseg.data.formats.annotations import Labels, read_labels
from steelseg.data.formats.images import read_image
from steelseg.data.samples.dataset import EpochBatches, FolderReader, SampleDataset, list_samples
from steelseg.data.samples.precropped_store import Store, open_store
from steelseg.errors import DataError, SteelsegError
from steelseg.inference.forward import predict_crops
from steelseg.models.build import build_network
from steelseg.models.device import pick_device
from steelseg.models.losses import build_loss
from steelseg.training.loader import BatchLoader

# Enough to include every kind of strip, few enough to take seconds.
_SAMPLE = 100


def check_main(kind: str, config_py: Path, argv: Sequence[str] | None = None) -> int:
    """Run the checks of a kind: setup, crops or precropped.

    Args:
        kind: Key of `_KINDS`.
        config_py: The settings, as the baseline writes them.
        argv: Words of the command line; None takes the process's.

    Returns:
        Exit code: 1 if a check fails.
    """
    description, checks = _KINDS[kind]
    argparse.ArgumentParser(description=description).parse_args(argv)
    return guard(lambda: _run(load_settings(config_py), checks), reword=in_baseline_words)


def _run(config: Config, checks: "dict[str, Check]") -> int:
    """Print a line for each check; return 1 if one fails."""
    code = 0
    for title, check in checks.items():
        try:
            print(f"ok {title}: {check(config)}", flush=True)
        except SteelsegError as error:
            print(f"error: {title}: {in_baseline_words(str(error))}", file=sys.stderr)
            code = 1
    return code


def _check_data(config: Config) -> str:
    """Check the whole data set, as `steelseg check` does."""
    data = config.data
    return f"{data.root} has {refuse_faults(data.root, inspect_data(data)).summary}"


def _check_model(config: Config) -> str:
    """Build the network and run it on one empty image."""
    data, model = config.data, config.model
    device = pick_device()
    network = build_network(config)
    whole = data.mode == "full"
    height = (whole and data.img_height) or data.crop_height
    width = (whole and data.img_width) or data.crop_width
    images_nchw = torch.zeros(1, data.channels, height, width, dtype=torch.uint8, device=device)
    with torch.inference_mode():
        masks = network.to(device).eval()(images_nchw).shape[1]
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    return (
        f"{model.arch} with {model.encoder}, {millions:.1f} million parameters, makes {masks} "
        f"masks of {height}x{width} pixels on {device.type}"
    )


def _check_loading(config: Config) -> str:
    """Load one training batch."""
    data, train = config.data, config.train
    labels = _sample_labels(data)
    crop = None if data.mode == "full" else data.crop
    samples = list_samples(labels, list(labels.sizes), crop=crop)
    dataset = SampleDataset(
        labels,
        samples,
        _open_store(data) if data.mode == "precropped" else _reader(data),
        augmentation=find_augmentation(train.augmentation),
        seed=train.seed,
    )
    order = EpochBatches(len(samples), train.batch_size_train, seed=train.seed)
    loader = BatchLoader(dataset, order, num_workers=train.num_workers, pin_memory=False)
    images_nchw, masks_nchw, _ = next(iter(loader))
    return (
        f"mode {data.mode} makes {len(samples)} samples of {len(labels.sizes)} strips; a batch "
        f"is images {tuple(images_nchw.shape)} and masks {tuple(masks_nchw.shape)}"
    )


def _check_losses(config: Config) -> str:
    """Compute every loss for a correct and for a wrong prediction."""
    masks_nchw = torch.zeros(2, config.data.num_classes, 32, 32)
    masks_nchw[..., 16:] = 1
    logits_nchw = 20 * masks_nchw - 10
    found = []
    for name in BASELINE:
        loss = build_loss(name, pos_weight=config.pos_weight)
        right, wrong = (float(loss(x, masks_nchw, None)) for x in (logits_nchw, -logits_nchw))
        if not 0 <= right < wrong:
            raise SteelsegError(f"{name} is {right} of a right mask and {wrong} of a wrong one.")
        found.append(f"{name} {wrong:.2f}")
    return f"near 0 for a right mask; for a wrong one {', '.join(found)}"


def _check_crops(config: Config) -> str:
    """Cut strips and masks as in training, and stitch them as in prediction."""
    data = config.data
    labels, read = _sample_labels(data), _reader(data).read

    def cut_image(image_id: str, box: Box) -> NDArray[np.uint8]:
        return read(image_id, box).transpose(2, 0, 1)

    for image_id, (height, width) in labels.sizes.items():
        for cut in (cut_image, labels.draw):
            whole_chw = _tensor(cut(image_id, Box(0, 0, height, width)))
            if not torch.equal(_stitch(cut, image_id, whole_chw, data.crop), whole_chw):
                raise SteelsegError(f"the crops of {image_id}, stitched, are not the strip.")
    count = len(list_samples(labels, list(labels.sizes), crop=data.crop))
    return f"{count} crops of {len(labels.sizes)} strips and their masks, stitched, are the strips"


def _stitch(
    cut: Callable[[str, Box], NDArray[Any]],
    image_id: str,
    whole_chw: Tensor,
    crop: tuple[int, int, int],
) -> Tensor:
    """Stitch the crops of a strip as if they were predictions; returns chw."""
    height, width = whole_chw.shape[1:]
    boxes = crop_boxes(height, width, crop_height=crop[0], crop_width=crop[1], crop_stride=crop[2])
    crops_nchw = (_tensor(cut(image_id, box))[None] for box in boxes)
    return predict_crops(lambda _: next(crops_nchw), whole_chw[None], crop=crop)[0]


def _tensor(array_chw: NDArray[Any]) -> Tensor:
    """Return an array as a float tensor."""
    return torch.from_numpy(array_chw.astype(np.float32))


def _check_store(config: Config) -> str:
    """Compare the crops of the store with those cut from the image files."""
    data = config.data
    store, reader, labels = _open_store(data), _reader(data), _sample_labels(data)
    samples = list_samples(labels, list(labels.sizes), crop=data.crop)
    for image_id, box in samples:
        if not np.array_equal(store.read(image_id, box), reader.read(image_id, box)):
            raise DataError(
                f"{data.precropped_dir} holds other pixels than {image_id}. Remove the folder and "
                "make it again: steelseg precrop CONFIG."
            )
    return (
        f"{len(samples)} crops of {len(labels.sizes)} strips out of {data.precropped_dir} are "
        "those cut from the files"
    )


def _sample_labels(data: DataConfig) -> Labels:
    """Return the labels of some strips, evenly spaced over the data set."""
    data_set = DataSet(data.root)
    image_ids = data_set.list_images()
    sizes = {}
    for image_id in image_ids[:: -(-len(image_ids) // _SAMPLE)]:
        height, width, _ = read_image(
            data_set.train_images / image_id, channels=data.channels
        ).shape
        sizes[image_id] = height, width
    return read_labels(data_set.train_csv, sizes, num_classes=data.num_classes)


def _reader(data: DataConfig) -> FolderReader:
    """Return a reader that cuts crops from the image files."""
    return FolderReader(DataSet(data.root).train_images, data.channels)


def _open_store(data: DataConfig) -> Store:
    """Open the precropped store; raise DataError if it does not match the data set."""
    return open_store(
        data.precropped_dir,
        root=data.root,
        image_ids=DataSet(data.root).list_images(),
        channels=data.channels,
    )


Check = Callable[[Config], str]

_KINDS: dict[str, tuple[str, dict[str, Check]]] = {
    "setup": (
        "Check data, model, data loading and losses as config.py sets them.",
        {
            "data": _check_data,
            "model": _check_model,
            "dataset": _check_loading,
            "losses": _check_losses,
        },
    ),
    "crops": ("Cut strips into crops and stitch them together again.", {"crops": _check_crops}),
    "precropped": (
        "Compare the precropped store with crops cut from the image files.",
        {"store": _check_store},
    ),
}
