"""Training one fold: epochs, checkpoints, history.

Before the first epoch and after each, `last/` gets a resumable checkpoint (two are kept), and
`best_model` a new one if the validation Dice is the best so far; within a long epoch, and before
stopping on Ctrl-C or SIGTERM, `last/` gets one too. All randomness of a batch is seeded by (seed,
fold, epoch, batch), so a killed fold that resumes makes the same steps as one that was not.
"""

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steelseg.errors import Stopped, TrainingError
from steelseg.files.atomic import replacing
from steelseg.models.checkpoint import Checkpoint, save_checkpoint
from steelseg.scoring.metrics import Scores, flatten
from steelseg.signals import StopNote
from steelseg.training.loop import Learner, Position, optimizer_tensors

_GENERATIONS = 2


@dataclass
class Progress:
    """How far a fold is."""

    epoch: int = 0
    """Epochs done."""
    best_dice: float = -1.0
    """Best validation Dice so far, of the kind that epochs are chosen by; or presence."""
    best_epoch: int = 0
    """Epoch of the best Dice, from 1."""
    history: list[dict[str, float]] = field(default_factory=list)
    """A row an epoch, as history.csv has it."""
    position: Position = field(default_factory=Position)
    """How far the next epoch is."""


@dataclass(frozen=True)
class Origin:
    """What a fold is trained from, as its checkpoints keep it."""

    fold: int
    """Number of the fold."""
    config: dict[str, Any]
    """The resolved settings."""
    data: str
    """SHA-256 of strips, masks and folds."""


@dataclass(frozen=True)
class FoldFiles:
    """Where a fold keeps its checkpoints and history."""

    folder: Path

    @property
    def best_model(self) -> Path:
        """The best checkpoint."""
        return self.folder / "best_model.safetensors"

    @property
    def history(self) -> Path:
        """A row of scores for each epoch."""
        return self.folder / "history.csv"

    def last(self, epoch: int, step: int = 0) -> Path:
        """The resumable checkpoint after an epoch, and so many steps of the next."""
        within = f"_step_{step:06d}" if step else ""
        return self.folder / "last" / f"epoch_{epoch:04d}{within}.safetensors"

    def of_epoch(self, epoch: int) -> Path:
        """The checkpoint of an epoch that is kept if all are."""
        return self.folder / f"checkpoint_epoch_{epoch}.safetensors"

    def generations(self) -> list[Path]:
        """The resumable checkpoints, newest first."""
        return sorted((self.folder / "last").glob("epoch_*.safetensors"), reverse=True)


Train = Callable[[int, Position, Callable[[], None]], float]
"""Trains an epoch from a position on; calls back after each optimizer step; gives the loss."""

Validate = Callable[[Callable[[], None]], tuple[float, Scores, dict[str, float]]]
"""Gives validation loss, scores and, where it is not the Dice, the figure that epochs are chosen
by, under the name of its column; calls back after each batch."""


def seed_batch(seed: int, fold: int, epoch: int, step: int) -> None:
    """Seed torch for one batch: dropout and the like."""
    torch.manual_seed(int(np.random.SeedSequence([seed, fold, epoch, step]).generate_state(1)[0]))


def run_epochs(
    learner: Learner,
    progress: Progress,
    files: FoldFiles,
    origin: Origin,
    *,
    epochs: int,
    early_stopping: int,
    save_best_only: bool,
    save_minutes: float,
    train: Train,
    update_average: Callable[[int], None] = lambda _: None,
    validate: Validate,
    note: StopNote,
    report: Callable[[dict[str, float], Scores], None],
) -> None:
    """Train until the last epoch or until nothing gets better.

    Args:
        learner: Network and optimizer, changed in place.
        progress: Where to start; changed in place.
        files: Where to save.
        origin: Kept in the checkpoints.
        epochs: Epochs of the whole training.
        early_stopping: Epochs without a better Dice to stop after; 0 never stops.
        save_best_only: False keeps a resumable checkpoint_epoch_N of each epoch.
        save_minutes: Minutes between checkpoints within an epoch; 0 makes none.
        train: Trains an epoch.
        update_average: Called with each trained epoch before validation; perhaps twice.
        validate: Scores the network.
        note: Says when to save and stop.
        report: Told of each epoch's row and scores.

    Raises:
        Stopped: if `note` says so; training goes on from the checkpoint that was saved.
        TrainingError: if a loss, gradient or weight is not a number; it names fold, epoch and
            step, and what is kept.
    """
    saver = _Saver(learner, progress, files, origin, note, save_minutes)
    while progress.epoch < epochs and not _is_stale(progress, early_stopping):
        epoch = progress.epoch + 1
        try:
            row, scores = _one_epoch(learner, progress, saver, train, update_average, validate)
            _record(learner, progress, files, origin, row, keep=not save_best_only)
        except TrainingError as error:
            raise TrainingError(_what_is_kept(error, files, origin.fold, epoch)) from None
        report(row, scores)


def _one_epoch(
    learner: Learner,
    progress: Progress,
    saver: "_Saver",
    train: Train,
    update_average: Callable[[int], None],
    validate: Validate,
) -> tuple[dict[str, float], Scores]:
    """Train and validate once; give the epoch's row and scores."""
    epoch, begin = progress.epoch + 1, time.monotonic()
    train_loss = train(epoch, progress.position, saver.after_step)
    update_average(epoch)
    train_seconds = time.monotonic() - begin
    val_loss, scores, judged = validate(saver.stop_if_asked)
    rate = learner.optimizer.param_groups[0]["lr"]
    row = {"epoch": epoch, "learning_rate": rate, "train_loss": train_loss}
    row |= {"val_loss": val_loss, **flatten(scores), **judged}
    learner.schedule.after_epoch(monitored(row))
    row |= {"train_seconds": train_seconds, "seconds": time.monotonic() - begin}
    return row, scores


def monitored(row: dict[str, float]) -> float:
    """The Dice that epochs are chosen by, or the presence."""
    return row.get("val_presence", row.get("val_best_threshold_dice", row["val_dice"]))


def _is_better(row: dict[str, float], progress: Progress) -> bool:
    """Whether an epoch is the best so far, before it goes into the history.

    A classifier soon puts few strips into perfect order; among such epochs the loss decides.
    """
    if "val_presence" in row and monitored(row) == progress.best_dice:
        return row["val_loss"] < progress.history[progress.best_epoch - 1]["val_loss"]
    return monitored(row) > progress.best_dice


def _is_stale(progress: Progress, early_stopping: int) -> bool:
    """Whether the Dice has not grown for `early_stopping` epochs."""
    return 0 < early_stopping <= progress.epoch - progress.best_epoch


def is_done(progress: Progress, *, epochs: int, early_stopping: int) -> bool:
    """Whether a fold has nothing left to train."""
    return progress.epoch >= epochs or _is_stale(progress, early_stopping)


def _what_is_kept(error: TrainingError, files: FoldFiles, fold: int, epoch: int) -> str:
    """Say where training broke and from where it can go on."""
    kept = (
        f"{files.best_model} and {files.generations()[0]} are kept"
        if files.best_model.exists() and files.generations()
        else "no epoch was finished yet"
    )
    return (
        f"fold {fold}, epoch {epoch}, {error}. Training stopped; {kept}. "
        "Try a lower train.learning_rate, or train.amp=false."
    )


def _record(
    learner: Learner,
    progress: Progress,
    files: FoldFiles,
    origin: Origin,
    row: dict[str, float],
    *,
    keep: bool,
) -> None:
    """Write what the epoch brought, and then where to resume from, which says that all is there."""
    progress.epoch, progress.position = int(row["epoch"]), Position()
    progress.history.append(row)
    if _is_better(row, progress):
        progress.best_dice, progress.best_epoch = monitored(row), progress.epoch
        state = {**asdict(origin), "epoch": progress.epoch, "dice": row["val_dice"]}
        save_checkpoint(files.best_model, Checkpoint(learner.judged.state_dict(), {}, state))
    _write_history(files.history, progress.history)
    if keep:
        save_resumable(files.of_epoch(progress.epoch), learner, progress, origin)
    save_resumable(files.last(progress.epoch), learner, progress, origin)
    _drop_old(files)


def _drop_old(files: FoldFiles) -> None:
    """Keep the newest generations alone."""
    for old in files.generations()[_GENERATIONS:]:
        old.unlink()


@dataclass
class _Saver:
    """Saves within an epoch: now and then, and before stopping."""

    learner: Learner
    progress: Progress
    files: FoldFiles
    origin: Origin
    note: StopNote
    minutes: float
    saved: float = field(default_factory=time.monotonic)

    def after_step(self) -> None:
        """Save if it is time, and stop if someone asked."""
        self.stop_if_asked()
        if self.minutes and time.monotonic() - self.saved > 60 * self.minutes:
            self._save()

    def stop_if_asked(self) -> None:
        """Save and raise Stopped if someone asked to stop."""
        if self.note.signum is not None:
            self._save()
            raise Stopped(self.note.signum)

    def _save(self) -> None:
        path = self.files.last(self.progress.epoch, self.progress.position.step)
        save_resumable(path, self.learner, self.progress, self.origin)
        _drop_old(self.files)
        self.saved = time.monotonic()


def _write_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    """Write history.csv; a figure that is not defined is an empty cell."""
    with replacing(path) as file:
        writer = csv.DictWriter(file, list(history[0]), lineterminator="\n")
        writer.writeheader()
        for row in history:
            writer.writerow({name: "" if math.isnan(x) else x for name, x in row.items()})


def save_resumable(path: Path, learner: Learner, progress: Progress, origin: Origin) -> None:
    """Write a checkpoint from which training can go on to the same bits."""
    state = {
        **asdict(origin),
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
    mean = learner.average.model.state_dict() if learner.average else {}
    checkpoint = Checkpoint(learner.model.state_dict(), tensors, state, average=mean)
    save_checkpoint(path, checkpoint)
