"""What a user names to predict with: a run, trained or combined, a bundle, or checkpoints.

`open_source` makes of any of them the settings that hold, the members of the ensemble, and the
post-processing. Weights are read when the ensemble is made; until then it is the headers of
checkpoints, and the files of a bundle to check them.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from steelseg.config.config import Config
from steelseg.config.load import build_config
from steelseg.errors import CheckpointError
from steelseg.inference.bundle import open_bundle
from steelseg.inference.ensemble_run import open_combined, refuse_unfit_shares
from steelseg.inference.members import FirstLook, Member, checkpoint_member, refuse_unfit
from steelseg.run.bundle_manifest import MANIFEST, is_bundle
from steelseg.run.cascade_json import read_cascade
from steelseg.run.kinds import refuse_classifier
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import mask_settings, read_tuned
from steelseg.scoring.postprocess import MaskSettings

Place = str | Path


@dataclass(frozen=True)
class Source:
    """Everything that prediction needs."""

    config: Config
    """The settings, with the user's laid over them."""

    members: tuple[Member, ...]
    """The networks whose mean is taken, in this order."""

    masks: MaskSettings
    """From probabilities to masks: the user's settings, else what was tuned, else the default."""

    first: FirstLook | None = None
    """What looks first and skips what is clean; None looks at every strip."""

    @property
    def sha256(self) -> str:
        """SHA-256 over all that a mask hangs on: the networks and the settings of prediction."""
        content = {
            "networks": [member.weights_sha256 for member in self.members],
            "masks": asdict(self.masks),
            "settings": _prediction_settings(self.config),
            **_shares(self.members),
        }
        if self.first is not None:
            content["first"] = {
                "network": self.first.member.weights_sha256,
                "settings": _prediction_settings(self.first.config),
                "cut": self.first.cut,
            }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def open_source(
    place: Place | Sequence[Place],
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
) -> Source:
    """Find out what is to be predicted with.

    Args:
        place: A run folder, a bundle, a checkpoint, or several checkpoints.
        overrides: Settings to change, such as "postprocess.threshold=0.4".
        folds: Folds of the run or bundle to use; None uses every trained one.

    Raises:
        CheckpointError: if there is no checkpoint, or one does not fit, or a bundle is damaged.
        ConfigError: if an override is wrong, or a network is a classifier.
        DataError: if postprocess.json is damaged.
    """
    if isinstance(place, str | Path) and Path(place).is_dir():
        folder = Path(place)
        if is_bundle(folder):
            config, members, first = open_bundle(folder, overrides, folds=folds)
            source = _settle(config, members)
            return replace(source, first=first if config.inference.cascade else None)
        run = RunFolder(folder)
        if not run.config_yaml.exists():
            raise CheckpointError(
                f"{folder} is not a run folder: it has no config.yaml; nor a bundle: it has no "
                f"{MANIFEST}."
            )
        return _open_run(run, overrides, folds)
    if isinstance(place, str | Path) and not Path(place).exists():
        raise CheckpointError(f"{place}: there is no such run folder, bundle or checkpoint.")
    paths = [place] if isinstance(place, str | Path) else place
    if not paths:
        raise CheckpointError("No checkpoint was given.")
    members = tuple(checkpoint_member(Path(path)) for path in paths)
    for member in members:
        refuse_classifier(member.config, member.name, what="to predict")
    trained = members[0].config.model_dump()
    return _settle(build_config(trained, overrides, source=members[0].name), members)


def _open_run(run: RunFolder, overrides: Sequence[str], folds: Sequence[int] | None) -> Source:
    """A run folder: its trained folds, and what was tuned on them."""
    trained = run.load_config()
    refuse_classifier(trained, run.path, what="to predict")
    config = build_config(trained.model_dump(), overrides, source=str(run.config_yaml))
    if run.ensemble_json.exists():
        combined, digests = open_combined(run, folds, amp=config.inference.amp)
        tuned = tuned_settings(run, digests)
        _warn_untuned(config, run, tuned)
        source = _settle(config, combined, tuned)
        return replace(source, first=_first_look(run) if config.inference.cascade else None)
    folds = folds or run.trained_folds(trained.data.num_folds)
    members = {fold: checkpoint_member(run.best_model(fold)) for fold in folds}
    tuned = tuned_settings(run, {fold: member.sha256 for fold, member in members.items()})
    _warn_untuned(config, run, tuned)
    source = _settle(config, tuple(members.values()), tuned)
    return replace(source, first=_first_look(run) if config.inference.cascade else None)


def _warn_untuned(config: Config, run: RunFolder, tuned: MaskSettings | None) -> None:
    """Say that masks are cut by defaults, which are seldom the best; not in the run's own log."""
    if tuned is None and config.postprocess.threshold is None:
        print(
            f"warning: {run.path} is not tuned, so masks are cut at 0.5 and of any size. "
            f"Tune it: steelseg oof {run.path} && steelseg tune {run.path}",
            file=sys.stderr,
            flush=True,
        )


def identify(source: Source) -> dict[str, Any]:
    """All of a source that a prediction depends on, as plain values."""
    first = source.first
    looks = [*source.members, *([first.member] if first else [])]
    settings = {
        "config": source.config.model_dump(mode="json"),
        "masks": asdict(source.masks),
        "first": first and {"config": first.config.model_dump(mode="json"), "cut": first.cut},
        **_shares(source.members),
    }
    return {"networks": [member.weights_sha256 for member in looks], "settings": settings}


def _shares(members: Sequence[Member]) -> dict[str, Any]:
    """What each member of a combined run counts for, as plain values; nothing of other sources."""
    shares = [asdict(member.share) for member in members if member.share]
    return {"shares": shares} if shares else {}


def _first_look(run: RunFolder) -> FirstLook | None:
    """What `steelseg cascade` chose for a run; None if nothing.

    Raises:
        CheckpointError: if the network that looks first is not the one it was chosen for.
    """
    cascade = read_cascade(run.cascade_json)
    if cascade is None:
        return None
    first = RunFolder(run.path / cascade.first)
    ways_out = (
        f"Choose again: steelseg cascade {run.path} --first {first.path}; or look at every strip: "
        "inference.cascade=false."
    )
    try:
        member = checkpoint_member(first.best_model(cascade.fold))
    except CheckpointError as error:
        raise CheckpointError(f"{error} {run.cascade_json} asks for it. {ways_out}") from None
    if member.sha256 != cascade.sha256:
        raise CheckpointError(f"{run.cascade_json} was made for another {member.name}. {ways_out}")
    return FirstLook(member, first.load_config(), cascade.cut)


def _settle(
    config: Config, members: tuple[Member, ...], tuned: MaskSettings | None = None
) -> Source:
    """Hold the settings against the networks, and settle the post-processing."""
    if members[0].share:
        refuse_unfit_shares(members, config)
    else:
        refuse_unfit(members[0], config)
    return Source(config, members, mask_settings(config, tuned))


def _prediction_settings(config: Config) -> Mapping[str, object]:
    """The settings that change a probability."""
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
    """What tuning chose for the models of a run; None if it was not tuned.

    Args:
        run: The run.
        digests: SHA-256 of the checkpoint of each fold that is used.

    Raises:
        CheckpointError: if a fold has been trained on since its predictions were tuned on.
        DataError: if postprocess.json is damaged.
    """
    tuned = read_tuned(run.postprocess_json)
    if tuned is None:
        return None
    for fold, digest in tuned.models.items():
        if digests.get(fold, digest) != digest:
            raise CheckpointError(
                f"{run.postprocess_json} was tuned on another {run.best_model(fold)}. "
                f"Tune again: steelseg oof {run.path}; steelseg tune {run.path}."
            )
    return tuned.settings
