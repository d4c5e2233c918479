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
from steelseg.training.layer_rates import encoder_of, set_training_mode
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
                set_mode=partial(
                    set_training_mode,
                    freeze_encoder=epoch <= train.freeze_encoder_epochs,
                    freeze_batch_norm=train.freeze_batch_norm,
                ),
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

    def settle(self, epoch: int) -> None:
        """Take a trained epoch into a mean of the last ones; told again, change nothing."""
        train, learner, average = self.config.train, self.learner, self.learner.average
        if train.average not in ("last", "swa") or average is None:
            return
        if average.count >= epoch - max(0, train.epochs - train.average_epochs):
            return
        average.add(learner.model)
        if train.average == "swa":
            self.order.epoch, self.order.begin = epoch, 0
            with closing(iter(self.loader)) as batches:
                shown = show(batches, len(self.order), f"fold {self.fold} epoch {epoch} statistics")
                images = (images_nchw for images_nchw, *_ in shown)
                frozen = encoder_of(average.model) if self._keeps_statistics else None
                average.settle(images, device=learner.device, half=learner.half, frozen=frozen)

    @property
    def _keeps_statistics(self) -> bool:
        """Whether the encoder's batch normalisation keeps the statistics that it began with."""
        train = self.config.train
        return train.freeze_batch_norm or train.freeze_encoder_epochs >= train.epochs
