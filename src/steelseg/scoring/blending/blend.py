"""Weighted means of predictions, and their squared error for any weights from one pass over strips.

The squared error of a weighted mean is a quadratic function of the weights: it depends only on the
products of the predictions with each other and with the ground truth, summed over pixels. These
are kept exactly, for each strip, so weights can be chosen on some strips and scored on others
without reading pixels again.

The error of a class is in units of the error of empty masks: 0 is perfect, 1 is as bad as finding
nothing. This is a scaled Brier score, a proper scoring rule. It is undefined for a class that no
strip has.

Axes: n strips, c classes, k predictions (candidates), h height, w width. No files, no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
"""weights_kc: not negative, of sum 1 over the predictions of each class."""

_FULL = 255


@dataclass(frozen=True)
class Products:
    """Products summed over the pixels of each strip, with probabilities times 255."""

    own_nckk: NDArray[np.float64]
    """Each prediction with each other one."""

    truth_nck: NDArray[np.float64]
    """Each prediction with the ground truth."""

    pixels_nc: NDArray[np.float64]
    """Number of defect pixels in the ground truth."""

    def __len__(self) -> int:
        return len(self.pixels_nc)

    def of(self, is_chosen_n: NDArray[np.bool_]) -> "Products":
        """Return the products of the selected strips."""
        chosen = (self.own_nckk, self.truth_nck, self.pixels_nc)
        return Products(*(part[is_chosen_n] for part in chosen))

    def summed(self) -> "Products":
        """Return the sum over all strips, as if they were one strip."""
        parts = (self.own_nckk, self.truth_nck, self.pixels_nc)
        return Products(*(part.sum(axis=0, keepdims=True) for part in parts))


def multiply(
    probs_kchw: NDArray[np.uint8], truth_chw: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute the products of one strip.

    Args:
        probs_kchw: Probabilities of each prediction, times 255.
        truth_chw: Ground-truth masks.

    Returns:
        own_ckk, truth_ck and pixels_c; integers, so sums do not depend on the order.
    """
    count, classes = probs_kchw.shape[:2]
    own_ckk, truth_ck = np.empty((classes, count, count)), np.empty((classes, count))
    for channel in range(classes):
        flat_kp = probs_kchw[:, channel].reshape(count, -1).astype(np.float64)
        own_ckk[channel] = flat_kp @ flat_kp.T
        truth_ck[channel] = flat_kp[:, truth_chw[channel].ravel()].sum(axis=1) * _FULL
    return own_ckk, truth_ck, truth_chw.sum(axis=(1, 2)).astype(np.float64)


def stack_products(
    strips: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]],
) -> Products:
    """Stack the results of `multiply` for each strip."""
    return Products(*map(np.stack, zip(*strips, strict=True)))


def errors(products: Products, weights_kc: Weights) -> NDArray[np.float64]:
    """Return the squared error of the weighted mean, summed over pixels, shape (N, C).

    A pixel that is completely wrong counts 1, a probability of 0.5 counts 0.25.
    """
    own_nc = np.einsum("nckl,kc,lc->nc", products.own_nckk, weights_kc, weights_kc)
    truth_nc = np.einsum("nck,kc->nc", products.truth_nck, weights_kc)
    errors_nc: NDArray[np.float64] = (own_nc - 2 * truth_nc) / _FULL**2 + products.pixels_nc
    return errors_nc


def relative_error(errors_nc: NDArray[np.float64], pixels_nc: NDArray[np.float64]) -> float:
    """Return the mean error over classes, in units of empty masks; NaN without any defect."""
    pixels_c = pixels_nc.sum(axis=0)
    is_there = pixels_c > 0
    if not is_there.any():
        return float("nan")
    return float((errors_nc.sum(axis=0)[is_there] / pixels_c[is_there]).mean())


def blend(probs_kchw: NDArray[np.uint8], weights_kc: Weights) -> NDArray[np.uint8]:
    """Return the weighted mean of predictions times 255, rounded half up."""
    mean_chw = np.zeros(probs_kchw.shape[1:], np.float32)
    for probs_chw, weights_c in zip(probs_kchw, weights_kc.astype(np.float32), strict=True):
        if weights_c.any():
            mean_chw += probs_chw * weights_c[:, None, None]
    # Thirds and sixths are not exact in binary; the margin rounds their halves up too.
    levels: NDArray[np.uint8] = (mean_chw + np.float32(0.5 + 1e-4)).astype(np.uint8)
    return levels
