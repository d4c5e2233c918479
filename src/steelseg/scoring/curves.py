"""Precision-recall and calibration of pixel probabilities.

Both are computed exactly from histograms of the 256 stored levels, one for defect pixels and one
for others, so memory does not grow with the number of strips.

Axes: c classes, 256 levels. No files, no torch.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 10


class LevelCounts:
    """Pixels at each level, outside and inside the ground truth, for every class."""

    def __init__(self, num_classes: int) -> None:
        """Start at zero."""
        self.pixels_c2l = np.zeros((num_classes, 2, 256), dtype=np.int64)

    def add(self, probs_chw: NDArray[np.uint8], truth_chw: NDArray[np.bool_]) -> None:
        """Count one strip; probabilities are times 255, both of shape (C, H, W)."""
        for pixels_2l, probs_hw, truth_hw in zip(
            self.pixels_c2l, probs_chw, truth_chw, strict=True
        ):
            inside = np.bincount(probs_hw[truth_hw], minlength=256)
            pixels_2l[1] += inside
            pixels_2l[0] += np.bincount(probs_hw.ravel(), minlength=256) - inside


def precision_recall(pixels_2l: NDArray[np.int64]) -> dict[str, Any]:
    """Return precision and recall of pixels with every level as a threshold.

    Args:
        pixels_2l: Pixels at each level, outside and inside the truth, shape (2, 256).

    Returns:
        `recall` and `precision`, from the highest threshold to the lowest, one point for each
        level that has pixels; `average_precision`, the area under the steps; None without defects.
    """
    reached = pixels_2l[:, ::-1].cumsum(axis=1)
    is_used = pixels_2l[:, ::-1].sum(axis=0) > 0
    wrong, right = reached[:, is_used]
    total = int(pixels_2l[1].sum())
    if not total:
        return {"recall": [], "precision": [], "average_precision": None}
    recall, precision = right / total, right / (right + wrong)
    area = float((np.diff(recall, prepend=0) * precision).sum())
    return {
        "recall": recall.round(5).tolist(),
        "precision": precision.round(5).tolist(),
        "average_precision": area,
    }


def calibration(pixels_2l: NDArray[np.int64]) -> dict[str, Any]:
    """Compare probabilities with the observed fraction of defect pixels.

    Args:
        pixels_2l: Pixels at each level, outside and inside the truth, shape (2, 256).

    Returns:
        `bins`, ten of equal width without the empty ones: mean `predicted` probability, `observed`
        fraction of defect pixels, number of `pixels`; `error`, the mean difference over all pixels
        (expected calibration error, Naeini et al., AAAI 2015).
    """
    levels = np.arange(256)
    bin_of = np.minimum(levels * _BINS // 255, _BINS - 1)
    pixels_l = pixels_2l.sum(axis=0)
    pixels, defects, weight = (
        np.bincount(bin_of, weights=values, minlength=_BINS)
        for values in (pixels_l, pixels_2l[1], pixels_l * levels / 255)
    )
    is_used = pixels > 0
    observed, predicted = defects[is_used] / pixels[is_used], weight[is_used] / pixels[is_used]
    gaps = np.abs(observed - predicted) * pixels[is_used]
    return {
        "bins": [
            {"predicted": float(p), "observed": float(o), "pixels": int(n)}
            for p, o, n in zip(predicted, observed, pixels[is_used], strict=True)
        ],
        "error": float(gaps.sum() / max(pixels.sum(), 1)),
    }
