"""Scores of predicted presence: which classes are on a strip, without masks.

Presence is scored as if each strip were one pixel: the pixel of a class is predicted if presence
reaches the threshold, and true if the strip has the class. So every figure of `metrics` applies;
Dice becomes accuracy.

Axes: n strips, c classes, h height, w width. No files, no torch.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.postprocess import MaskSettings

COLUMNS = ("class", "presence", "precision", "recall", "F1", "found", "false alarms")
"""Columns of `metrics.table` that are meaningful for one pixel."""


def one_pixel(presence: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return presence as probabilities of one pixel: (..., C) becomes (..., C, 1, 1)."""
    return presence[..., None, None]


def has_pixels(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether masks have any pixel: shape (..., H, W) becomes (..., 1, 1)."""
    return np.asarray(masks.any(axis=(-2, -1), keepdims=True))


def without_sizes(settings: MaskSettings) -> MaskSettings:
    """Return the settings without size filters, which one pixel cannot pass."""
    classes = len(settings.threshold)
    return MaskSettings(settings.threshold, (0,) * classes, (0,) * classes, (0.0,) * classes)


def average_precision(presence_n: NDArray[Any], is_there_n: NDArray[np.bool_]) -> float:
    """Return the area under the precision-recall steps; equal presence makes one step.

    Args:
        presence_n: Predicted presence of the class on each strip.
        is_there_n: Whether the strip has the class.

    Returns:
        In [0, 1], 1 if every strip with the class ranks above every other; NaN if none has it.
    """
    total = np.count_nonzero(is_there_n)
    if not total:
        return float("nan")
    order = np.argsort(-presence_n, kind="stable")
    found = np.cumsum(is_there_n[order])
    # A step ends at the last of the strips with equal presence.
    ends = np.append(np.flatnonzero(np.diff(presence_n[order])), len(order) - 1)
    recall, precision = found[ends] / total, found[ends] / (ends + 1)
    return float((np.diff(recall, prepend=0) * precision).sum())


class PresenceTally:
    """Predicted and true presence of strips."""

    def __init__(self) -> None:
        """Start without strips."""
        self._presence: list[NDArray[np.float32]] = []
        self._shown: list[NDArray[np.bool_]] = []

    def add(self, presence_c: NDArray[np.float32], truth_chw: NDArray[np.bool_]) -> None:
        """Add one strip."""
        self._presence.append(presence_c)
        self._shown.append(has_pixels(truth_chw)[:, 0, 0])

    def per_class(self) -> list[float]:
        """Return the average precision of each class; NaN for a class that no strip has."""
        columns = zip(np.stack(self._presence, axis=1), np.stack(self._shown, axis=1), strict=True)
        return [average_precision(*column) for column in columns]

    def result(self) -> float:
        """Return the mean over the classes that strips have; 0 if there is none."""
        known = [value for value in self.per_class() if value == value]
        return float(np.mean(known)) if known else 0.0
