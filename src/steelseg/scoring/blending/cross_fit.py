"""Weighted means judged on strips that their weights were not chosen on.

Axes: n strips, c classes, k predictions, b draws. No files, no torch.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.blending.blend import Products, Weights, errors, relative_error
from steelseg.scoring.intervals import interval, times_drawn

Choose: TypeAlias = Callable[[Products], Weights]
"""From the strips to choose by to weights_kc of all predictions."""


def choose_without(
    products: Products, part_n: NDArray[np.int64], choose: Choose
) -> tuple[Weights, ...]:
    """The weights for the strips of each part, chosen on the other parts.

    Args:
        products: Of all strips.
        part_n: Part of each strip, 0 to the number of parts - 1.
        choose: Chooses.
    """
    return tuple(choose(products.of(part_n != part)) for part in range(part_n.max() + 1))


def judge(
    products: Products, part_n: NDArray[np.int64], weights: Sequence[Weights]
) -> NDArray[np.float64]:
    """Squared error of each strip and class, by the weights of its part, shape (N, C)."""
    errors_nc = np.empty_like(products.pixels_nc)
    for part, weights_kc in enumerate(weights):
        is_judged = part_n == part
        errors_nc[is_judged] = errors(products.of(is_judged), weights_kc)
    return errors_nc


def error_difference(
    a_nc: NDArray[np.float64], b_nc: NDArray[np.float64], pixels_nc: NDArray[np.float64]
) -> tuple[float, tuple[float, float] | None]:
    """How much larger the relative error of b is than that of a, with its 95 % interval.

    Both are judged on the same strips, draw by draw of the same bootstrap.
    """
    difference_nc = b_nc - a_nc
    draws = []
    for times_bn in times_drawn(len(pixels_nc)):
        pixels_bc, difference_bc = times_bn @ pixels_nc, times_bn @ difference_nc
        relative_bc = np.where(pixels_bc > 0, difference_bc / np.maximum(pixels_bc, 1), np.nan)
        is_there_b = (pixels_bc > 0).any(axis=1)
        draws.append(np.nanmean(relative_bc[is_there_b], axis=1))
    return relative_error(difference_nc, pixels_nc), interval(np.concatenate(draws))
