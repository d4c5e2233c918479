"""Scores of the held-out strips after an epoch, predicted as `steelseg predict` does.

Flips are left out and the precision is that of training, because both would lengthen every epoch;
OOF prediction and `steelseg predict` use the settings of section inference.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelseg.config.config import Config
from steelseg.data.folder import DataSet
from steelseg.data.formats.annotations import Labels
from steelseg.data.formats.images import read_image
from steelseg.errors import TrainingError
from steelseg.inference.forward import (
    Answer,
    Batch,
    ForwardPlan,
    batches,
    forward_plan,
    images_at_once,
)
from steelseg.models.losses import Loss
from steelseg.progress import progress as show
from steelseg.run.tuned_postprocess import gate_of, mask_maker, mask_settings
from steelseg.scoring.best_threshold_dice import BestThresholdDice
from steelseg.scoring.gate import Gate
from steelseg.scoring.metrics import Scores, count_pixels, score
from steelseg.scoring.postprocess import to_uint8
from steelseg.scoring.presence import PresenceTally, has_pixels, without_sizes

Binarize = Callable[[NDArray[np.float32]], NDArray[np.bool_]]
"""From probs_chw to mask_chw, by the post-processing settings."""


class ValidationResult(NamedTuple):
    """Scores of the held-out strips."""

    loss: float
    """Mean loss over the strips."""

    scores: Scores

    monitored: dict[str, float]
    """Value of train.monitor under the name of its column in history.csv; empty for Dice."""


@dataclass(frozen=True)
class Validation:
    """The held-out strips of a fold and how they are scored."""

    config: Config
    labels: Labels
    fold: int
    image_ids: Sequence[str]
    device: torch.device
    half: torch.dtype | None
    """Half precision of the training; None is float32."""

    @property
    def plan(self) -> ForwardPlan:
        """How strips go through the network."""
        return replace(forward_plan(self.config), tta="none", amp=self.half is not None)

    def batches(self) -> Iterator[Batch]:
        """Read the strips; yield image_ids and images_nhwc of each batch."""
        folder, data = DataSet(self.config.data.root).train_images, self.config.data
        return batches(
            show(self.image_ids, len(self.image_ids), f"fold {self.fold} epoch validation"),
            lambda image_id: read_image(folder / image_id, channels=data.channels),
            batch_size=images_at_once(self.config.train.batch_size_val, self.device),
        )

    def start(self, loss: Loss) -> "ValidationScores":
        """Start scoring an epoch.

        Args:
            loss: For the validation loss.
        """
        settings, monitor = mask_settings(self.config), self.config.train.monitor
        by_presence = self.config.model.is_classifier
        if by_presence:
            settings = without_sizes(settings)
        return ValidationScores(
            self.labels,
            loss,
            gate=gate_of(self.config, settings),
            binarize=mask_maker(settings),
            by_presence=by_presence,
            best_threshold=BestThresholdDice() if monitor == "best_threshold_dice" else None,
            tally=PresenceTally() if monitor == "presence" else None,
        )


class ValidationScores:
    """Scores of one epoch, collected batch by batch."""

    def __init__(
        self,
        labels: Labels,
        loss: Loss,
        *,
        gate: Gate,
        binarize: Binarize,
        by_presence: bool = False,
        best_threshold: BestThresholdDice | None = None,
        tally: PresenceTally | None = None,
    ) -> None:
        """Start without strips.

        Args:
            labels: The true masks.
            loss: For the validation loss.
            gate: Combines presence with probabilities before they become masks.
            binarize: From probabilities to masks.
            by_presence: Whether the network is a classifier, whose presence is scored as a mask
                of one pixel.
            best_threshold: Also collects the Dice at the best threshold, if given.
            tally: Also collects the average precision of presence, if given.
        """
        self._labels = labels
        self._loss = loss
        self._gate = gate
        self._binarize = binarize
        self._by_presence = by_presence
        self._best_threshold = best_threshold
        self._tally = tally
        self._losses: list[float] = []
        self._counts: list[NDArray[np.int64]] = []

    def add(self, image_ids: Sequence[str], answer: Answer) -> None:
        """Score the predictions of one batch."""
        probs, presence = answer
        masks_nchw = np.stack([self._labels.draw(image_id) for image_id in image_ids])
        if self._tally is not None:
            for presence_c, truth_chw in zip(presence.cpu().numpy(), masks_nchw, strict=True):
                self._tally.add(presence_c, truth_chw)
        if self._by_presence:
            probs, masks_nchw = presence[:, :, None, None], has_pixels(masks_nchw)
        self._losses += [_batch_loss(self._loss, probs, masks_nchw)] * len(image_ids)
        answers = zip(probs.cpu().numpy(), presence.cpu().numpy(), strict=True)
        for truth_chw, one in zip(masks_nchw, answers, strict=True):
            probs_chw = self._gate(*one)
            self._counts.append(count_pixels(self._binarize(probs_chw), truth_chw))
            if self._best_threshold is not None:
                self._best_threshold.add(to_uint8(probs_chw), truth_chw)

    def result(self) -> ValidationResult:
        """Return the scores of all strips.

        Raises:
            TrainingError: if the network returned values that are not finite.
        """
        loss = float(np.mean(self._losses))
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss is {loss}")
        monitors = {"val_best_threshold_dice": self._best_threshold, "val_presence": self._tally}
        monitored = {name: one.result() for name, one in monitors.items() if one}
        return ValidationResult(loss, score(np.stack(self._counts)), monitored)


def _batch_loss(loss: Loss, probs_nchw: Tensor, masks_nchw: NDArray[np.bool_]) -> float:
    """Return the loss of averaged probabilities: crops are averaged after the sigmoid."""
    logits = torch.logit(probs_nchw, eps=1e-6)
    masks = torch.from_numpy(masks_nchw).to(probs_nchw.device)
    return float(loss(logits, masks, None))
