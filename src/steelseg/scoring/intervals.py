"""Confidence intervals of the figures: a bootstrap over images.

Images are drawn with replacement, as many as there are; each draw gives one value of every
figure, and the middle 95 % of them is the interval. Pairs of one image stay together, because
they are not independent. The draws follow from a fixed seed: the same predictions give the same
interval, and two runs on the same strips are compared draw by draw.

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
    """Compute every figure on resampled images.

    Args:
        counts_nc3: Pixels of intersection, prediction and truth, shape (N, C, 3).
        draws: Draws B.

    Returns:
        By name, as `metrics.flatten` names them with an empty prefix, shape (B,); NaN where a
        draw leaves nothing to divide by.
    """
    terms_nc8 = pair_terms(counts_nc3)
    grouped = np.concatenate([terms_nc8.sum(axis=1, keepdims=True), terms_nc8], axis=1)
    flat = grouped.reshape(len(grouped), -1)
    sums = np.concatenate([times @ flat for times in times_drawn(len(flat), draws)])
    figures = ratios(sums.reshape(draws, *grouped.shape[1:]))
    return {
        f"{name}_{column}" if column else name: values[:, column]
        for name, values in figures.items()
        for column in range(grouped.shape[1])
    }


def times_drawn(images: int, draws: int = DRAWS) -> Iterator[NDArray[np.float64]]:
    """How often each image is in each draw, shape (a hundred draws, N) at once."""
    random = np.random.default_rng(0)
    for begin in range(0, draws, _AT_ONCE):
        rows = min(_AT_ONCE, draws - begin)
        yield random.multinomial(images, np.full(images, 1 / images), size=rows).astype(np.float64)


def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The middle 95 % of some draws; None where the figure is not defined in any."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, _BOUNDS)
    return float(low), float(high)
