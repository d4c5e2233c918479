"""A bundle of exported networks as the model repository of an inference server.

    FOLDER/fold_0/1/model.onnx, or model.xml and model.bin
    FOLDER/fold_0/config.pbtxt       for Triton
    FOLDER/config.json               for OpenVINO Model Server

Names, types and sizes are read from the files. Each network of the bundle becomes a model,
including `first`, the first stage of a cascade. Flips, crops, the mean over folds and
post-processing are left to the client, see docs/guides/beyond_one_machine.md. The folder is written
completely or not at all.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steelseg.config.config import Config
from steelseg.errors import ConfigError
from steelseg.files.atomic import replacing_folder, write_text
from steelseg.inference.backends import need
from steelseg.inference.model_source import resolve_model
from steelseg.run.bundle_manifest import (
    FORMAT_WITH_SHARES,
    MANIFEST,
    BundledModel,
    is_bundle,
    read_manifest,
)

Server = Literal["triton", "ovms"]

# How long Triton waits to fill a batch, in microseconds.
_QUEUE_DELAY_US = 2000

# Triton's names of types, by those of ONNX and of OpenVINO.
_TRITON_TYPES = {
    "UINT8": "TYPE_UINT8",
    "u8": "TYPE_UINT8",
    "FLOAT": "TYPE_FP32",
    "f32": "TYPE_FP32",
}


@dataclass(frozen=True)
class _Tensor:
    """An input or output of a network."""

    name: str
    type: str
    """Triton's name of the type."""

    shape: tuple[int, ...]
    """Batch, channels or classes, height, width; -1 is any."""


def write_repository(bundle: Path, out: Path, *, server: Server) -> Path:
    """Write the networks of a bundle as a model repository.

    Args:
        bundle: A bundle of an export.
        out: The folder to write, new or empty.
        server: triton or ovms (OpenVINO Model Server).

    Returns:
        `out`.

    Raises:
        CheckpointError: if the bundle is damaged.
        ConfigError: if it has no exported networks, or `out` is not empty.
    """
    if not is_bundle(bundle):
        raise ConfigError(
            f"{bundle} is not a bundle: it has no {MANIFEST}. Make one of an export: "
            "steelseg bundle RUN --from onnx-fp32."
        )
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise ConfigError(f"{out} is not an empty folder. Choose another --out.")
    manifest, config = read_manifest(bundle), resolve_model(bundle).config
    if manifest.backend == "torch":
        raise ConfigError(
            f"{bundle} has checkpoints, which inference servers cannot read. Bundle an export: "
            "steelseg bundle RUN --from onnx-fp32."
        )
    if manifest.format == FORMAT_WITH_SHARES:
        raise ConfigError(
            f"{bundle} is of a combined run, whose weights and flips an inference server cannot "
            "apply. Write a repository of each member: steelseg bundle MEMBER --from "
            f"{manifest.backend}-{manifest.precision}."
        )
    models = [*manifest.models, *([manifest.first.model] if manifest.first else [])]
    with replacing_folder(out) as folder:
        for model in models:
            version = folder / model_name(model) / "1"
            version.mkdir(parents=True)
            _copy(bundle / model.file, version)
            if server == "triton":
                text = _triton_text(bundle / model.file, config)
                write_text(version.parent / "config.pbtxt", text)
        if server == "ovms":
            write_text(folder / "config.json", _ovms_text(models, config))
    return out


def model_name(model: BundledModel) -> str:
    """Return the name of a network on the server."""
    return Path(model.file).stem


def _copy(path: Path, version: Path) -> None:
    """Copy a network, with its weights if they are in a separate file."""
    shutil.copyfile(path, version / f"model{path.suffix}")
    if path.suffix == ".xml":
        shutil.copyfile(path.with_suffix(".bin"), version / "model.bin")


def _triton_text(path: Path, config: Config) -> str:
    """Return config.pbtxt of one network."""
    source, target = _tensors(path)
    if path.suffix == ".onnx":
        return (
            f'backend: "onnxruntime"\nmax_batch_size: {config.train.batch_size_val}\n'
            + _tensor_text("input", source, skip=1)
            + _tensor_text("output", target, skip=1)
            + f"dynamic_batching {{ max_queue_delay_microseconds: {_QUEUE_DELAY_US} }}\n"
        )
    # Triton's OpenVINO backend can only batch to one fixed size, so it keeps the client's batches.
    return (
        'backend: "openvino"\nmax_batch_size: 0\n'
        + _tensor_text("input", source, skip=0)
        + _tensor_text("output", target, skip=0)
        + 'parameters { key: "PERFORMANCE_HINT" value { string_value: "THROUGHPUT" } }\n'
    )


def _tensor_text(kind: str, tensor: _Tensor, *, skip: int) -> str:
    """Describe an input or output; `skip=1` leaves out the batch axis, which Triton adds."""
    dims = ", ".join(map(str, tensor.shape[skip:]))
    return f'{kind} [ {{ name: "{tensor.name}" data_type: {tensor.type} dims: [ {dims} ] }} ]\n'


def _ovms_text(models: Sequence[BundledModel], config: Config) -> str:
    """Return config.json of OpenVINO Model Server, with paths relative to it."""
    plugin = {"PERFORMANCE_HINT": "THROUGHPUT"}
    if not config.inference.amp:
        # By default it uses half precision where the CPU supports it.
        plugin["INFERENCE_PRECISION_HINT"] = "f32"
    names = [model_name(model) for model in models]
    configs = [{"name": n, "base_path": n, "plugin_config": plugin} for n in names]
    content = {"model_config_list": [{"config": config} for config in configs]}
    return json.dumps(content, indent=1) + "\n"


def _tensors(path: Path) -> tuple[_Tensor, _Tensor]:
    """Return the input and the first output of a network, as described in its file."""
    if path.suffix == ".onnx":
        onnx = need("onnx")
        graph = onnx.load(path, load_external_data=False).graph
        return _onnx_tensor(onnx, graph.input[0]), _onnx_tensor(onnx, graph.output[0])
    model = need("openvino").Core().read_model(path, path.with_suffix(".bin"))
    return _openvino_tensor(model.input(0)), _openvino_tensor(model.output(0))


def _onnx_tensor(onnx: Any, value: Any) -> _Tensor:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return _Tensor(
        value.name, _TRITON_TYPES[onnx.TensorProto.DataType.Name(tensor.elem_type)], shape
    )


def _openvino_tensor(port: Any) -> _Tensor:
    shape = tuple(-1 if d.is_dynamic else d.get_length() for d in port.get_partial_shape())
    return _Tensor(
        port.get_any_name(), _TRITON_TYPES[port.get_element_type().get_type_name()], shape
    )
