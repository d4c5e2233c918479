"""How much each prediction counts in their mean: alike, learnt, or chosen one after the other.

All three look at the same error (`evaluation.blend`). `learnt` finds the weights of least error
among all that are at least 0 and sum to 1; that is a quadratic programme, solved exactly. `greedy`
adds to a bag, again and again, the prediction that lowers the error of the bag's mean most; one may
come in often. (Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble Selection from Libraries of
Models, 2004.) It ends in round weights, and leaves out what does not help.

Axes: c classes, k predictions. No files, no torch.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.blending.blend import Products, Weights

Weighing = Literal["equal", "learnt", "greedy"]

Weigh: TypeAlias = Callable[[Products], Weights]
"""From products of some strips to weights_kc."""

# Bags of at most so many; a weight is then a multiple of a twentieth at the finest.
BAG = 20

# Below this, relative to the error of empty masks, a gain is noise of the arithmetic.
_TOLERANCE = 1e-12


def build_weigh(mode: Weighing, *, per_class: bool) -> Weigh:
    """Make what chooses weights.

    Args:
        mode: equal, learnt or greedy.
        per_class: Weights of each class by itself; else the same for all, by the mean of the
            classes' errors. A class without a true pixel has no say, and equal weights of its own.
    """
    if mode == "equal":
        return _equal
    solve = least_error if mode == "learnt" else pick

    def weigh(products: Products) -> Weights:
        own_ckk, truth_ck = _scaled(products)
        if not per_class:
            weights_k = solve(own_ckk.mean(axis=0), truth_ck.mean(axis=0))
            return np.repeat(weights_k[:, None], len(own_ckk), axis=1)
        return np.stack([solve(*pair) for pair in zip(own_ckk, truth_ck, strict=True)], axis=1)

    return weigh


def _equal(products: Products) -> Weights:
    """The plain mean."""
    _, classes, count = products.truth_nck.shape
    return np.full((count, classes), 1 / count)


def _scaled(products: Products) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over strips in units of what empty masks would have; zeros of a class that is absent."""
    total = products.summed()
    pixels_c = total.pixels_nc[0]
    scale_c = np.where(pixels_c > 0, 1 / np.maximum(pixels_c, 1), 0) / 255**2
    return total.own_nckk[0] * scale_c[:, None, None], total.truth_nck[0] * scale_c[:, None]


def least_error(own_kk: NDArray[np.float64], truth_k: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights w on the simplex that minimise w.own.w - 2 w.truth.

    An active-set method: on a set of predictions the best weights follow from linear equations;
    one that would lower the error joins the set, one whose weight would be negative leaves it.
    (Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23, with the sum held at 1.)

    Args:
        own_kk: Symmetric, positive semidefinite.
        truth_k: Products with the truth.

    Returns:
        weights_k; equal ones where nothing tells the predictions apart.
    """
    count = len(truth_k)
    if not own_kk.any() and not truth_k.any():
        return np.full(count, 1 / count)
    best = int(np.argmin(own_kk.diagonal() - 2 * truth_k))
    weights_k = np.zeros(count)
    weights_k[best] = 1
    chosen = [best]
    # Every round lowers the error, so that no set comes twice; the bound is for rounding.
    for _ in range(10 * count):
        slope_k = own_kk @ weights_k - truth_k
        gain_k = weights_k @ slope_k - slope_k
        gain_k[chosen] = 0
        if gain_k.max() <= _TOLERANCE:
            break
        chosen.append(int(np.argmax(gain_k)))
        weights_k, chosen = _settle(own_kk, truth_k, weights_k, chosen)
    # Rounding has left the sum a little off 1.
    return np.asarray(weights_k / weights_k.sum())


def _settle(
    own_kk: NDArray[np.float64],
    truth_k: NDArray[np.float64],
    weights_k: NDArray[np.float64],
    chosen: list[int],
) -> tuple[NDArray[np.float64], list[int]]:
    """Go to the best weights on a set, dropping what falls to 0 on the way."""
    while True:
        aim = _on_set(own_kk, truth_k, chosen)
        now = weights_k[chosen]
        if (aim > 0).all():
            settled_k = np.zeros_like(weights_k)
            settled_k[chosen] = aim
            return settled_k, chosen
        falling = aim <= 0
        step = float((now[falling] / np.maximum(now[falling] - aim[falling], 1e-300)).min())
        moved = now + step * (aim - now)
        # The one that ends the step is 0 in truth, whatever is left of it by rounding.
        moved[falling & (moved <= moved[falling].min())] = 0
        weights_k = np.zeros_like(weights_k)
        weights_k[chosen] = moved
        chosen = [k for k in chosen if weights_k[k] > 0]


def _on_set(
    own_kk: NDArray[np.float64], truth_k: NDArray[np.float64], chosen: list[int]
) -> NDArray[np.float64]:
    """The best weights of sum 1 on a set, whatever their sign."""
    size = len(chosen)
    system = np.ones((size + 1, size + 1))
    system[:size, :size] = own_kk[np.ix_(chosen, chosen)]
    system[size, size] = 0
    solution = np.linalg.lstsq(system, np.append(truth_k[chosen], 1), rcond=None)[0]
    return np.asarray(solution[:size])


def pick(own_kk: NDArray[np.float64], truth_k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill a bag one prediction at a time, and take the weights of its best moment.

    Takes and gives what `least_error` does; weights are shares of a bag of at most `BAG`.
    """
    count = len(truth_k)
    if not own_kk.any() and not truth_k.any():
        return np.full(count, 1 / count)
    bag_k = np.zeros(count)
    best_k, lowest = bag_k, np.inf
    for size in range(1, BAG + 1):
        # Of each bag that one more prediction makes.
        bags_kk = (bag_k + np.eye(count)) / size
        errors_k = np.einsum("bk,kl,bl->b", bags_kk, own_kk, bags_kk) - 2 * bags_kk @ truth_k
        added = int(np.argmin(errors_k))
        bag_k = bag_k + np.eye(count)[added]
        if errors_k[added] < lowest - _TOLERANCE:
            best_k, lowest = bag_k / size, float(errors_k[added])
    return best_k
