"""The files of one fold: its best model, resumable checkpoints and history.

`last/` keeps the two newest resumable checkpoints. Each holds everything that training needs to
continue with the same bits, so history.csv is only for people and charts.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from steelseg.config.config import Config
from steelseg.files.atomic import replacing
from steelseg.models.checkpoint import Checkpoint, save_checkpoint
from steelseg.training.learner import Learner, optimizer_tensors

_KEPT_IN_LAST = 2


@dataclass
class Position:
    """Progress within an epoch. It is saved only after a complete optimizer step."""

    step: int = 0
    """Batches done."""

    loss_sum: float = 0.0
    """Sum of the loss over the samples of these batches."""

    samples: int = 0
    """Number of samples in these batches."""


@dataclass
class Progress:
    """Progress of a fold."""

    epoch: int = 0
    """Epochs done."""

    best_dice: float = -1.0
    """Best value so far of the metric that train.monitor names."""

    best_epoch: int = 0
    """Epoch with that value, from 1; 0 before the first."""

    history: list[dict[str, float]] = field(default_factory=list)
    """Row of history.csv of each epoch."""

    position: Position = field(default_factory=Position)
    """Progress within the next epoch."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """Fold, settings and data that a checkpoint was made with; a fold resumes only from its own."""

    fold: int
    """Number of the fold."""

    config: Config
    """The resolved settings."""

    data: str
    """SHA-256 of strips, masks and fold assignment."""

    def state(self) -> dict[str, Any]:
        """Return the metadata as a checkpoint stores it."""
        return {"fold": self.fold, "config": self.config.model_dump(mode="json"), "data": self.data}


@dataclass(frozen=True)
class FoldFiles:
    """Paths of the checkpoints and the history of a fold."""

    folder: Path

    @property
    def best_model(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.folder / "best_model.safetensors"

    @property
    def history(self) -> Path:
        """Table of scores, one row per epoch."""
        return self.folder / "history.csv"

    def last(self, epoch: int, step: int = 0) -> Path:
        """Resumable checkpoint after `epoch` epochs and `step` batches of the next."""
        within = f"_step_{step:06d}" if step else ""
        return self.folder / "last" / f"epoch_{epoch:04d}{within}.safetensors"

    def of_epoch(self, epoch: int) -> Path:
        """Resumable checkpoint of an epoch that train.save_best_only=false keeps."""
        return self.folder / f"checkpoint_epoch_{epoch}.safetensors"

    def resumable(self) -> list[Path]:
        """List the checkpoints in `last/`, newest first."""
        return sorted((self.folder / "last").glob("epoch_*.safetensors"), reverse=True)

    def remove_old(self) -> None:
        """Delete all but the newest checkpoints in `last/`."""
        for old in self.resumable()[_KEPT_IN_LAST:]:
            old.unlink()

    def write_history(self, history: Sequence[dict[str, float]]) -> None:
        """Write history.csv; an undefined figure (NaN) is an empty cell."""
        with replacing(self.history) as file:
            writer = csv.DictWriter(file, list(history[0]), lineterminator="\n")
            writer.writeheader()
            for row in history:
                writer.writerow({name: "" if math.isnan(x) else x for name, x in row.items()})


def save_resumable(
    path: Path, learner: Learner, progress: Progress, metadata: CheckpointMetadata
) -> None:
    """Write a checkpoint from which training continues with the same bits."""
    state = {
        **metadata.state(),
        "epoch": progress.epoch,
        "dice": progress.history[-1]["val_dice"] if progress.history else None,
        "best_dice": progress.best_dice,
        "best_epoch": progress.best_epoch,
        "history": progress.history,
        "position": asdict(progress.position),
        "groups": learner.optimizer.state_dict()["param_groups"],
        "schedule": learner.schedule.state(),
        "scaler": learner.scaler.state_dict(),
        "precision": learner.precision,
        **({"average_count": learner.average.count} if learner.average else {}),
    }
    tensors = optimizer_tensors(learner.optimizer)
    average = learner.average.model.state_dict() if learner.average else {}
    checkpoint = Checkpoint(learner.model.state_dict(), tensors, state, average=average)
    save_checkpoint(path, checkpoint)
