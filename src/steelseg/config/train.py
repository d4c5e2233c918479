"""The settings of section `train`."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from steelseg.config.loss_terms import parse_loss
from steelseg.config.section import Probability, Section


def max_samples(share: float, size: int) -> int:
    """Return the largest number of samples within a fraction of `size`."""
    # 0.29 of 100 is 28.999999999999996 in floating point.
    return math.floor(share * size + 1e-9)


def _check_loss(text: str) -> str:
    """Return the text of a loss; raise ValueError if it is not one."""
    parse_loss(text)
    return text


LossText = Annotated[str, AfterValidator(_check_loss)]


class TrainConfig(Section):
    """How each fold is trained."""

    epochs: int = Field(100, ge=1)
    """Number of epochs. Each ends with validation and a checkpoint."""

    passes: int = Field(1, ge=1)
    """Passes over the training samples per epoch. With a quarter of the strips held out, validation
    takes about 1/7 of the time at 1 pass per epoch, and 1/25 at 4."""

    batch_size_train: int = Field(8, ge=1)
    """Training batch size."""

    batch_size_val: int = Field(8, ge=1)
    """Batch size of validation, OOF and prediction."""

    accumulate: int = Field(1, ge=1)
    """Gradient accumulation: batches per optimizer step."""

    learning_rate: float = Field(5e-4, gt=0)
    """Peak learning rate."""

    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of the optimizer."""

    encoder_rate: float = Field(1.0, gt=0)
    """Factor applied to the learning rate of the encoder."""

    freeze_batch_norm: bool = False
    """true freezes the batch normalization statistics of the encoder."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimizer. sgd uses Nesterov momentum 0.9."""

    scheduler: Literal["reduce_on_plateau", "cosine", "one_cycle", "none"] = "reduce_on_plateau"
    """Learning rate schedule. reduce_on_plateau halves the learning rate after `patience` epochs
    without a better validation Dice."""

    patience: int = Field(3, ge=0)
    """Epochs without improvement before reduce_on_plateau lowers the learning rate."""

    loss: LossText = "bce_dice_pos_weight"
    """Loss: a term, a weighted sum of terms such as "0.5 bce + 0.5 lovasz", or a loss of the
    baseline: bce_with_logits, combo (0.5 BCE + 0.5 Dice), bce_dice_pos_weight (0.75 weighted BCE +
    0.25 Dice). focal(2) sets the focusing parameter gamma, which down-weights well-classified
    pixels; tversky(0.3) and focal_tversky(0.3) set alpha, the weight of false positives (false
    negatives get 1 - alpha)."""

    later_loss: LossText | None = None
    """Loss from epoch `later_loss_epoch` on. null: `loss` throughout. Validation reports `loss`."""

    later_loss_epoch: int = Field(2, ge=2)
    """First epoch of `later_loss`."""

    pos_weight: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Positive-pixel weight of each class. Empty: 2, 2, 1, 1.5 for four classes, otherwise 1."""

    presence_weight: float = Field(0.5, ge=0)
    """Weight of the presence head's cross-entropy, added to the loss. For arch=classifier it is the
    whole loss; `loss` and `later_loss` apply to masks only."""

    augmentation: str | tuple[str, ...] = "flips"
    """A step, or a list of steps applied in order. "0.3 jpeg" applies a step with probability 0.3.
    light is flips and brightness. A custom step is `module:callable`."""

    sampling: Literal["all", "balanced", "positives"] = "all"
    """all: every sample once per pass. balanced: as many samples, with clean ones and each class
    equally often. positives: as many samples, all with a defect except those that hard_negatives
    adds; for networks with a gate."""

    centre_defects: Probability = 0.0
    """Probability of shifting a crop with a defect to a random position that still contains one of
    its pixels. 0: crops stay on the stride grid."""

    hard_negatives: Path | None = None
    """Run folder whose out-of-fold false positives are sampled more often, up to 4 times. null:
    none."""

    pseudo_labels: Path | None = None
    """Folder written by `steelseg pseudo`; fold K also trains on its fold_K. null: none."""

    pseudo_share: float = Field(0.25, gt=0, lt=1)
    """Maximum fraction of a batch that is pseudo-labelled."""

    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay per step of the exponential moving average (EMA) of the weights, which is validated and
    kept in place of the weights themselves; lower during the first steps. Such as 0.999; 0 disables
    averaging."""

    gradient_clip: float = Field(1.0, ge=0)
    """Maximum gradient norm; 0 disables clipping."""

    monitor: Literal["dice", "best_threshold_dice", "presence"] = "dice"
    """Metric that selects the best epoch. dice: Dice at postprocess.threshold, 0.5 before tuning.
    best_threshold_dice: Dice with the best threshold and minimum area of each class in that epoch.
    presence: average precision of the presence head, averaged over classes; the default for a
    classifier."""

    early_stopping: int = Field(0, ge=0)
    """Stop after this many epochs without improvement of `monitor`; 0 disables early stopping."""

    amp: bool = True
    """true trains in mixed precision where supported (bf16, otherwise fp16 on a GPU)."""

    compile: bool = False
    """true uses torch.compile: faster steps on a GPU after minutes of compilation."""

    save_best_only: bool = True
    """false also keeps the checkpoint of every epoch, checkpoint_epoch_N."""

    save_minutes: float = Field(10.0, ge=0)
    """Minutes between resumable checkpoints within an epoch; 0 saves only at the end of epochs."""

    num_workers: int = Field(2, ge=0)
    """Worker threads that load training samples; processes for a custom augmentation. 0: load in
    the main thread."""

    seed: int = Field(42, ge=0, lt=2**32)
    """Random seed of weights, sample order, augmentation and, without data.fold_seed, folds."""

    @model_validator(mode="after")
    def _later_loss_starts_within_training(self) -> Self:
        if self.later_loss and self.later_loss_epoch > self.epochs:
            raise ValueError(
                f"later_loss_epoch={self.later_loss_epoch} is after the last of {self.epochs} "
                "epochs, so later_loss would never be used"
            )
        return self

    @model_validator(mode="after")
    def _pseudo_share_is_at_least_one_sample(self) -> Self:
        if self.pseudo_labels and max_samples(self.pseudo_share, self.batch_size_train) == 0:
            raise ValueError(
                f"pseudo_share={self.pseudo_share} of batch_size_train={self.batch_size_train} is "
                "less than one sample, so no pseudo-label would be used; increase one of them"
            )
        return self
