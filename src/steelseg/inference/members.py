"""The networks that predict together, known by their settings before their weights are loaded.

A plain member is a checkpoint or an exported file. A member of a combined run also has its own TTA
flips, crops and weights; a fold of a combined run is that fold of every run it combines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from steelseg.config.config import Config
from steelseg.errors import CheckpointError, ConfigError
from steelseg.inference.forward import Answer, ForwardPlan, Network
from steelseg.models.build import restore_model
from steelseg.models.checkpoint import load_checkpoint, read_header
from steelseg.run.ensemble_json import EnsembleMember, EnsembleSpec, read_ensemble
from steelseg.run.run_folder import RunFolder

# Settings that must be equal in all members.
_MUST_AGREE = ("data.num_classes", "data.class_names", "data.channels")

# Must also be equal, unless each member has its own weight for presence.
_MUST_AGREE_ON_PRESENCE = "model.presence_head"

# Settings that cannot change once a network is trained.
_TRAINED_IN = (
    "data.num_classes",
    "data.channels",
    "data.mean",
    "data.std",
    "model.arch",
    "model.encoder",
    "model.encoder_depth",
    "model.presence_head",
)

# Members of a combined run keep the flips and crops that they were evaluated with.
_SET_PER_MEMBER = ("tta", "crops")


@dataclass(frozen=True)
class EnsembleWeight:
    """How a member of a combined run predicts, and its weight in the mean."""

    plan: ForwardPlan
    """Its own flips and crops."""

    weights: tuple[float, ...]
    """Weight of its pixels for each class; 1 is the weight in a plain mean."""

    presence: float | None
    """Weight of its presence, likewise; None if no member has a presence head."""

    def apply(self, answer: Answer) -> Answer:
        """Multiply probabilities and presence by their weights."""
        weights_c = answer.probs_nchw.new_tensor(self.weights)
        probs_nchw = answer.probs_nchw * weights_c[:, None, None]
        if self.presence is None:
            return Answer(probs_nchw, answer.presence_nc[:, :0])
        if not self.presence:
            return Answer(probs_nchw, probs_nchw.new_zeros(probs_nchw.shape[:2]))
        return Answer(probs_nchw, answer.presence_nc * self.presence)


@dataclass(frozen=True)
class Member:
    """One trained network."""

    name: str
    """Its file, as error messages name it."""

    config: Config
    """The settings it was trained with."""

    sha256: str
    """SHA-256 of its checkpoint."""

    weights_sha256: str
    """SHA-256 of the files that are loaded; of a checkpoint the same as `sha256`."""

    load: Callable[[torch.device], Network]
    """Read, verify and build the network; its inputs and outputs are on that device."""

    side_by_side: bool = False
    """Whether it computes the images of a batch in parallel on a CPU, as exported networks do."""

    weight: EnsembleWeight | None = None
    """Set in a combined run; None for members with one plan and a plain mean."""


@dataclass(frozen=True)
class Screener:
    """The cheap network of a cascade, which decides which strips can skip the full model."""

    member: Member

    config: Config
    """The settings of its run, with its own flips and crops."""

    cut: float
    """Strips with a lower defect score skip the full model."""


def checkpoint_member(path: Path) -> Member:
    """Describe a checkpoint; its weights are read and verified by `Member.load`.

    Raises:
        CheckpointError: if the file is missing or not a steelseg checkpoint.
    """
    config, sha256 = read_header(path)

    def load(device: torch.device) -> Network:
        checkpoint = load_checkpoint(path)
        if checkpoint.sha256 != sha256:
            raise CheckpointError(f"{path} was replaced while it was in use. Start again.")
        return restore_model(checkpoint).to(device)

    return Member(str(path), config, sha256, sha256, load)


def combined_members(
    run: RunFolder, folds: Sequence[int] | None, *, amp: bool
) -> tuple[tuple[Member, ...], dict[int, str]]:
    """Describe the networks of a combined run.

    Args:
        run: The combined run.
        folds: Which folds; None takes all.
        amp: Whether all of them use mixed precision.

    Returns:
        The networks fold by fold, and the digest of each fold.

    Raises:
        CheckpointError: if a member was trained further since, or a fold is missing.
        DataError: if ensemble.json is damaged.
    """
    spec = read_ensemble(run)
    for fold in folds or ():
        if fold not in spec.folds:
            available = ", ".join(map(str, spec.folds))
            raise CheckpointError(f"{run.path} has no fold {fold}. It combines: {available}.")
    chosen = list(dict.fromkeys(folds or spec.folds))
    members = tuple(
        _combined_member(run, spec, entry, fold, amp=amp)
        for fold in chosen
        for entry in spec.members
    )
    return members, {fold: spec.digest(fold) for fold in chosen}


def member_run(run: RunFolder, entry: EnsembleMember) -> RunFolder:
    """Return the run folder of a member of a combined run."""
    return RunFolder(Path(run.path, entry.run))


def _combined_member(
    run: RunFolder, spec: EnsembleSpec, entry: EnsembleMember, fold: int, *, amp: bool
) -> Member:
    """Describe one network; raise CheckpointError unless it is the one that was combined."""
    remedy = f"Combine again: {spec.command(run.path)}."
    path = member_run(run, entry).best_model(fold)
    try:
        member = checkpoint_member(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {run.ensemble_json} needs it. {remedy}") from None
    if member.sha256 != entry.models[fold]:
        raise CheckpointError(
            f"{run.ensemble_json} was made with a different {member.name}. {remedy}"
        )
    # The mean divides by the number of members, so weights that sum to 1 are scaled up by it.
    count = len(spec.members)
    weight = EnsembleWeight(
        plan=ForwardPlan(tta=entry.tta, crop=entry.crop, amp=amp),
        weights=tuple(weight * count for weight in entry.weights),
        presence=entry.presence * count if spec.has_presence else None,
    )
    return replace(member, weight=weight)


def check_members_compatible(members: Sequence[Member], *, with_presence: bool) -> None:
    """Raise CheckpointError unless the members were trained for the same classes and channels.

    Args:
        members: The networks.
        with_presence: Whether all or none must have a presence head.
    """
    first = members[0]
    alike = (_MUST_AGREE_ON_PRESENCE,) if with_presence else ()
    for member in members:
        for setting in (*_MUST_AGREE, *alike):
            expected, other = _value(first.config, setting), _value(member.config, setting)
            if expected != other:
                raise CheckpointError(
                    f"{member.name} has {setting}={other}, but {first.name} has {expected}. "
                    "An ensemble needs the same classes and channels, and presence heads in all "
                    "or none."
                )


def check_settings_match(member: Member, config: Config) -> None:
    """Raise an error if settings contradict what a network was trained with.

    Raises:
        CheckpointError: if the network was trained with other settings.
        ConfigError: if the run was combined with other settings, or the settings choose flips or
            crops, which each member of a combined run has of its own.
    """
    if member.weight is not None:
        _check_combined_settings(member.config, member.weight, config)
        return
    for setting in _TRAINED_IN:
        trained, given = _value(member.config, setting), _value(config, setting)
        if trained != given:
            raise CheckpointError(
                f"The checkpoint was trained with {setting}={trained}, but the settings "
                f"say {given}. Omit the setting, or use the trained value."
            )


def _check_combined_settings(trained: Config, weight: EnsembleWeight, config: Config) -> None:
    for name in _SET_PER_MEMBER:
        if getattr(config.inference, name) not in ("none", False):
            raise ConfigError(
                f"inference.{name} has no effect on a combined run: each member has its own flips "
                "and crops. Omit it."
            )
    expected = {
        "data.num_classes": (trained.data.num_classes, config.data.num_classes),
        "data.channels": (trained.data.channels, config.data.channels),
        "model.presence_head": (weight.presence is not None, config.model.presence_head),
    }
    for setting, (combined, given) in expected.items():
        if combined != given:
            raise ConfigError(
                f"The runs were combined with {setting}={combined}, but the settings say {given}. "
                "Omit the setting, or combine the runs again with it."
            )


def _value(config: Config, setting: str) -> Any:
    """Return the value of `section.name`."""
    section, name = setting.split(".")
    return getattr(getattr(config, section), name)
