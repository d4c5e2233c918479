"""The training loop of one fold: epochs of optimizer steps, each epoch validated and saved.

Before the first epoch and after each, `last/` gets a resumable checkpoint, and `best_model` a new
one if the epoch is the best so far. Within a long epoch, and before stopping on Ctrl-C or SIGTERM,
`last/` gets one too. A fold that is killed and resumed takes the same steps, to the bit, as one
that is not.
"""

import math
import time
from collections.abc import Iterator
from contextlib import closing

import torch
from torch import Tensor, nn

from steelseg.data.samples.dataset import Batch, EpochBatches
from steelseg.errors import Stopped, TrainingError
from steelseg.inference.forward import predict_batch
from steelseg.models.checkpoint import Checkpoint, save_checkpoint
from steelseg.models.device import autocast
from steelseg.models.losses import Loss, presence_loss
from steelseg.models.model import split_output
from steelseg.progress import progress as show
from steelseg.scoring.metrics import Scores, flatten
from steelseg.signals import StopRequest
from steelseg.training.fold_files import (
    CheckpointMetadata,
    FoldFiles,
    Position,
    Progress,
    save_resumable,
)
from steelseg.training.learner import Learner, build_losses, seed_batch, set_training_mode
from steelseg.training.loader import BatchLoader
from steelseg.training.validation import Validation, ValidationResult


class FoldTrainer:
    """Trains one fold."""

    def __init__(
        self,
        learner: Learner,
        progress: Progress,
        files: FoldFiles,
        metadata: CheckpointMetadata,
        *,
        order: EpochBatches,
        loader: BatchLoader,
        validation: Validation,
    ) -> None:
        """Store the parts of a training; nothing is computed or written yet.

        Args:
            learner: Network and optimizer, changed in place.
            progress: Where to start; changed in place.
            files: Where checkpoints and history are written.
            metadata: Fold, settings and data, kept in every checkpoint.
            order: Sample keys of each batch; its epoch and first batch are set from here.
            loader: Makes the batches of `order`.
            validation: Scores the held-out strips.
        """
        self.learner = learner
        self.progress = progress
        self.files = files
        self.metadata = metadata
        self.settings = metadata.config.train
        self.order = order
        self.loader = loader
        self.validation = validation
        self.loss, self.later_loss = build_losses(metadata.config)
        # The loss of a classifier is the presence loss already.
        is_classifier = metadata.config.model.is_classifier
        self.presence_weight = 0.0 if is_classifier else self.settings.presence_weight
        self._stop = StopRequest()
        self._saved_at = time.monotonic()

    @property
    def is_done(self) -> bool:
        """Whether training is complete, by number of epochs or early stopping."""
        epochs, patience = self.settings.epochs, self.settings.early_stopping
        is_stale = 0 < patience <= self.progress.epoch - self.progress.best_epoch
        return self.progress.epoch >= epochs or is_stale

    def train(self, stop: StopRequest) -> Iterator[tuple[dict[str, float], Scores]]:
        """Train until the last epoch or until early stopping.

        Args:
            stop: Requests to save and stop.

        Yields:
            Row of history.csv and scores of each epoch, once it is saved.

        Raises:
            Stopped: if a stop was requested; training resumes from the checkpoint that was saved.
            TrainingError: if a loss, gradient or weight is not finite; the message names fold,
                epoch and step, and which files are kept.
        """
        self._stop, self._saved_at = stop, time.monotonic()
        while not self.is_done:
            epoch = self.progress.epoch + 1
            try:
                row, scores = self.run_epoch(epoch)
                self.save_epoch(row)
            except TrainingError as error:
                raise TrainingError(self._explain(error, epoch)) from None
            yield row, scores

    def run_epoch(self, epoch: int) -> tuple[dict[str, float], Scores]:
        """Train and validate one epoch; return its row of history.csv and its scores."""
        begin = time.monotonic()
        train_loss = self.train_epoch(epoch)
        train_seconds = time.monotonic() - begin
        val_loss, scores, monitored = self.validate()
        rate = self.learner.optimizer.param_groups[0]["lr"]
        row = {"epoch": epoch, "learning_rate": rate, "train_loss": train_loss}
        row |= {"val_loss": val_loss, **flatten(scores), **monitored}
        self.learner.schedule.after_epoch(monitor_value(row))
        row |= {"train_seconds": train_seconds, "seconds": time.monotonic() - begin}
        return row, scores

    def train_epoch(self, epoch: int) -> float:
        """Train on the rest of an epoch; return the mean loss over all of its samples.

        Args:
            epoch: Number of the epoch, from 1. It starts at `progress.position`.

        Raises:
            Stopped: if a stop was requested, after the current step was saved.
            TrainingError: if a loss or a gradient is not finite.
        """
        settings, position = self.settings, self.progress.position
        loss = self.later_loss if epoch >= settings.later_loss_epoch else self.loss
        set_training_mode(self.learner.model, freeze_batch_norm=settings.freeze_batch_norm)
        self.order.epoch, self.order.begin = epoch, position.step
        remaining = len(self.order) - position.step
        title = f"fold {self.metadata.fold} epoch {epoch}/{settings.epochs}"
        # A caught error refers to its frames; closing ends the loader's threads without waiting
        # until the error is released.
        with closing(iter(self.loader)) as batches:
            for step, batch in enumerate(show(batches, remaining, title), position.step + 1):
                seed_batch(settings.seed, self.metadata.fold, epoch, step)
                position.loss_sum += self.backward(batch, step, loss) * len(batch[0])
                position.samples += len(batch[0])
                if step % settings.accumulate == 0 or step == len(self.order):
                    self.step(step)
                    position.step = step
                    self.stop_if_requested()
                    self.save_if_due()
        return position.loss_sum / position.samples

    def backward(self, batch: Batch, step: int, loss: Loss) -> float:
        """Add the gradients of one batch; return its loss.

        Args:
            batch: images_nchw, masks_nchw and valid_nchw.
            step: Number of the batch in its epoch, from 1.
            loss: The loss to minimize.

        Raises:
            TrainingError: if the loss is not finite.
        """
        learner = self.learner
        images, masks, valid = batch
        with autocast(learner.device, learner.half):
            output = learner.model(images.to(learner.device, non_blocking=True))
        logits, presence = split_output(output)
        masks = masks.to(learner.device)
        value = loss(logits, masks, _move(valid, learner.device))
        if presence is not None:
            value = value + self.presence_weight * presence_loss(presence, masks)
        amount = float(value.detach())
        if not math.isfinite(amount):
            raise TrainingError(f"step {step} of {len(self.order)}: the loss is {amount}")
        mean = value / self._batches_in_step(step)
        learner.scaler.scale(mean).backward()  # type: ignore[no-untyped-call]
        return amount

    def _batches_in_step(self, step: int) -> int:
        """Return how many batches the optimizer step of a batch averages over."""
        accumulate = self.settings.accumulate
        # The last optimizer step of an epoch may have fewer.
        return min(accumulate, len(self.order) - (step - 1) // accumulate * accumulate)

    def step(self, step: int) -> None:
        """Take one optimizer step with the accumulated gradients, and average the weights.

        Raises:
            TrainingError: if a gradient is not finite.
        """
        learner = self.learner
        learner.scaler.unscale_(learner.optimizer)
        norm = nn.utils.clip_grad_norm_(
            learner.model.parameters(), self.settings.gradient_clip or math.inf
        )
        # The scaler of float16 expects overflows and skips their steps.
        if not learner.scaler.is_enabled() and not bool(norm.isfinite()):
            raise TrainingError(f"step {step}: the gradient is {float(norm)}")
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()
        learner.optimizer.zero_grad(set_to_none=True)
        learner.schedule.after_step()
        if learner.average is not None:
            learner.average.update(learner.model, decay=self.settings.ema_decay)

    def validate(self) -> ValidationResult:
        """Score the held-out strips.

        Raises:
            Stopped: if a stop was requested, after a checkpoint was saved.
            TrainingError: if the network returns values that are not finite.
        """
        model, device = self.learner.eval_model.eval(), self.learner.device
        plan, scores = self.validation.plan, self.validation.start(self.loss)
        for image_ids, images_nhwc in self.validation.batches():
            scores.add(image_ids, predict_batch(model, images_nhwc, plan, device))
            self.stop_if_requested()
        return scores.result()

    def save_epoch(self, row: dict[str, float]) -> None:
        """Save a finished epoch: the best model, history.csv and the resumable checkpoint.

        The resumable checkpoint is written last, because it declares the epoch done.
        """
        progress = self.progress
        progress.epoch, progress.position = int(row["epoch"]), Position()
        progress.history.append(row)
        if _is_better(row, progress):
            progress.best_dice, progress.best_epoch = monitor_value(row), progress.epoch
            state = {**self.metadata.state(), "epoch": progress.epoch, "dice": row["val_dice"]}
            weights = self.learner.eval_model.state_dict()
            save_checkpoint(self.files.best_model, Checkpoint(weights, {}, state))
        self.files.write_history(progress.history)
        if not self.settings.save_best_only:
            path = self.files.of_epoch(progress.epoch)
            save_resumable(path, self.learner, progress, self.metadata)
        self._save_last()

    def stop_if_requested(self) -> None:
        """Save, and raise Stopped, if a stop was requested."""
        if self._stop.signum is not None:
            self._save_last()
            raise Stopped(self._stop.signum)

    def save_if_due(self) -> None:
        """Save if train.save_minutes have passed since this was done last within an epoch."""
        minutes = self.settings.save_minutes
        if minutes and time.monotonic() - self._saved_at > 60 * minutes:
            self._save_last()
            self._saved_at = time.monotonic()

    def _save_last(self) -> None:
        """Save a resumable checkpoint to `last/`."""
        path = self.files.last(self.progress.epoch, self.progress.position.step)
        save_resumable(path, self.learner, self.progress, self.metadata)
        self.files.remove_old()

    def _explain(self, error: TrainingError, epoch: int) -> str:
        """Say where training failed and what is kept."""
        best, resumable = self.files.best_model, self.files.resumable()
        kept = "no epoch was finished yet"
        if best.exists() and resumable:
            kept = f"{best} and {resumable[0]} are kept"
        return (
            f"fold {self.metadata.fold}, epoch {epoch}, {error}. Training stopped; {kept}. "
            "Try a lower train.learning_rate, or train.amp=false."
        )


def monitor_value(row: dict[str, float]) -> float:
    """Return the metric that train.monitor names, from a row of history.csv."""
    return row.get("val_presence", row.get("val_best_threshold_dice", row["val_dice"]))


def _is_better(row: dict[str, float], progress: Progress) -> bool:
    """Return whether an epoch is the best so far.

    A classifier soon ranks few strips perfectly; among such epochs the lowest loss is best.
    """
    if "val_presence" in row and monitor_value(row) == progress.best_dice:
        return row["val_loss"] < progress.history[progress.best_epoch - 1]["val_loss"]
    return monitor_value(row) > progress.best_dice


def _move(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """Move a tensor that may be absent."""
    return None if tensor is None else tensor.to(device)
