"""The ONNX backend: .onnx files, run by ONNX Runtime.

The bytes of a file depend only on the network: the exporter's notes about this machine (paths,
source lines) are removed. A file is read only if it is complete by itself.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from steelseg.errors import CheckpointError, ConfigError
from steelseg.files.atomic import write_bytes
from steelseg.inference.backends.backend import Loaded, Size, damaged, need, triton_tensor
from steelseg.inference.backends.int8 import quantize_model
from steelseg.models.model import Output, StripNet

# Supported by runtimes of the last two years.
_OPSET = 20

# How long Triton waits to fill a batch, in microseconds.
_QUEUE_DELAY_US = 2000


def write(
    model: StripNet,
    path: Path,
    *,
    channels: int,
    size: Size = None,
    for_int8: bool = False,  # noqa: ARG001
) -> None:
    """Write a network, for batches of any length; see `Backend.write`."""
    need("onnx")
    need("onnxscript")
    if size is None:
        _refuse_pooled(model)
    # Sizes that differ from each other and from 1, so that the exporter does not unify them.
    height, width = size or (2 * model.multiple, 3 * model.multiple)
    images = torch.zeros(2, channels, height, width, dtype=torch.uint8)
    free: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if size is None:
        # Declared as multiples, because halving and doubling must give the same sizes again.
        free |= {a: model.multiple * torch.export.Dim(n, min=1) for a, n in ((2, "h"), (3, "w"))}
    try:
        program = torch.onnx.export(
            _Core(model).eval(),
            (images,),
            input_names=["images"],
            output_names=["logits", "presence"] if model.has_presence else ["logits"],
            dynamic_shapes=(free,),
            opset_version=_OPSET,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ConfigError(f"The network cannot be written as ONNX: {error}") from error
    assert program is not None
    _save(program.model_proto, path)


def _refuse_pooled(model: StripNet) -> None:
    """Raise ConfigError if a network pools to a grid, which an export fixes for one image size."""
    for module in model.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
            raise ConfigError(
                "The network pools its features to a grid of fixed size, as pspnet does, and can "
                "be exported for one image size only: add --fixed-size."
            )


class _Core(nn.Module):
    """The exported part of a `StripNet` as a module of its own."""

    def __init__(self, model: StripNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_nchw: torch.Tensor) -> Output:
        return self.model.core(images_nchw)


def _save(model: Any, path: Path) -> None:
    """Write an ONNX model without its exporter's notes about this machine."""
    for message in _walk(model):
        for name in ("metadata_props", "doc_string"):
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_param = ("batch", "channels", "height", "width")[axis]
    write_bytes(path, model.SerializeToString(deterministic=True))


def _walk(message: Any) -> Iterator[Any]:
    """Yield a message and every message in it, at any depth."""
    yield message
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        # It has no messages, and listing its fields would copy the weights.
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _walk(part)


def quantize(source: Path, path: Path, strips: Sequence[NDArray[np.uint8]]) -> None:
    """Write a file in int8; see `Backend.quantize`."""
    model = need("onnx").load(source, load_external_data=False)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    inputs = [{model.graph.input[0].name: strip} for strip in strips]
    _save(quantize_model(model, inputs, convolutions=convolutions), path)


def load(path: Path, *, amp: bool) -> Loaded:  # noqa: ARG001
    """Open a file in one session that several threads call; see `Backend.load`."""
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
        raise damaged(path, error) from None
    source = session.get_inputs()[0]

    def infer(image_nchw: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [np.asarray(part) for part in session.run(None, {source.name: image_nchw})]

    height, width = (side if isinstance(side, int) else None for side in source.shape[2:])
    return Loaded(infer, (height, width), threads=torch.get_num_threads())


def half_precision() -> None:
    """Return None: ONNX Runtime has no half precision on a CPU."""


def triton_config(path: Path, *, largest_batch: int) -> str:
    """Return config.pbtxt, without the batch axis, which Triton adds; see `Backend`."""
    onnx = need("onnx")

    def describe(kind: str, value: Any) -> str:
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
        type = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        return triton_tensor(kind, value.name, type, dims[1:])

    graph = onnx.load(path, load_external_data=False).graph
    return (
        f'backend: "onnxruntime"\nmax_batch_size: {largest_batch}\n'
        + describe("input", graph.input[0])
        + describe("output", graph.output[0])
        + f"dynamic_batching {{ max_queue_delay_microseconds: {_QUEUE_DELAY_US} }}\n"
    )


def _refuse_other_files(path: Path) -> None:
    """Raise CheckpointError if an ONNX file refers to tensors in other files: ours never do."""
    onnx = need("onnx")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        # The parser raises errors of protobuf, which is not a direct dependency.
        raise damaged(path, error) from None
    for part in _walk(model):
        is_tensor = part.DESCRIPTOR.full_name == "onnx.TensorProto"
        if is_tensor and (part.external_data or part.data_location):
            raise CheckpointError(
                f"{path} keeps the tensor {part.name[:40]!r} in another file, which is not "
                "read. Export again: steelseg export RUN --format onnx."
            )
