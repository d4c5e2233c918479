"""Convert a trained network to ONNX, or to OpenVINO's .xml and .bin.

The file contains the `core` of a `StripNet`: pixels in, logits out (and presence logits, if it has
a presence head), with normalisation inside; `inference.backends` adds the padding. `parity` checks
that the outputs are the same.

The bytes of a file depend only on the network: notes of the exporters about this machine (paths,
source lines) are removed, and names with numbers from a counter of the process are renumbered.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steelseg.errors import ConfigError
from steelseg.export.exported import SUFFIXES, Format, Precision
from steelseg.export.fold_upsampling import fold_upsampling
from steelseg.export.quantize import quantize
from steelseg.files.atomic import write_bytes
from steelseg.inference.backends import need
from steelseg.models.model import Output, StripNet, pad_to_multiple

Size = tuple[int, int] | None
"""Height and width of the images that a file accepts, in pixels; None accepts any."""

# Supported by runtimes of the last two years.
_OPSET = 20


def convert(
    model: StripNet,
    folder: Path,
    *,
    format: Format,
    channels: int,
    size: Size = None,
    calibration: Sequence[NDArray[np.uint8]] = (),
) -> dict[Precision, Path]:
    """Write a network in fp32 and, if there are calibration strips, in int8.

    Args:
        model: The network, in eval mode, on the CPU.
        folder: A temporary folder of the caller; intermediate files are written there too.
        format: onnx or openvino.
        channels: Image channels.
        size: Fixed height and width, multiples of `model.multiple`; None accepts any size.
        calibration: Strips for int8, shape (1, channels, H, W), of sizes that the file accepts.

    Returns:
        The file to load for each precision. With int8, fp32 is the file that was quantized.

    Raises:
        ConfigError: if the network cannot be exported in this way, or an exporter is not installed.
    """
    end = SUFFIXES[format][0]
    full, int8 = folder / f"fp32{end}", folder / f"int8{end}"
    if format == "openvino":
        model = fold_upsampling(model, signed=not calibration)
    to_onnx(model, folder / "fp32.onnx", channels=channels, size=size)
    if format == "openvino":
        to_openvino(folder / "fp32.onnx", full)
    if not calibration:
        return {"fp32": full}
    quantized = quantize(full, calibration, format=format)
    (write_onnx if format == "onnx" else write_openvino)(int8, quantized)
    return {"fp32": full, "int8": int8}


def as_input(image_hwc: NDArray[np.uint8], model: StripNet) -> NDArray[np.uint8]:
    """Return a strip as input of an exported network: a padded batch of one."""
    image_nchw = torch.from_numpy(np.ascontiguousarray(image_hwc.transpose(2, 0, 1)))[None]
    return pad_to_multiple(image_nchw, model.multiple).contiguous().numpy()


def to_onnx(model: StripNet, path: Path, *, channels: int, size: Size = None) -> None:
    """Write a network as an ONNX file, for batches of any length.

    Args:
        model: The network, in eval mode, on the CPU.
        path: The file to write.
        channels: Image channels.
        size: Fixed height and width, multiples of `model.multiple`; None accepts any size.

    Raises:
        ConfigError: if the network cannot be written as ONNX, or an exporter is not installed.
    """
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
    write_onnx(path, program.model_proto)


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

    def forward(self, images_nchw: Tensor) -> Output:
        return self.model.core(images_nchw)


def to_openvino(onnx: Path, path: Path) -> None:
    """Write an ONNX file as OpenVINO's .xml and .bin, in full precision.

    Args:
        onnx: A file that `to_onnx` wrote.
        path: The .xml to write; its weights go into the .bin next to it.
    """
    model = need("openvino").convert_model(str(onnx))
    write_openvino(path, model)


def write_onnx(path: Path, model: Any) -> None:
    """Write an ONNX model without its exporter's notes about this machine."""
    _forget(model)
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_param = ("batch", "channels", "height", "width")[axis]
    write_bytes(path, model.SerializeToString(deterministic=True))


def _forget(message: Any) -> None:
    """Remove notes about the export from a message and everything in it."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None and field.name != "initializer":
            for part in value if field.is_repeated else (value,):
                _forget(part)


def write_openvino(path: Path, model: Any) -> None:
    """Write an OpenVINO model with its layers named by their order.

    OpenVINO writes the two files itself, so not atomically.
    """
    _name_layers(model)
    for key in ("conversion_parameters", "nncf"):
        if model.has_rt_info([key]):
            model.set_rt_info("", [key])
    need("openvino").save_model(model, path, compress_to_fp16=False)


def _name_layers(model: Any) -> None:
    """Name layers by their order."""
    for place, layer in enumerate(model.get_ordered_ops()):
        stem = re.sub(r"_?\d+$", "", layer.get_friendly_name())
        layer.set_friendly_name(f"{stem}_{place}")
