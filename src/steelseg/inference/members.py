"""What an ensemble is made of: networks that are known by their settings before they are loaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steelseg.config.config import Config
from steelseg.errors import CheckpointError
from steelseg.inference.forward import Answer, ForwardPlan, Network
from steelseg.models.build import restore_model
from steelseg.models.checkpoint import load_checkpoint, read_header

# What the members of an ensemble share.
_MUST_AGREE = ("data.num_classes", "data.class_names", "data.channels")

# What they share too, unless each has its own share in the presence.
_MUST_AGREE_ON_PRESENCE = "model.presence_head"

# What no setting can change once a network is trained.
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


@dataclass(frozen=True)
class Share:
    """How a member of a combined run is predicted with, and what it counts for."""

    plan: ForwardPlan
    """Its own flips and crops, whatever the others have."""

    weights: tuple[float, ...]
    """What its pixels count for, one a class; 1 is what it counts for in a plain mean."""

    presence: float | None
    """What its presence counts for, likewise; None where no member has presence."""

    def weigh(self, answer: Answer) -> Answer:
        """Multiply an answer by what it counts for."""
        weights_c = answer.probs_nchw.new_tensor(self.weights)
        probs_nchw = answer.probs_nchw * weights_c[:, None, None]
        if self.presence is None:
            return Answer(probs_nchw, answer.presence_nc[:, :0])
        if not self.presence:
            return Answer(probs_nchw, probs_nchw.new_zeros(probs_nchw.shape[:2]))
        return Answer(probs_nchw, answer.presence_nc * self.presence)


@dataclass(frozen=True)
class Member:
    """One trained network of an ensemble."""

    name: str
    """What messages call it: its file."""

    config: Config
    """The settings it was trained with."""

    sha256: str
    """Of its checkpoint."""

    weights_sha256: str
    """Of the file that is loaded, or over those of the files; an export has another than its
    checkpoint."""

    load: Callable[[torch.device], Network]
    """Read, check and build it; what it returns takes and gives tensors on that device."""

    side_by_side: bool = False
    """Whether it computes the images of a batch side by side on a processor, as exports do."""

    share: Share | None = None
    """Its part in a combined run; None where members are alike: one plan, a plain mean."""


@dataclass(frozen=True)
class FirstLook:
    """What looks first, and when it is sure."""

    member: Member
    """The cheap network."""

    config: Config
    """The settings of its run: its own flips and crops."""

    cut: float
    """Strips of a lower suspicion are clean."""


def checkpoint_member(path: Path) -> Member:
    """A checkpoint as a member; its weights are read and checked when it is loaded.

    Raises:
        CheckpointError: if the file is missing or no checkpoint of ours.
    """
    config, sha256 = read_header(path)

    def load(device: torch.device) -> Network:
        checkpoint = load_checkpoint(path)
        if checkpoint.sha256 != sha256:
            raise CheckpointError(f"{path} was replaced while it was in use. Start again.")
        return restore_model(checkpoint).to(device)

    return Member(str(path), config, sha256, sha256, load)


def refuse_strangers(members: Sequence[Member], *, with_presence: bool) -> None:
    """Raise CheckpointError unless the members were trained for the same classes and channels.

    Args:
        members: The networks.
        with_presence: Whether a presence head must be in all or none.
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


def refuse_unfit(member: Member, config: Config) -> None:
    """Raise CheckpointError unless the settings say what the network was trained as."""
    for setting in _TRAINED_IN:
        trained, asked = _value(member.config, setting), _value(config, setting)
        if trained != asked:
            raise CheckpointError(
                f"The checkpoint was trained with {setting}={trained}, but the settings "
                f"say {asked}. Leave it as it was trained."
            )


def _value(config: Config, setting: str) -> Any:
    """The value of `section.name`."""
    section, name = setting.split(".")
    return getattr(getattr(config, section), name)
