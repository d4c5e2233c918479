"""Recall of ground-truth components by their size.

A component (8-connected pixels) is found if a pixel of it is predicted as its class; its coverage
is the fraction of its pixels that are predicted. Size groups are quartiles within each class,
because a small defect of one class can be larger than a large one of another.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def measure_components(
    mask_hw: NDArray[np.bool_], truth_hw: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Measure the ground-truth components of one class on one strip.

    Args:
        mask_hw: Predicted mask, shape (H, W).
        truth_hw: Ground-truth mask, same shape.

    Returns:
        Pixels of each component, and its predicted pixels, shape (M, 2).
    """
    if not truth_hw.any():
        return np.zeros((0, 2), dtype=np.int64)
    truth = np.ascontiguousarray(truth_hw).view(np.uint8)
    count, labels_hw = cv2.connectedComponents(truth, connectivity=8)
    areas = np.bincount(labels_hw.ravel(), minlength=count)
    hits = np.bincount(labels_hw[mask_hw], minlength=count)
    return np.stack([areas, hits], axis=1)[1:].astype(np.int64)


def by_size(components: Sequence[NDArray[np.int64]]) -> list[dict[str, Any]]:
    """Sum the components of one class by quartile of their size.

    Args:
        components: Result of `measure_components` for each strip.

    Returns:
        Quartiles, smallest first, fewer than four if many sizes are equal: `smallest` and
        `largest` in pixels, number of `components`, how many are `found`, mean `coverage`.
    """
    pixels = np.concatenate([np.zeros((0, 2), dtype=np.int64), *components])
    if not len(pixels):
        return []
    areas, hits = pixels.T
    edges = np.quantile(areas, [0.25, 0.5, 0.75])
    quartile = np.searchsorted(edges, areas, side="left")
    return [
        {
            "smallest": int(areas[quartile == q].min()),
            "largest": int(areas[quartile == q].max()),
            "components": int(np.count_nonzero(quartile == q)),
            "found": int(np.count_nonzero(hits[quartile == q])),
            "coverage": float((hits[quartile == q] / areas[quartile == q]).mean()),
        }
        for q in np.unique(quartile)
    ]
