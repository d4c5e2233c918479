"""How good a weighted mean of predictions is, for any weights, from one pass over the strips.

The squared error of a weighted mean is a quadratic function of the weights: all that it hangs on
is the products of the predictions with each other and with the truth, summed over pixels. They are
kept strip by strip, exactly, so that weights can be chosen on some strips and judged on others
without reading a pixel again.

The error of a class is in units of what empty masks would have: 0 is right everywhere, 1 as wrong
as finding nothing. It is the Brier score, a proper one: no prediction gains by being unsure of what
it knows. A class that no strip shows has no error.

Axes: n strips, c classes, k predictions (candidates), h height, w width. No files, no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
"""weights_kc, at least 0, of sum 1 over the predictions of a class."""

_FULL = 255


@dataclass(frozen=True)
class Products:
    """Sums of products over the pixels of some strips, in levels of 255."""

    own_nckk: NDArray[np.float64]
    """Of every two predictions."""

    truth_nck: NDArray[np.float64]
    """Of each prediction and the truth."""

    pixels_nc: NDArray[np.float64]
    """True pixels."""

    def __len__(self) -> int:
        return len(self.pixels_nc)

    def of(self, is_chosen_n: NDArray[np.bool_]) -> "Products":
        """Those of some strips."""
        chosen = (self.own_nckk, self.truth_nck, self.pixels_nc)
        return Products(*(part[is_chosen_n] for part in chosen))

    def among(self, candidates: Sequence[int]) -> "Products":
        """Those of some predictions, in this order."""
        places = list(candidates)
        own_nckk = self.own_nckk[:, :, places][..., places]
        return Products(own_nckk, self.truth_nck[..., places], self.pixels_nc)

    def summed(self) -> "Products":
        """Those of all strips as if they were one."""
        parts = (self.own_nckk, self.truth_nck, self.pixels_nc)
        return Products(*(part.sum(axis=0, keepdims=True) for part in parts))


def multiply(
    probs_kchw: NDArray[np.uint8], truth_chw: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Count one strip.

    Args:
        probs_kchw: What each candidate says of it, times 255.
        truth_chw: The true masks.

    Returns:
        own_ckk, truth_ck and pixels_c of it; whole numbers, so no sum hangs on its order.
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
    """Put what `multiply` gave of each strip together."""
    return Products(*map(np.stack, zip(*strips, strict=True)))


def errors(products: Products, weights_kc: Weights) -> NDArray[np.float64]:
    """Squared error of the weighted mean on each strip and class, summed over pixels, shape (N, C).

    In pixels: a pixel that is quite wrong counts as 1, one that is half sure as 0.25.
    """
    own_nc = np.einsum("nckl,kc,lc->nc", products.own_nckk, weights_kc, weights_kc)
    truth_nc = np.einsum("nck,kc->nc", products.truth_nck, weights_kc)
    errors_nc: NDArray[np.float64] = (own_nc - 2 * truth_nc) / _FULL**2 + products.pixels_nc
    return errors_nc


def relative_error(errors_nc: NDArray[np.float64], pixels_nc: NDArray[np.float64]) -> float:
    """Mean over the classes of the error in units of what empty masks would have; NaN without."""
    pixels_c = pixels_nc.sum(axis=0)
    is_there = pixels_c > 0
    if not is_there.any():
        return float("nan")
    return float((errors_nc.sum(axis=0)[is_there] / pixels_c[is_there]).mean())


def blend(probs_kchw: NDArray[np.uint8], weights_kc: Weights) -> NDArray[np.uint8]:
    """The weighted mean of predictions, in levels, rounded half up."""
    mean_chw = np.zeros(probs_kchw.shape[1:], np.float32)
    for probs_chw, weights_c in zip(probs_kchw, weights_kc.astype(np.float32), strict=True):
        if weights_c.any():
            mean_chw += probs_chw * weights_c[:, None, None]
    # Thirds and sixths are not exact in binary; half a level is rounded up all the same.
    levels: NDArray[np.uint8] = (mean_chw + np.float32(0.5 + 1e-4)).astype(np.uint8)
    return levels
