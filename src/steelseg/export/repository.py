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
from pathlib import Path
from typing import Literal

from steelseg.config.config import Config
from steelseg.config.export_formats import EXPORT_FORMATS
from steelseg.errors import ConfigError
from steelseg.files.atomic import replacing_folder, write_text
from steelseg.inference.backends.backend import load_backend
from steelseg.inference.model_source import resolve_model
from steelseg.run.bundle_manifest import (
    FORMAT_WITH_SHARES,
    MANIFEST,
    BundledModel,
    is_bundle,
    read_manifest,
)

Server = Literal["triton", "ovms"]


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
    backend, suffixes = load_backend(manifest.backend), EXPORT_FORMATS[manifest.backend].suffixes
    with replacing_folder(out) as folder:
        for model in models:
            version = folder / model_name(model) / "1"
            version.mkdir(parents=True)
            for end in suffixes:
                shutil.copyfile((bundle / model.file).with_suffix(end), version / f"model{end}")
            if server == "triton":
                text = backend.triton_config(
                    version / f"model{suffixes[0]}", largest_batch=config.train.batch_size_val
                )
                write_text(version.parent / "config.pbtxt", text)
        if server == "ovms":
            write_text(folder / "config.json", _ovms_text(models, config))
    return out


def model_name(model: BundledModel) -> str:
    """Return the name of a network on the server."""
    return Path(model.file).stem


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
