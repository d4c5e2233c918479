"""What a user names to predict with: a run folder, a checkpoint, or several checkpoints.

`open_source` makes of any of them the settings that hold, the members of the ensemble, and the
post-processing. Only headers are read; weights are, when the ensemble is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steelseg.config import Config
from steelseg.config_file import build_config
from steelseg.errors import CheckpointError
from steelseg.evaluation.postprocess import MaskSettings
from steelseg.evaluation.tuned import mask_settings, read_tuned
from steelseg.inference.members import Member, checkpoint_member, refuse_unfit
from steelseg.run_folder import RunFolder

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


def open_source(
    place: Place | Sequence[Place],
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
) -> Source:
    """Find out what is to be predicted with.

    Args:
        place: A run folder, a checkpoint, or several checkpoints.
        overrides: Settings to change, such as "postprocess.threshold=0.4".
        folds: Folds of the run folder to use; None uses every trained one.

    Raises:
        CheckpointError: if there is no checkpoint, or one does not fit.
        ConfigError: if an override is wrong.
        DataError: if postprocess.json is damaged.
    """
    if isinstance(place, str | Path) and Path(place).is_dir():
        return _open_run(RunFolder(Path(place)), overrides, folds)
    paths = [place] if isinstance(place, str | Path) else place
    if not paths:
        raise CheckpointError("No checkpoint was given.")
    members = tuple(checkpoint_member(Path(path)) for path in paths)
    return _settle(members[0].config, members, overrides, source=members[0].name)


def _open_run(run: RunFolder, overrides: Sequence[str], folds: Sequence[int] | None) -> Source:
    """A run folder: its trained folds, and what was tuned on them."""
    config = run.load_config()
    folds = folds or run.trained_folds(config.data.num_folds)
    if not folds:
        raise CheckpointError(
            f"{run.path} has no trained fold. Train first: steelseg train CONFIG."
        )
    members = {fold: checkpoint_member(run.best_model(fold)) for fold in folds}
    tuned = tuned_settings(run, {fold: member.sha256 for fold, member in members.items()})
    return _settle(
        config, tuple(members.values()), overrides, source=str(run.config_yaml), tuned=tuned
    )


def _settle(
    trained: Config,
    members: tuple[Member, ...],
    overrides: Sequence[str],
    *,
    source: str,
    tuned: MaskSettings | None = None,
) -> Source:
    """Lay the user's settings over those of the source."""
    config = build_config(trained.model_dump(), overrides, source=source)
    refuse_unfit(members[0], config)
    return Source(config, members, mask_settings(config, tuned))


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
