"""The epochs of a fold: its batches through the network, and the mean of its weights."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from steelseg.config.config import Config
from steelseg.data.samples.dataset import EpochBatches
from steelseg.models.losses import Loss
from steelseg.progress import progress as show
from steelseg.training.fold import seed_batch
from steelseg.training.layer_rates import set_training_mode
from steelseg.training.loader import BatchLoader
from steelseg.training.loop import Learner, Position, train_epoch


@dataclass(frozen=True)
class Epochs:
    """What an epoch of a fold is made of."""

    config: Config
    fold: int
    learner: Learner
    order: EpochBatches
    """The keys of each batch; told which epoch it is."""
    loader: BatchLoader
    loss: Loss
    later_loss: Loss
    """From epoch `later_loss_epoch` on."""

    def train(self, epoch: int, position: Position, after_step: Callable[[], None]) -> float:
        """Train one epoch from a position on; gives its mean loss.

        Args:
            epoch: Number of the epoch, from 1.
            position: Where to begin; moved on.
            after_step: Called after each step, where training can be saved and stopped.
        """
        train, order = self.config.train, self.order
        order.epoch, order.begin = epoch, position.step
        title = f"fold {self.fold} epoch {epoch}/{train.epochs}"
        # An error keeps hold of its frames; the threads must not wait for it to be forgotten.
        with closing(iter(self.loader)) as batches:
            return train_epoch(
                self.learner,
                show(batches, len(order) - position.step, title),
                self.later_loss if epoch >= train.later_loss_epoch else self.loss,
                num_batches=len(order),
                accumulate=train.accumulate,
                gradient_clip=train.gradient_clip,
                # A classifier's loss is of presence already.
                presence_weight=0.0 if self.config.model.is_classifier else train.presence_weight,
                set_mode=partial(set_training_mode, freeze_batch_norm=train.freeze_batch_norm),
                position=position,
                before_batch=partial(seed_batch, train.seed, self.fold, epoch),
                after_step=partial(self._follow, after_step),
            )

    def _follow(self, after_step: Callable[[], None]) -> None:
        """Let a moving mean of weights follow a step, before the step can be saved."""
        train, average = self.config.train, self.learner.average
        if train.average == "ema" and average is not None:
            average.follow(self.learner.model, decay=train.ema_decay)
        after_step()

    def update_average(self, epoch: int) -> None:
        """Add a trained epoch to the mean of the last ones; a second call changes nothing."""
        train, average = self.config.train, self.learner.average
        if train.average != "last" or average is None:
            return
        if average.count < epoch - max(0, train.epochs - train.average_epochs):
            average.add(self.learner.model)
