"""Files of exported networks that depend on the network alone.

What the exporters note about this machine (paths, source lines) is left out, and names that bear
numbers of a counter of the process are counted anew, so that a network that is written again has
the same bytes.
"""

import re
from pathlib import Path
from typing import Any

from steelseg.files.atomic import write_bytes
from steelseg.inference.backends import need


def write_onnx(path: Path, model: Any) -> None:
    """Write an ONNX model without what its exporter noted about this machine."""
    _forget(model)
    for value in (*model.graph.input, *model.graph.output):
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


def write_openvino(path: Path, model: Any) -> None:
    """Write an OpenVINO model, its layers named by their order.

    The folder is the caller's own until all is written: OpenVINO writes by itself.
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
