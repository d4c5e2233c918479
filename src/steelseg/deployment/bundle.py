"""The bundling stage: all that prediction needs in one folder that is checked when it is read.

Reads  RUN/config.yaml, RUN/fold_K/best_model.safetensors, postprocess.json, metrics.json
Writes FOLDER/manifest.json, FOLDER/models/

Nothing in a bundle says where it was made, or when: made again of the same run it has the same
bytes. The folder is written whole or not at all.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from steelseg import __version__
from steelseg.atomic import replacing_folder, write_text
from steelseg.config import Config
from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.evaluation.postprocess import MaskSettings
from steelseg.inference.manifest import (
    MANIFEST,
    BundledModel,
    Manifest,
    file_names,
    is_bundle,
    manifest_text,
    read_manifest,
    seal_of,
)
from steelseg.inference.sources import open_source
from steelseg.models.checkpoint import Checkpoint, load_checkpoint
from steelseg.run_folder import RunFolder

# What prediction asks of the settings, beside post-processing and preprocessing.
_KEPT = {
    "data": (
        "num_classes",
        "img_height",
        "img_width",
        "channels",
        "crop_height",
        "crop_width",
        "crop_stride",
    ),
    "model": ("arch", "encoder"),
    "train": ("batch_size_val",),
    "inference": ("tta", "crops", "ensemble", "amp", "submission_form"),
}


def bundle_run(
    run: RunFolder,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    folds: Sequence[int] | None = None,
) -> Path:
    """Put the networks of a run with all that they need into one folder.

    Args:
        run: A run with trained folds.
        overrides: Settings that the bundle shall have, such as "inference.tta=hflip".
        out: The folder; None makes RUN/bundle. A bundle that is there is replaced.
        folds: Which folds; None takes every trained one.

    Returns:
        The bundle.

    Raises:
        CheckpointError: if a checkpoint cannot be used, or tuning is older than it.
        ConfigError: if an override is wrong, or `out` holds something else.
    """
    path = out or run.path / "bundle"
    _refuse_other_folder(path)
    source = open_source(run.path, overrides, folds=folds)
    folds = list(dict.fromkeys(folds or run.trained_folds(source.config.data.num_folds)))
    checkpoints = {fold: load_checkpoint(run.best_model(fold)) for fold in folds}
    with replacing_folder(path) as folder:
        (folder / "models").mkdir()
        for fold, checkpoint in checkpoints.items():
            (folder / _weights(fold)).write_bytes(save(dict(checkpoint.model)))
        manifest = Manifest(
            steelseg=__version__,
            backend="torch",
            precision="fp32",
            multiple=None,
            config=_plain_settings(source.config, source.masks),
            models=tuple(
                BundledModel(fold=fold, file=_weights(fold), checkpoint_sha256=checkpoint.sha256)
                for fold, checkpoint in checkpoints.items()
            ),
            provenance=_provenance(run, checkpoints),
            files={name: seal_of(folder / name) for name in sorted(file_names(folder))},
        )
        write_text(folder / MANIFEST, manifest_text(manifest))
    return path


def _weights(fold: int) -> str:
    """Where the weights of a fold lie in a bundle."""
    return f"models/fold_{fold}.safetensors"


def _refuse_other_folder(path: Path) -> None:
    """Raise ConfigError unless `path` is free, an empty folder, or a bundle and nothing more."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_dir():
        raise ConfigError(f"{path} is no folder. Choose another --out.")
    if not any(path.iterdir()):
        return
    if not is_bundle(path):
        raise ConfigError(f"{path} is not a bundle and holds files. Choose another --out.")
    try:
        known = {MANIFEST, *read_manifest(path).files}
        odd = sorted(set(file_names(path)) - known)
    except CheckpointError as error:
        raise ConfigError(f"{error} Remove it, or choose another --out.") from None
    if odd:
        raise ConfigError(f"{path / odd[0]} is no part of the bundle there. Move it elsewhere.")


def _plain_settings(config: Config, masks: MaskSettings) -> dict[str, dict[str, Any]]:
    """The settings that prediction needs; what has a default or was tuned is written out."""
    content = config.model_dump(mode="json")
    kept = {
        section: {name: content[section][name] for name in names}
        for section, names in _KEPT.items()
    }
    kept["data"] |= {
        "class_names": list(config.data.names),
        "mean": list(config.data.channel_mean),
        "std": list(config.data.channel_std),
    }
    kept["postprocess"] = {name: list(values) for name, values in asdict(masks).items()}
    return kept


def _provenance(run: RunFolder, checkpoints: Mapping[int, Checkpoint]) -> dict[str, Any]:
    """Where the networks come from, and how they scored, for people."""
    trained_at = _epoch_times(run)
    return {
        "run": run.path.resolve().name,
        "folds": {
            str(fold): {
                "epoch": checkpoint.state["epoch"],
                "trained_at": trained_at.get((fold, checkpoint.state["epoch"])),
                "validation_dice": checkpoint.state["dice"],
            }
            for fold, checkpoint in checkpoints.items()
        },
        "evaluation": _figures(run, checkpoints),
    }


def _epoch_times(run: RunFolder) -> dict[tuple[int, int], str]:
    """When each epoch of each fold was done, by the run's own record."""
    times = {}
    if run.events_jsonl.exists():
        for line in run.events_jsonl.read_text(encoding="utf-8").splitlines():
            # A killed run may have left half a line.
            with suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                times[event["fold"], int(event["epoch"])] = event["time"]
    return times


def _figures(run: RunFolder, checkpoints: Mapping[int, Checkpoint]) -> dict[str, Any] | None:
    """What metrics.json says of these checkpoints; None if it is not there or says it of others."""
    if not run.metrics_json.exists():
        return None
    try:
        metrics = json.loads(run.metrics_json.read_text(encoding="utf-8"))
        judged = metrics.get("models", {})
        if any(judged.get(str(k)) != checkpoint.sha256 for k, checkpoint in checkpoints.items()):
            print(
                f"warning: {run.metrics_json} is of other checkpoints, so the bundle has no "
                f"scores. For them: steelseg oof {run.path}; steelseg evaluate {run.path}.",
                file=sys.stderr,
            )
            return None
        return {
            "masks": metrics["masks"],
            "strips": metrics["strips"],
            "all": metrics["oof"],
            "folds": {str(fold): metrics["folds"][str(fold)] for fold in checkpoints},
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{run.metrics_json} is damaged. Make it again: steelseg evaluate {run.path}."
        ) from None
