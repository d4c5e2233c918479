"""The bundle stage: everything that prediction needs in one folder, verified when it is read.

Reads  RUN/config.yaml, RUN/fold_K/best_model.safetensors, postprocess.json, metrics.json;
       for a combined run the checkpoints of its members instead;
       RUN/export/FORMAT-PRECISION/, RUN/cascade.json with the run it names
Writes FOLDER/manifest.json, FOLDER/models/

A bundle does not contain where or when it was made: bundling the same run again gives the same
bytes. The folder is written completely or not at all.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from safetensors.torch import save

from steelseg.config.config import Config
from steelseg.errors import CheckpointError, ConfigError
from steelseg.export.exported import ExportedFold, read_export
from steelseg.files.atomic import replacing_folder, write_text
from steelseg.files.json_file import read_json
from steelseg.inference.members import Member, member_run
from steelseg.inference.model_source import ResolvedModel
from steelseg.models.checkpoint import Checkpoint, load_checkpoint
from steelseg.run.bundle_manifest import (
    FORMAT,
    FORMAT_WITH_SHARES,
    MANIFEST,
    BundledFirst,
    BundledModel,
    BundledShare,
    Manifest,
    file_names,
    is_bundle,
    manifest_text,
    read_manifest,
    seal_of,
)
from steelseg.run.cascade_json import read_cascade
from steelseg.run.ensemble_json import read_ensemble
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import given, mask_settings
from steelseg.scoring.postprocess import MaskSettings
from steelseg.version import __version__

# Settings that prediction needs, in addition to post-processing and preprocessing.
_KEPT = {
    "data": (
        "num_classes",
        "img_height",
        "img_width",
        "channels",
        "pixel_mm",
        "crop_height",
        "crop_width",
        "crop_stride",
    ),
    "model": ("arch", "encoder", "encoder_depth", "presence_head"),
    "train": ("batch_size_val",),
    "inference": ("tta", "crops", "gate", "ensemble", "cascade", "amp"),
}


def bundle_run(model: ResolvedModel, *, out: Path | None = None, made_from: str = "torch") -> Path:
    """Put the networks of a run with everything that they need into one folder.

    Args:
        model: A resolved run; the bundle stores its settings and holds its folds.
        out: The folder; None makes RUN/bundle. An existing bundle is replaced.
        made_from: torch for the checkpoints themselves, or an export such as openvino-int8.

    Returns:
        The bundle.

    Raises:
        CheckpointError: if a checkpoint or an export cannot be used, or an export or tuning is
            older than the checkpoint.
        ConfigError: if `model` is not a run, or `out` holds something else.
    """
    run = model.run
    if run is None:
        raise ConfigError("Only a run folder can be bundled, not checkpoints or another bundle.")
    path = out or run.path / "bundle"
    _refuse_other_folder(path)
    is_combined = run.ensemble_json.exists()
    put = _put_combined if is_combined else _put_folds
    backend, _, precision = made_from.partition("-")
    with replacing_folder(path) as folder:
        models, provenance = put(folder / "models", run, model, made_from)
        manifest = Manifest(
            format=FORMAT_WITH_SHARES if is_combined else FORMAT,
            steelseg=__version__,
            backend=backend,
            precision=precision or "fp32",
            config=_plain_settings(model.config, model.masks),
            models=models,
            first=_put_first(folder / "models", run, made_from) if model.screener else None,
            provenance=provenance,
            files={name: seal_of(folder / name) for name in sorted(file_names(folder))},
        )
        write_text(folder / MANIFEST, manifest_text(manifest))
    return path


_Put = tuple[tuple[BundledModel, ...], dict[str, Any]]
"""The networks of a bundle, and their provenance."""


def _put_folds(models: Path, run: RunFolder, model: ResolvedModel, made_from: str) -> _Put:
    """Write the network of each fold of a trained run into a bundle."""
    checkpoints = {fold: load_checkpoint(run.best_model(fold)) for fold in model.folds}
    exported = {} if made_from == "torch" else _exported(run, model.folds, made_from)
    put = tuple(
        _put(models, f"fold_{fold}", checkpoint, exported.get(fold), fold=fold)
        for fold, checkpoint in checkpoints.items()
    )
    return put, _provenance(run, checkpoints, exported)


def _put_combined(models: Path, run: RunFolder, model: ResolvedModel, made_from: str) -> _Put:
    """Write the networks of a combined run into a bundle, each with its weight."""
    spec = read_ensemble(run)
    # In the order of the model: fold by fold, because probabilities are added up in this order.
    shared = {
        (fold, place): member
        for (fold, place), member in zip(
            product(model.folds, range(len(spec.members))), model.members, strict=True
        )
    }
    put, members = {}, []
    for place, combined in enumerate(spec.members):
        own = member_run(run, combined)
        checkpoints = {fold: load_checkpoint(own.best_model(fold)) for fold in model.folds}
        exported = {} if made_from == "torch" else _exported(own, model.folds, made_from)
        members.append(_provenance(own, checkpoints, exported))
        for fold, checkpoint in checkpoints.items():
            stem = f"member_{place}_fold_{fold}"
            network = _put(models, stem, checkpoint, exported.get(fold), fold=fold)
            put[fold, place] = _with_share(network, shared[fold, place])
    digests = {fold: spec.digest(fold) for fold in model.folds}
    provenance = {"run": run.path.resolve().name, "members": members}
    return tuple(put[key] for key in shared), {**provenance, "evaluation": _figures(run, digests)}


def _with_share(model: BundledModel, member: Member) -> BundledModel:
    """Add weights and settings of a combined run's member to its entry in the manifest."""
    assert member.weight is not None
    assert model.checkpoint_sha256 == member.sha256
    share = BundledShare(
        tta=member.weight.plan.tta,
        crop=member.weight.plan.crop,
        weights=member.weight.weights,
        presence=member.weight.presence,
    )
    config = _plain_settings(member.config, mask_settings(member.config))
    return model.model_copy(update={"config": config, "share": share})


def _exported(
    run: RunFolder, folds: Sequence[int], made_from: str
) -> dict[int, tuple[Path, ExportedFold]]:
    """Return the file to load and the record of each fold's export."""
    folder = run.path / "export" / made_from
    export = read_export(folder)
    held = {fold.fold: (export.path(fold), fold) for fold in export.record.folds}
    if missing := [str(fold) for fold in folds if fold not in held]:
        there = " ".join(map(str, held))
        raise CheckpointError(
            f"{folder} lacks fold {', '.join(missing)}. Export it too, or use --fold {there}."
        )
    return {fold: held[fold] for fold in folds}


def _put_first(models: Path, run: RunFolder, made_from: str) -> BundledFirst:
    """Write the screening network of a cascade into a bundle, in the format of the others.

    It is never int8: its cut was chosen on probabilities in full precision.
    """
    cascade = read_cascade(run.cascade_json)
    assert cascade is not None
    first = RunFolder(run.path / cascade.first)
    config, fold = first.load_config(), cascade.fold
    exact = made_from.replace("-int8", "-fp32")
    try:
        exported = {} if exact == "torch" else _exported(first, [fold], exact)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} It is the first stage of {run.path}; to bundle without: "
            "inference.cascade=false."
        ) from None
    checkpoint = load_checkpoint(first.best_model(fold))
    return BundledFirst(
        model=_put(models, "first", checkpoint, exported.get(fold), fold=fold),
        config=_plain_settings(config, mask_settings(config)),
        cut=cascade.cut,
    )


def _put(
    models: Path,
    stem: str,
    checkpoint: Checkpoint,
    exported: tuple[Path, ExportedFold] | None,
    *,
    fold: int,
) -> BundledModel:
    """Write one network into a bundle."""
    models.mkdir(exist_ok=True)
    if exported is None:
        name = f"{stem}.safetensors"
        (models / name).write_bytes(save(dict(checkpoint.model)))
    else:
        name = stem + exported[0].suffix
        for part, digest in exported[1].files.items():
            copy = models / (stem + Path(part).suffix)
            shutil.copyfile(exported[0].with_name(part), copy)
            assert seal_of(copy).sha256 == digest
    return BundledModel(
        fold=fold,
        file=f"models/{name}",
        checkpoint_sha256=checkpoint.sha256,
        multiple=exported[1].multiple if exported else None,
    )


def _refuse_other_folder(path: Path) -> None:
    """Raise ConfigError unless `path` is missing, an empty folder, or exactly a bundle."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_dir():
        raise ConfigError(f"{path} is not a folder. Choose another --out.")
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
        raise ConfigError(f"{path / odd[0]} is not part of the bundle there. Move it elsewhere.")


def _plain_settings(config: Config, masks: MaskSettings) -> dict[str, dict[str, Any]]:
    """Return the settings that prediction needs, with defaults and tuned values written out."""
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
    kept["postprocess"] = {name: list(values) for name, values in given(masks).items()}
    return kept


def _provenance(
    run: RunFolder,
    checkpoints: Mapping[int, Checkpoint],
    exported: Mapping[int, tuple[Path, ExportedFold]],
) -> dict[str, Any]:
    """Return the origin and scores of the networks, for people."""
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
        "evaluation": _figures(run, {k: own.sha256 for k, own in checkpoints.items()}),
        "exports": {
            str(fold): record.model_dump(mode="json", exclude={"fold", "files", "multiple"})
            for fold, (_, record) in exported.items()
        },
    }


def _epoch_times(run: RunFolder) -> dict[tuple[int, int], str]:
    """Return the time at which each epoch of each fold ended."""
    times = {}
    if run.events_jsonl.exists():
        for line in run.events_jsonl.read_text(encoding="utf-8").splitlines():
            # A killed run may have left an incomplete line.
            with suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                times[event["fold"], int(event["epoch"])] = event["time"]
    return times


def _figures(run: RunFolder, digests: Mapping[int, str]) -> dict[str, Any] | None:
    """Return the scores of these folds in metrics.json; None if it is missing or of other folds.

    Args:
        run: The run.
        digests: SHA-256 of the checkpoint of each fold, or digest of a combined run's fold.
    """
    if not run.metrics_json.exists():
        return None

    def parse(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
        judged = metrics.get("models", {})
        if any(judged.get(str(k)) != digest for k, digest in digests.items()):
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
            "folds": {str(fold): metrics["folds"][str(fold)] for fold in digests},
        }

    remedy = f"Make it again: steelseg evaluate {run.path}."
    return read_json(run.metrics_json, parse, remedy=remedy)
