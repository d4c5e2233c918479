"""Confidence intervals of scores: a percentile bootstrap over images.

Each draw samples as many images as there are, with replacement, and gives one value of every score;
the middle 95 % of the values is the interval. Pairs of one image stay together, because they are
not independent. The seed is fixed: the same predictions give the same interval, and two runs on
the same strips are compared draw by draw.

Axes: n images, c classes, b draws. Source: Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13 (percentile intervals).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.metrics import pair_terms, ratios

DRAWS = 1000
_AT_ONCE = 100
_BOUNDS = (0.025, 0.975)


def draw_figures(
    counts_nc3: NDArray[np.int64], *, draws: int = DRAWS
) -> dict[str, NDArray[np.float64]]:
    """Compute every score on resampled images.

    Args:
        counts_nc3: Pixels of intersection, prediction and truth, shape (N, C, 3).
        draws: Number of draws B.

    Returns:
        Scores by name, as `metrics.flatten` names them with an empty prefix, shape (B,); NaN if
        undefined for a draw.
    """
    terms_nc8 = pair_terms(counts_nc3)
    grouped = np.concatenate([terms_nc8.sum(axis=1, keepdims=True), terms_nc8], axis=1)
    flat = grouped.reshape(len(grouped), -1)
    sums = np.concatenate([times @ flat for times in _times_drawn(len(flat), draws)])
    figures = ratios(sums.reshape(draws, *grouped.shape[1:]))
    return {
        f"{name}_{column}" if column else name: values[:, column]
        for name, values in figures.items()
        for column in range(grouped.shape[1])
    }


def _times_drawn(images: int, draws: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each image is in each draw, shape (100, N) at a time."""
    random = np.random.default_rng(0)
    for begin in range(0, draws, _AT_ONCE):
        rows = min(_AT_ONCE, draws - begin)
        yield random.multinomial(images, np.full(images, 1 / images), size=rows).astype(np.float64)


def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the middle 95 % of the draws; None if the score is undefined in all."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, _BOUNDS)
    return float(low), float(high)
