"""A trained network as a file of another runtime: ONNX, or OpenVINO's .xml and .bin.

What is written is the `core` of a `StripNet`: pixels in, logits out, with normalisation inside;
`inference.backends` adds the padding. A network that is converted again gives the same bytes,
whatever was converted before: names are counted anew in each file, and what the exporters note
about this machine (paths, source lines) is left out.
"""

import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from steelseg.atomic import write_bytes
from steelseg.errors import ConfigError
from steelseg.inference.backends import need
from steelseg.models.model import StripNet

Format = Literal["onnx", "openvino"]

SUFFIXES: dict[Format, tuple[str, ...]] = {"onnx": (".onnx",), "openvino": (".xml", ".bin")}
"""Endings of the files of each format; the first is the one to load."""

Size = tuple[int, int] | None
"""Height and width of the images that a file takes, in pixels; None takes any."""

# What runtimes of the last two years read.
_OPSET = 20


class _Core(nn.Module):
    """The exported part of a `StripNet` as a module of its own."""

    def __init__(self, model: StripNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_nchw: Tensor) -> Tensor:
        return self.model.core(images_nchw)


def to_onnx(model: StripNet, path: Path, *, channels: int, size: Size = None) -> None:
    """Write a network as an ONNX file, for batches of any length.

    Args:
        model: The network, in eval mode, on the CPU.
        path: The file to write.
        channels: Image channels.
        size: Height and width to fix, multiples of `model.multiple`; None leaves both open.

    Raises:
        ConfigError: if the network cannot be written as ONNX, or an exporter is not installed.
    """
    need("onnx")
    need("onnxscript")
    if size is None:
        _refuse_pooled(model)
    # Sizes that differ from each other and from 1, so that none is taken for another.
    height, width = size or (2 * model.multiple, 3 * model.multiple)
    images = torch.zeros(2, channels, height, width, dtype=torch.uint8)
    free = {0: "batch"} if size else {0: "batch", 2: "height", 3: "width"}
    try:
        program = torch.onnx.export(
            _Core(model).eval(),
            (images,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=(dict.fromkeys(free, torch.export.Dim.DYNAMIC),),
            opset_version=_OPSET,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ConfigError(f"The network cannot be written as ONNX: {error}") from error
    assert program is not None
    write_onnx(path, program.model_proto)


def _refuse_pooled(model: StripNet) -> None:
    """Raise ConfigError if a network pools to a grid, which is cut for one image size."""
    for module in model.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
            raise ConfigError(
                "The network pools its features to a grid of fixed size, as pspnet does, and can "
                "be exported for one image size alone: add --fixed-size."
            )


def write_onnx(path: Path, model: Any) -> None:
    """Write an ONNX model without what its exporter noted about this machine."""
    _forget(model)
    for value in (model.graph.input[0], model.graph.output[0]):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_param = ("batch", "channels", "height", "width")[axis]
    write_bytes(path, model.SerializeToString(deterministic=True))


def _forget(message: Any) -> None:
    """Remove notes about the export from a message and all that is in it."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None and field.name != "initializer":
            for part in value if field.is_repeated else (value,):
                _forget(part)


def to_openvino(onnx: Path, path: Path) -> None:
    """Write an ONNX file as OpenVINO's .xml and .bin, in full precision.

    Args:
        onnx: A file that `to_onnx` wrote.
        path: The .xml to write; its weights go into the .bin beside it.
    """
    model = need("openvino").convert_model(str(onnx))
    write_openvino(path, model)


def write_openvino(path: Path, model: Any) -> None:
    """Write an OpenVINO model, its layers named by their order.

    The folder is the caller's own until all is written: OpenVINO writes by itself.
    """
    name_layers(model)
    for key in ("conversion_parameters", "nncf"):
        if model.has_rt_info([key]):
            model.set_rt_info("", [key])
    need("openvino").save_model(model, path, compress_to_fp16=False)


def name_layers(model: Any) -> None:
    """Name unnamed layers by their order: they bear numbers of a counter of the process."""
    for place, layer in enumerate(model.get_ordered_ops()):
        stem = re.sub(r"_?\d+$", "", layer.get_friendly_name())
        layer.set_friendly_name(f"{stem}_{place}")
