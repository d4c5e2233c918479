"""Run exported networks: ONNX Runtime for .onnx, OpenVINO for .xml.

An exported network is called like a `StripNet`: pixels of any size in, float32 logits of the same
size out, and presence logits if it has a presence head. The images of a batch are computed in
parallel but separately, so the other images in a batch do not change a bit of a result, and any
number of threads may call at once. The number of CPU cores is that of torch: `OMP_NUM_THREADS` and
`torch.set_num_threads` apply here too.

Only the named file is read (and the .bin next to an .xml), and nothing is sent: a plain `import
openvino` reports to Google Analytics, which is prevented here. Callers verify that a file is the
one that was exported (`export.exported`).
"""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelseg.errors import CheckpointError, ConfigError
from steelseg.inference.forward import Network
from steelseg.models.libc import preserve_signal_stack
from steelseg.models.model import Output, at_multiples

_Infer = Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]
"""From one image, shape (1, channels, H, W), to its logits and presence logits, if any; they are
valid until the same thread calls again."""

# OpenVINO imports modules when it returns its first result. Two threads that do so at once
# deadlock: one holds the interpreter lock, the other the import lock.
_FIRST_ANSWER = threading.Lock()


def load_exported(path: Path, *, multiple: int, amp: bool) -> Network:
    """Load an exported network.

    Args:
        path: An .onnx file, or the .xml of OpenVINO with its .bin next to it.
        multiple: The number that the network's input sizes must be multiples of.
        amp: Whether to use half precision, if backend and machine support it. ONNX Runtime does
            not on a CPU; OpenVINO would use it by default.

    Returns:
        The network, which threads may share.

    Raises:
        CheckpointError: if the file is missing, damaged, or would read another file.
        ConfigError: if the backend is not installed.
    """
    load = {".onnx": _load_onnx, ".xml": _load_openvino}.get(path.suffix)
    if load is None:
        raise ConfigError(f"{path} is not an exported network. Expected an .onnx or an .xml file.")
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such export. Make it: steelseg export RUN.")
    loaded = load(path, amp)

    def core(images_nchw: Tensor) -> Output:
        _refuse_size(path, images_nchw.shape[-2:], loaded.size)
        images = images_nchw.cpu().contiguous().numpy()
        gathered = _Gathered(len(images))

        def one(place: int) -> None:
            gathered.put(place, loaded.infer(images[place : place + 1]))

        for _ in loaded.pool.map(one, range(len(images))):
            pass
        logits_nchw, *presence = (torch.from_numpy(part) for part in gathered.parts)
        return (logits_nchw, presence[0]) if presence else logits_nchw

    return lambda images_nchw: at_multiples(core, images_nchw, multiple=multiple)


@dataclass(frozen=True)
class _Loaded:
    """A network that computes several images in parallel."""

    infer: _Infer
    size: tuple[int | None, int | None]
    """Height and width that it accepts; None accepts any."""
    pool: ThreadPoolExecutor


class _Gathered:
    """The results of a batch, each stored in its place by the thread that computed it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self.parts: list[NDArray[np.float32]] = []

    def put(self, place: int, answer: list[NDArray[np.float32]]) -> None:
        """Copy the result of one image."""
        with self._lock:
            if not self.parts:
                self.parts = [np.empty((self._count, *p.shape[1:]), np.float32) for p in answer]
        for part, own in zip(self.parts, answer, strict=True):
            part[place] = own[0]


def _load_onnx(path: Path, _amp: bool) -> _Loaded:
    """Open a file with ONNX Runtime, in one session that several threads call."""
    _refuse_other_files(path)
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    # One image per thread, so that no thread waits for another.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Otherwise buffers are kept for every image size that was seen, and there can be many.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # The runtime has an exception class for each error code, without a common base.
        raise _damaged(path, error) from None
    source = session.get_inputs()[0]

    def infer(image_nchw: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [np.asarray(part) for part in session.run(None, {source.name: image_nchw})]

    height, width = (side if isinstance(side, int) else None for side in source.shape[2:])
    return _Loaded(infer, (height, width), ThreadPoolExecutor(torch.get_num_threads()))


@preserve_signal_stack()
def _load_openvino(path: Path, amp: bool) -> _Loaded:
    """Compile a file with OpenVINO, with as many parallel requests as it recommends."""
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise CheckpointError(f"{weights} is missing: it has the weights of {path}.")
    ov = need("openvino")
    core = ov.Core()
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if amp and openvino_has_half() else "f32",
    }
    try:
        compiled = core.compile_model(core.read_model(path, weights), "CPU", settings)
    except RuntimeError as error:
        raise _damaged(path, error) from None
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
    return _Loaded(infer_alone_first, (height, width), ThreadPoolExecutor(requests))


@preserve_signal_stack()
def openvino_has_half() -> bool:
    """Whether OpenVINO supports bf16 on this CPU."""
    capabilities = need("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


def need(package: str) -> Any:
    """Import a package of the extra `export`, without telemetry.

    Raises:
        ConfigError: if it is not installed.
    """
    # Packages that would report to it skip it if it cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Exported networks need {error.name}, which is not installed: "
            "pip install 'steelseg[export]'."
        ) from None


def _refuse_other_files(path: Path) -> None:
    """Raise CheckpointError if an ONNX file refers to tensors in other files: ours never do."""
    onnx = need("onnx")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        # The parser raises errors of protobuf, which is not a direct dependency.
        raise _damaged(path, error) from None
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location:
            raise CheckpointError(
                f"{path} keeps the tensor {tensor.name[:40]!r} in another file, which is not "
                "read. Export again: steelseg export RUN --format onnx."
            )


def _tensors(message: Any) -> Iterator[Any]:
    """Yield every tensor of a message, at any depth."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _tensors(part)


def _refuse_size(path: Path, size: tuple[int, ...], fixed: tuple[int | None, int | None]) -> None:
    """Raise ConfigError unless a file accepts images of this size."""
    if any(side not in (None, own) for own, side in zip(size, fixed, strict=True)):
        high, wide = ("any" if side is None else side for side in fixed)
        raise ConfigError(
            f"{path} accepts images of {high}x{wide}, not of {size[0]}x{size[1]}. "
            "Export for any size: steelseg export RUN, without --fixed-size."
        )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    """Return the error of a backend that cannot read a file, as one of ours."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path} cannot be read by its backend: {first[:160].rstrip('. ')}.")
