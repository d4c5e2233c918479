"""Presence judged: which classes are on a strip, without a mask of them.

What tells presence alone is scored as if each strip were one pixel: its pixel of a class is
predicted where presence reaches the threshold, and true where the class is there. So every figure
of `metrics` holds; Dice becomes the share of pairs that are right.

Axes: n strips, c classes, h height, w width. No files, no torch.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.postprocess import MaskSettings

COLUMNS = ("class", "presence", "precision", "recall", "F1", "found", "false alarms")
"""Columns of `metrics.table` that say something of one pixel."""


def one_pixel(presence: NDArray[np.float32]) -> NDArray[np.float32]:
    """Presence as probabilities of one pixel: shape (..., C) becomes (..., C, 1, 1)."""
    return presence[..., None, None]


def shown(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether masks have any pixel: shape (..., H, W) becomes (..., 1, 1)."""
    return np.asarray(masks.any(axis=(-2, -1), keepdims=True))


def without_sizes(settings: MaskSettings) -> MaskSettings:
    """The thresholds alone: one pixel has no size to filter by."""
    classes = len(settings.threshold)
    return MaskSettings(settings.threshold, (0,) * classes, (0,) * classes, (0.0,) * classes)


def average_precision(presence_n: NDArray[Any], is_there_n: NDArray[np.bool_]) -> float:
    """Area under the steps of precision over recall, strips of equal presence together.

    Args:
        presence_n: How likely the class is on each strip.
        is_there_n: Whether it is.

    Returns:
        In [0, 1], 1 if every strip with the class comes before every other; NaN if none has it.
    """
    total = np.count_nonzero(is_there_n)
    if not total:
        return float("nan")
    order = np.argsort(-presence_n, kind="stable")
    found = np.cumsum(is_there_n[order])
    # Where the next strip is as likely, the step does not end yet.
    ends = np.append(np.flatnonzero(np.diff(presence_n[order])), len(order) - 1)
    recall, precision = found[ends] / total, found[ends] / (ends + 1)
    return float((np.diff(recall, prepend=0) * precision).sum())


class PresenceTally:
    """Strips whose presence is known, beside what they show."""

    def __init__(self) -> None:
        """Start without strips."""
        self._presence: list[NDArray[np.float32]] = []
        self._shown: list[NDArray[np.bool_]] = []

    def add(self, presence_c: NDArray[np.float32], truth_chw: NDArray[np.bool_]) -> None:
        """Take in one strip."""
        self._presence.append(presence_c)
        self._shown.append(shown(truth_chw)[:, 0, 0])

    def per_class(self) -> list[float]:
        """Average precision of each class; NaN of one that no strip shows."""
        columns = zip(np.stack(self._presence, axis=1), np.stack(self._shown, axis=1), strict=True)
        return [average_precision(*column) for column in columns]

    def result(self) -> float:
        """Mean average precision of the classes that are shown; 0 if none is."""
        known = [value for value in self.per_class() if value == value]
        return float(np.mean(known)) if known else 0.0
