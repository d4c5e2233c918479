"""Resolve what a user names as a model: a run folder, a combined run, a bundle, or checkpoints.

`resolve_model` determines settings, networks and post-processing once. Every command that predicts,
exports, bundles or serves uses its result, a `ResolvedModel`, and reads no settings again. Weights
are not loaded yet: only checkpoint headers, and the files of a bundle to verify them, are read.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steelseg.config.config import Config
from steelseg.config.load import build_config
from steelseg.errors import CheckpointError
from steelseg.inference.bundle import open_bundle
from steelseg.inference.members import (
    Member,
    Screener,
    check_settings_match,
    checkpoint_member,
    combined_members,
)
from steelseg.run.bundle_manifest import MANIFEST, is_bundle
from steelseg.run.cascade_json import read_cascade
from steelseg.run.kinds import refuse_classifier
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import mask_settings, read_tuned
from steelseg.scoring.postprocess import MaskSettings

AnyPath = str | Path


@dataclass(frozen=True)
class ResolvedModel:
    """Settings, networks and post-processing of a model."""

    config: Config
    """The stored settings with the user's overrides applied."""

    members: tuple[Member, ...]
    """The networks, in the order in which their probabilities are added up."""

    masks: MaskSettings
    """Post-processing: from the user's settings, else tuned, else the defaults."""

    screener: Screener | None = None
    """The first stage of a cascade; None sends every strip through `members`."""

    run: RunFolder | None = None
    """The run folder; None for a bundle or checkpoints."""

    folds: tuple[int, ...] = ()
    """Folds of `run` that are used; empty for a bundle or checkpoints."""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that a mask depends on except the strip, as plain values."""
        settings: dict[str, Any] = {
            "masks": asdict(self.masks),
            "settings": _prediction_settings(self.config),
        }
        if weights := [asdict(member.weight) for member in self.members if member.weight]:
            settings["shares"] = weights
        if self.screener is not None:
            settings["first"] = {
                "network": self.screener.member.weights_sha256,
                "settings": _prediction_settings(self.screener.config),
                "cut": self.screener.cut,
            }
        return {
            "networks": [member.weights_sha256 for member in self.members],
            "settings": settings,
        }

    @property
    def sha256(self) -> str:
        """SHA-256 of `identity`: two models with the same value make the same masks."""
        identity = self.identity
        content = {"networks": identity["networks"], **identity["settings"]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def resolve_model(
    source: AnyPath | Sequence[AnyPath],
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
) -> ResolvedModel:
    """Determine settings, networks and post-processing of a model.

    Args:
        source: A run folder, a bundle, a checkpoint, or several checkpoints.
        overrides: Settings to change, such as "postprocess.threshold=0.4".
        folds: Folds of the run or bundle to use; None uses every trained one.

    Raises:
        CheckpointError: if a checkpoint is missing or does not match, or a bundle is damaged.
        ConfigError: if an override is wrong, or a network is a classifier.
        DataError: if postprocess.json is damaged.
    """
    if isinstance(source, str | Path) and Path(source).is_dir():
        folder = Path(source)
        if is_bundle(folder):
            config, members, screener = open_bundle(folder, overrides, folds=folds)
            check_settings_match(members[0], config)
            screener = screener if config.inference.cascade else None
            return ResolvedModel(config, members, mask_settings(config), screener)
        run = RunFolder(folder)
        if not run.config_yaml.exists():
            raise CheckpointError(
                f"{folder} is not a run folder: it has no config.yaml. It is not a bundle either: "
                f"it has no {MANIFEST}."
            )
        model = resolve_run(run, overrides, folds=folds)
        refuse_classifier(model.config, run.path, what="to predict")
        return model
    if isinstance(source, str | Path) and not Path(source).exists():
        raise CheckpointError(f"{source}: there is no such run folder, bundle or checkpoint.")
    paths = [source] if isinstance(source, str | Path) else source
    if not paths:
        raise CheckpointError("No checkpoint was given.")
    members = tuple(checkpoint_member(Path(path)) for path in paths)
    for member in members:
        refuse_classifier(member.config, member.name, what="to predict")
    trained = members[0].config.model_dump()
    config = build_config(trained, overrides, source=members[0].name)
    check_settings_match(members[0], config)
    return ResolvedModel(config, members, mask_settings(config))


def resolve_run(
    run: RunFolder, overrides: Sequence[str] = (), *, folds: Sequence[int] | None = None
) -> ResolvedModel:
    """Resolve a run folder, trained or combined, as `resolve_model` does; accepts classifiers too.

    Raises:
        SteelsegError: as `resolve_model`.
    """
    config = run.load_config(tuple(overrides))
    if run.ensemble_json.exists():
        members, digests = combined_members(run, folds, amp=config.inference.amp)
    else:
        chosen = folds or run.trained_folds(config.data.num_folds)
        by_fold = {fold: checkpoint_member(run.best_model(fold)) for fold in chosen}
        members = tuple(by_fold.values())
        digests = {fold: member.sha256 for fold, member in by_fold.items()}
    for member in members:
        check_settings_match(member, config)
    tuned = tuned_settings(run, digests)
    if tuned is None and config.postprocess.threshold is None and not config.model.is_classifier:
        # Only to stderr: the log of the run is for its training.
        print(
            f"warning: {run.path} is not tuned, so masks use threshold 0.5 and no size filter. "
            f"Tune it: steelseg oof {run.path} && steelseg tune {run.path}",
            file=sys.stderr,
            flush=True,
        )
    screener = _screener(run) if config.inference.cascade else None
    return ResolvedModel(
        config, members, mask_settings(config, tuned), screener, run, tuple(digests)
    )


def _screener(run: RunFolder) -> Screener | None:
    """Return the screening network that `steelseg cascade` chose for a run, if any.

    Raises:
        CheckpointError: if it is not the network that the cutoff was chosen for.
    """
    cascade = read_cascade(run.cascade_json)
    if cascade is None:
        return None
    first = RunFolder(run.path / cascade.first)
    remedy = (
        f"Choose again: steelseg cascade {run.path} --first {first.path}; or send every strip "
        "through the full model: inference.cascade=false."
    )
    try:
        member = checkpoint_member(first.best_model(cascade.fold))
    except CheckpointError as error:
        raise CheckpointError(f"{error} {run.cascade_json} needs it. {remedy}") from None
    if member.sha256 != cascade.sha256:
        raise CheckpointError(
            f"{run.cascade_json} was made for a different {member.name}. {remedy}"
        )
    return Screener(member, first.load_config(), cascade.cut)


def _prediction_settings(config: Config) -> Mapping[str, object]:
    """Return the settings that change a probability."""
    data, inference = config.data, config.inference
    return {
        "class_names": data.names,
        "channels": data.channels,
        "mean": data.channel_mean,
        "std": data.channel_std,
        "tta": inference.tta,
        "crop": data.crop if inference.crops else None,
        "amp": inference.amp,
        "gate": inference.gate,
    }


def tuned_settings(run: RunFolder, digests: Mapping[int, str]) -> MaskSettings | None:
    """Return the post-processing that was tuned for a run; None if it was not tuned.

    Args:
        run: The run.
        digests: SHA-256 of the checkpoint of each fold that is used.

    Raises:
        CheckpointError: if a fold was trained further after it was tuned.
        DataError: if postprocess.json is damaged.
    """
    tuned = read_tuned(run.postprocess_json)
    if tuned is None:
        return None
    for fold, digest in tuned.models.items():
        if digests.get(fold, digest) != digest:
            raise CheckpointError(
                f"{run.postprocess_json} was tuned on a different {run.best_model(fold)}. "
                f"Tune again: steelseg oof {run.path}; steelseg tune {run.path}."
            )
    return tuned.settings
