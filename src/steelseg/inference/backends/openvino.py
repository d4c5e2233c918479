"""The OpenVINO backend: .xml files with their weights in a .bin of the same name.

The bytes of a file depend only on the network: notes about this machine are removed, and layers
whose names have numbers from a counter of the process are renumbered.
"""

import re
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steelseg.errors import CheckpointError
from steelseg.inference.backends import onnx
from steelseg.inference.backends.backend import Loaded, Size, damaged, need, triton_tensor
from steelseg.inference.backends.fold_upsampling import fold_upsampling
from steelseg.inference.backends.int8 import quantize_model
from steelseg.models.libc import preserve_signal_stack
from steelseg.models.model import StripNet

# OpenVINO imports modules when it returns its first result. Two threads that do so at once
# deadlock: one holds the interpreter lock, the other the import lock.
_FIRST_ANSWER = threading.Lock()


def write(
    model: StripNet, path: Path, *, channels: int, size: Size = None, for_int8: bool = False
) -> None:
    """Write a network by way of an ONNX file; see `Backend.write`."""
    model = fold_upsampling(model, signed=not for_int8)
    with TemporaryDirectory(dir=path.parent) as work:
        source = Path(work) / "network.onnx"
        onnx.write(model, source, channels=channels, size=size)
        convert_onnx(source, path)


def convert_onnx(source: Path, path: Path) -> None:
    """Write an ONNX file as .xml and .bin, in full precision."""
    _save(need("openvino").convert_model(str(source)), path)


def _save(model: Any, path: Path) -> None:
    """Write an OpenVINO model with its layers named by their order.

    OpenVINO writes the two files itself, so not atomically.
    """
    for place, layer in enumerate(model.get_ordered_ops()):
        stem = re.sub(r"_?\d+$", "", layer.get_friendly_name())
        layer.set_friendly_name(f"{stem}_{place}")
    for key in ("conversion_parameters", "nncf"):
        if model.has_rt_info([key]):
            model.set_rt_info("", [key])
    need("openvino").save_model(model, path, compress_to_fp16=False)


@preserve_signal_stack()
def quantize(source: Path, path: Path, strips: Sequence[NDArray[np.uint8]]) -> None:
    """Write a file in int8; see `Backend.quantize`."""
    model = _read(source)
    convolutions = [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    _save(quantize_model(model, strips, convolutions=convolutions), path)


def _read(path: Path) -> Any:
    """Read a file as a model of the `openvino` package."""
    return need("openvino").Core().read_model(path, path.with_suffix(".bin"))


@preserve_signal_stack()
def load(path: Path, *, amp: bool) -> Loaded:
    """Compile a file, for as many parallel requests as recommended; see `Backend.load`."""
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise CheckpointError(f"{weights} is missing: it has the weights of {path}.")
    core = need("openvino").Core()
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # By default it uses half precision where the CPU supports it.
        "INFERENCE_PRECISION_HINT": (half_precision() if amp else None) or "f32",
    }
    try:
        compiled = core.compile_model(core.read_model(path, weights), "CPU", settings)
    except RuntimeError as error:
        raise damaged(path, error) from None
    own = threading.local()

    def infer(image_nchw: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        parts = own.request.infer([image_nchw], share_inputs=True, share_outputs=True)
        return [parts[place] for place in range(len(parts))]

    def infer_alone_first(image_nchw: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        if hasattr(own, "request"):
            return infer(image_nchw)
        with _FIRST_ANSWER:
            own.request = compiled.create_infer_request()
            return infer(image_nchw)

    sides = compiled.input(0).partial_shape[2], compiled.input(0).partial_shape[3]
    height, width = (None if side.is_dynamic else side.get_length() for side in sides)
    requests = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    return Loaded(infer_alone_first, (height, width), threads=requests)


@preserve_signal_stack()
def half_precision() -> str | None:
    """Return bf16 if OpenVINO supports it on this CPU."""
    capabilities = need("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in capabilities else None


def triton_config(path: Path, *, largest_batch: int) -> str:  # noqa: ARG001
    """Return config.pbtxt for batches as the client sends them; see `Backend`.

    Triton's OpenVINO backend can only batch to one fixed size.
    """

    def describe(kind: str, port: Any) -> str:
        dims = [-1 if d.is_dynamic else d.get_length() for d in port.get_partial_shape()]
        return triton_tensor(
            kind, port.get_any_name(), port.get_element_type().to_dtype().name, dims
        )

    model = _read(path)
    return (
        'backend: "openvino"\nmax_batch_size: 0\n'
        + describe("input", model.input(0))
        + describe("output", model.output(0))
        + 'parameters { key: "PERFORMANCE_HINT" value { string_value: "THROUGHPUT" } }\n'
    )
