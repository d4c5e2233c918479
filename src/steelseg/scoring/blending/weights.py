"""Weights of the predictions in an ensemble: equal, or chosen by greedy selection.

Greedy selection (Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble Selection from Libraries of
Models, 2004) adds to a bag, again and again, the prediction that lowers the squared error of the
bag's mean most; a prediction may be added several times. The weights are small fractions, and
predictions that do not help get none.

Weights chosen and scored on the same strips look better than they are, so strips are divided into
inner folds and the weights for each are chosen on the others.

Axes: n strips, c classes, k predictions, b bags. No files, no torch.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.blending.blend import Products, Weights, errors

Weighing = Literal["equal", "greedy"]

Weigh: TypeAlias = Callable[[Products], Weights]
"""From products of some strips to weights_kc."""

# Maximum size of a bag; weights are multiples of 1 / size.
BAG = 20

# Below this, relative to the error of empty masks, a gain is rounding noise.
_TOLERANCE = 1e-12


def build_weigh(mode: Weighing, *, per_class: bool) -> Weigh:
    """Return a function that chooses weights.

    Args:
        mode: equal or greedy.
        per_class: Choose separate weights for each class; otherwise all classes share the weights
            that minimise the mean of their errors. A class without a true pixel does not count,
            and its separate weights are equal.
    """
    if mode == "equal":
        return _equal

    def weigh(products: Products) -> Weights:
        own_ckk, truth_ck = _scaled(products)
        if not per_class:
            weights_k = select_greedily(own_ckk.mean(axis=0), truth_ck.mean(axis=0))
            return np.repeat(weights_k[:, None], len(own_ckk), axis=1)
        pairs = zip(own_ckk, truth_ck, strict=True)
        return np.stack([select_greedily(*pair) for pair in pairs], axis=1)

    return weigh


def _equal(products: Products) -> Weights:
    """Return equal weights of sum 1."""
    _, classes, count = products.truth_nck.shape
    return np.full((count, classes), 1 / count)


def _scaled(products: Products) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum over strips, in units of the error of empty masks; zeros for a class that is absent."""
    total = products.summed()
    pixels_c = total.pixels_nc[0]
    scale_c = np.where(pixels_c > 0, 1 / np.maximum(pixels_c, 1), 0) / 255**2
    return total.own_nckk[0] * scale_c[:, None, None], total.truth_nck[0] * scale_c[:, None]


def select_greedily(
    own_kk: NDArray[np.float64], truth_k: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fill a bag one prediction at a time, and return the weights of the best bag on the way.

    Args:
        own_kk: Products of every two predictions.
        truth_k: Products of each prediction with the ground truth.

    Returns:
        weights_k of sum 1, the composition of a bag of at most `BAG` predictions; equal weights if
        all products are 0.
    """
    count = len(truth_k)
    if not own_kk.any() and not truth_k.any():
        return np.full(count, 1 / count)
    bag_k = np.zeros(count)
    best_k, lowest = bag_k, np.inf
    for size in range(1, BAG + 1):
        # One row for each prediction that could be added.
        bags_bk = (bag_k + np.eye(count)) / size
        errors_b = np.einsum("bk,kl,bl->b", bags_bk, own_kk, bags_bk) - 2 * bags_bk @ truth_k
        added = int(np.argmin(errors_b))
        bag_k = bag_k + np.eye(count)[added]
        if errors_b[added] < lowest - _TOLERANCE:
            best_k, lowest = bag_k / size, float(errors_b[added])
    return best_k


def cross_fitted_weights(
    products: Products, fold_n: NDArray[np.int64], weigh: Weigh
) -> tuple[Weights, ...]:
    """Choose weights for the strips of each inner fold on the other inner folds.

    Args:
        products: Of all strips.
        fold_n: Inner fold of each strip, counted from 0.
        weigh: Chooses weights.

    Returns:
        weights_kc of each inner fold.
    """
    return tuple(weigh(products.of(fold_n != fold)) for fold in range(fold_n.max() + 1))


def cross_fitted_errors(
    products: Products, fold_n: NDArray[np.int64], weights: Sequence[Weights]
) -> NDArray[np.float64]:
    """Return the squared errors with the weights of each strip's inner fold, shape (N, C)."""
    errors_nc = np.empty_like(products.pixels_nc)
    for fold, weights_kc in enumerate(weights):
        is_judged = fold_n == fold
        errors_nc[is_judged] = errors(products.of(is_judged), weights_kc)
    return errors_nc
