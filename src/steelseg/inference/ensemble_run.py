"""The networks of a combined run: those of its members, each with its share.

A fold of a combined run is that fold of every member. What `steelseg ensemble` wrote is held
against the checkpoints as they are now.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from steelseg.config.config import Config
from steelseg.errors import CheckpointError, ConfigError
from steelseg.inference.forward import ForwardPlan
from steelseg.inference.members import Member, Share, checkpoint_member
from steelseg.run.ensemble_json import EnsembleMember, EnsembleSpec, read_ensemble
from steelseg.run.run_folder import RunFolder

# Each member is predicted as it was judged, so these are not for the combined run to say.
_OF_MEMBERS = ("tta", "crops")


def open_combined(
    run: RunFolder, folds: Sequence[int] | None, *, amp: bool
) -> tuple[tuple[Member, ...], dict[int, str]]:
    """Name the networks of a combined run.

    Args:
        run: The run.
        folds: Which folds; None takes all.
        amp: Mixed precision, for all of them.

    Returns:
        The networks, fold after fold, and the digest of each fold.

    Raises:
        CheckpointError: if a member was trained on since, or a fold is not there.
        DataError: if ensemble.json is damaged.
    """
    combination = read_ensemble(run)
    for fold in folds or ():
        if fold not in combination.folds:
            there = ", ".join(map(str, combination.folds))
            raise CheckpointError(f"{run.path} has no fold {fold}. It combines: {there}.")
    chosen = list(dict.fromkeys(folds or combination.folds))
    members = tuple(
        _open(run, combination, combined, fold, amp=amp)
        for fold in chosen
        for combined in combination.members
    )
    return members, {fold: combination.digest(fold) for fold in chosen}


def member_run(run: RunFolder, combined: EnsembleMember) -> RunFolder:
    """The run folder of a member."""
    return RunFolder(Path(run.path, combined.run))


def _open(
    run: RunFolder, combination: EnsembleSpec, combined: EnsembleMember, fold: int, *, amp: bool
) -> Member:
    """One network, if it is still the one that was combined."""
    way_out = f"Combine again: {combination.command(run.path)}."
    path = member_run(run, combined).best_model(fold)
    try:
        member = checkpoint_member(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {run.ensemble_json} asks for it. {way_out}") from None
    if member.sha256 != combined.models[fold]:
        raise CheckpointError(f"{run.ensemble_json} was made of another {member.name}. {way_out}")
    return replace(member, share=_share(combination, combined, amp=amp))


def _share(combination: EnsembleSpec, combined: EnsembleMember, *, amp: bool) -> Share:
    """What a member counts for, beside a plain mean of as many."""
    count = len(combination.members)
    return Share(
        plan=ForwardPlan(tta=combined.tta, crop=combined.crop, amp=amp),
        weights=tuple(weight * count for weight in combined.weights),
        presence=combined.presence * count if combination.has_presence else None,
    )


def refuse_unfit_shares(members: Sequence[Member], config: Config) -> None:
    """Raise ConfigError unless the settings of a combined run leave its members as they are."""
    first = members[0]
    assert first.share is not None
    for name in _OF_MEMBERS:
        if getattr(config.inference, name) not in ("none", False):
            raise ConfigError(
                f"inference.{name} has no effect on a combined run: each member has its own "
                "flips and crops. Omit it."
            )
    expected = {
        "data.num_classes": (first.config.data.num_classes, config.data.num_classes),
        "data.channels": (first.config.data.channels, config.data.channels),
        "model.presence_head": (first.share.presence is not None, config.model.presence_head),
    }
    for setting, (made, asked) in expected.items():
        if made != asked:
            raise ConfigError(
                f"The runs were combined with {setting}={made}, but the settings say {asked}. "
                "Leave it as it was combined."
            )
