"""Which flips each run of an ensemble is predicted with: chosen by the error of their mean.

A run has a few candidates, one for each set of views, and takes part with one of them. Starting
from the cheapest of every run, the one change that lowers the error most is made, weights chosen
anew, until no change lowers it. Where two are as good, the one of fewer views stays.

No files, no torch.
"""

from collections.abc import Sequence

import numpy as np

from steelseg.scoring.blending.blend import Products, Weights, errors, relative_error
from steelseg.scoring.blending.weights import Weigh

# Part of the error of empty masks that more views must take away to be taken.
_LEAST_GAIN = 1e-9


def choose_views(products: Products, candidates: Sequence[Sequence[int]], weigh: Weigh) -> Weights:
    """Choose one candidate of each run, and its weight.

    Args:
        products: Of all candidates, on the strips to choose by.
        candidates: Places of each run's candidates, those of fewer views first.
        weigh: Chooses weights.

    Returns:
        weights_kc over all candidates, 0 for those that are not taken.
    """
    total = products.summed()
    taken = [places[0] for places in candidates]
    best = _weigh_taken(total, taken, weigh)
    lowest = _error(total, best)
    while True:
        changes = [
            [*taken[:run], place, *taken[run + 1 :]]
            for run, places in enumerate(candidates)
            for place in places
            if place != taken[run]
        ]
        tried = [_weigh_taken(total, change, weigh) for change in changes]
        found = [_error(total, weights_kc) for weights_kc in tried]
        if not found or not min(found) < lowest - _LEAST_GAIN:
            return best
        place = found.index(min(found))
        taken, best, lowest = changes[place], tried[place], found[place]


def _weigh_taken(products: Products, taken: Sequence[int], weigh: Weigh) -> Weights:
    """Weights over all candidates where only some take part."""
    _, classes, count = products.truth_nck.shape
    weights_kc = np.zeros((count, classes))
    weights_kc[list(taken)] = weigh(products.among(taken))
    return weights_kc


def _error(products: Products, weights_kc: Weights) -> float:
    """The error of a mean; NaN, which is lower than nothing, where no strip has a defect."""
    return relative_error(errors(products, weights_kc), products.pixels_nc)
