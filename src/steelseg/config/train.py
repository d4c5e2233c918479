"""The settings of section `train`."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from steelseg.config.loss_terms import parse_loss
from steelseg.config.section import Probability, Section


def largest_part(share: float, size: int) -> int:
    """The most samples that are no more than a share of `size`."""
    # 0.29 of 100 is 28.999999999999996 in floating point.
    return math.floor(share * size + 1e-9)


def _is_a_loss(text: str) -> str:
    """Refuse what is no loss."""
    parse_loss(text)
    return text


LossText = Annotated[str, AfterValidator(_is_a_loss)]


class TrainConfig(Section):
    """How one fold is trained."""

    epochs: int = Field(100, ge=1)
    """Each trains, validates, and saves what is best."""

    passes: int = Field(1, ge=1)
    """Times that an epoch goes over the training samples. Where a fourth of the strips is held out,
    validation is a seventh of the time after every pass, and a 25th after every fourth."""

    batch_size_train: int = Field(8, ge=1)
    """Samples a training step."""

    batch_size_val: int = Field(8, ge=1)
    """Images a step in validation, OOF and prediction."""

    accumulate: int = Field(1, ge=1)
    """Batches whose gradients are added up before one optimizer step."""

    learning_rate: float = Field(5e-4, gt=0)
    """Highest learning rate of the schedule."""

    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of the optimizer."""

    encoder_rate: float = Field(1.0, gt=0)
    """Factor of the learning rate for the encoder."""

    freeze_batch_norm: bool = False
    """true keeps the statistics of the encoder's batch normalisation."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """sgd has momentum 0.9 (Nesterov)."""

    scheduler: Literal["reduce_on_plateau", "cosine", "one_cycle", "none"] = "reduce_on_plateau"
    """reduce_on_plateau halves the rate after `patience` epochs without a better Dice."""

    patience: int = Field(3, ge=0)
    """Epochs without a better validation Dice that reduce_on_plateau waits for."""

    loss: LossText = "bce_dice_pos_weight"
    """bce_with_logits, dice, combo (0.5 BCE + 0.5 Dice), bce_pos_weight, bce_dice_pos_weight (0.75
    weighted BCE + 0.25 Dice), or a sum such as "0.5 bce + 0.5 lovasz" of bce, bce_pos_weight, dice,
    image_dice, focal, tversky, focal_tversky, jaccard, lovasz, symmetric_lovasz."""

    later_loss: LossText | None = None
    """The loss from epoch `later_loss_epoch` on; null keeps `loss`. Validation shows `loss`."""

    later_loss_epoch: int = Field(2, ge=2)
    """First epoch of `later_loss`."""

    focal_gamma: float = Field(2.0, ge=0)
    """Power by which the focal loss turns away from pixels that are sure."""

    tversky_alpha: Probability = 0.3
    """Weight of false pixels in the Tversky losses; missed ones have the rest of 1."""

    pos_weight: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Weight of a defect pixel, one a class. Empty: 2, 2, 1, 1.5 for four classes, else 1."""

    presence_weight: float = Field(0.5, ge=0)
    """Weight of the presence head's cross-entropy beside the loss; read with presence_head. A
    classifier learns by it alone: `loss` and `later_loss` are for masks."""

    augmentation: str | tuple[str, ...] = "flips"
    """A step, or a list of steps in order: none, flips, light (flips, brightness), brightness,
    gamma, noise, blur, jpeg, shift_scale, conveyor_shift, black_ends, defect_blackout,
    defect_paste, or `module:callable` of your own; "0.3 jpeg" for a share of the samples."""

    sampling: Literal["all", "balanced", "positives"] = "all"
    """all: every sample once a pass. balanced: as many, clean and each class equally often.
    positives: as many, all with a defect, but for what hard_negatives brings in; for use behind a
    gate."""

    centre_defects: Probability = 0.0
    """Share of the crops with a defect that are moved so that a pixel of it lies anywhere in them;
    0 keeps crops where the stride puts them."""

    hard_negatives: Path | None = None
    """A run whose out-of-fold false alarms are drawn more often; null weighs none."""

    hard_negative_weight: float = Field(3.0, ge=0)
    """How much more often a clean crop is drawn that hard_negatives is sure of; with
    sampling=positives, how often beside a crop with a defect."""

    pseudo_labels: Path | None = None
    """Folder that `steelseg pseudo` wrote: fold K also learns from its fold_K. null: from none."""

    pseudo_share: float = Field(0.25, gt=0, lt=1)
    """Largest share of a batch that pseudo-labelled samples have."""

    average: Literal["none", "ema", "last"] = "none"
    """Weight averaging: the weights that are validated and kept. ema: an exponential moving average
    over steps. last: the mean of the last `average_epochs` epochs."""

    ema_decay: float = Field(0.999, gt=0, lt=1)
    """Share of ema that each step keeps; less at the start."""

    average_epochs: int = Field(5, ge=1)
    """Number of epochs that average=last averages."""

    gradient_clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 switches clipping off."""

    monitor: Literal["dice", "swept_dice", "presence"] = "dice"
    """Chooses the best epoch. dice: at postprocess.threshold, 0.5 before tuning. swept_dice: with
    the threshold and smallest mask that suit each class best in that epoch, as after tuning.
    presence: mean over the classes of the average precision of a presence head's answers, which
    is what a classifier has."""

    early_stopping: int = Field(0, ge=0)
    """Stop after this many epochs without a better validation Dice; 0 never stops early."""

    amp: bool = True
    """true trains in mixed precision where the machine has it (bf16, else fp16 on a GPU)."""

    compile: bool = False
    """true compiles the network first: minutes before the first step, faster steps on a GPU."""

    save_best_only: bool = True
    """false also keeps checkpoint_epoch_N of every epoch."""

    save_minutes: float = Field(10.0, ge=0)
    """Minutes between resumable checkpoints within an epoch; 0 saves at its end alone."""

    num_workers: int = Field(2, ge=0)
    """Threads that load training samples; processes for an augmentation of your own. 0: none."""

    seed: int = Field(42, ge=0, lt=2**32)
    """Every random draw follows from it: weights, order, augmentation, folds."""

    @model_validator(mode="after")
    def _a_later_loss_needs_its_epoch(self) -> Self:
        if self.later_loss and self.later_loss_epoch > self.epochs:
            raise ValueError(
                f"later_loss_epoch={self.later_loss_epoch} is after the last of {self.epochs} "
                "epochs, so later_loss would never be used"
            )
        return self

    @model_validator(mode="after")
    def _a_share_is_a_sample_at_least(self) -> Self:
        if self.pseudo_labels and largest_part(self.pseudo_share, self.batch_size_train) == 0:
            raise ValueError(
                f"pseudo_share={self.pseudo_share} of batch_size_train={self.batch_size_train} is "
                "less than one sample, so no pseudo-label would ever be seen; raise one of them"
            )
        return self
