"""The gate: how likely a class is on a strip at all, held against its mask.

`presence_c` is one probability a class, as the presence head gives it; a network without one gives
an empty array, which only the open gate takes. A soft gate multiplies
every pixel's probability by it; a hard gate empties a class whose presence is too low.

Axes: c classes, h height, w width. No files, no torch.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

GateMode = Literal["none", "hard", "soft"]

Gate: TypeAlias = Callable[[NDArray[Any], NDArray[np.float32]], NDArray[Any]]
"""From probs_chw and presence_c to probs_chw of the same type."""


def build_gate(mode: GateMode, least: Sequence[float]) -> Gate:
    """Make a gate.

    Args:
        mode: none, hard or soft.
        least: Lowest presence of a class that is not emptied, one a class; read by hard.
    """
    gates: dict[GateMode, Gate] = {
        "none": open_gate,
        "soft": soften,
        "hard": partial(close, least=least),
    }
    return gates[mode]


def open_gate(probs_chw: NDArray[Any], _presence_c: NDArray[np.float32]) -> NDArray[Any]:
    """Change nothing."""
    return probs_chw


def soften(probs_chw: NDArray[Any], presence_c: NDArray[np.float32]) -> NDArray[Any]:
    """Multiply each class by its presence; levels 0 to 255 are rounded half up again."""
    assert len(presence_c) == len(probs_chw)
    gated_chw = probs_chw * presence_c.astype(np.float32)[:, None, None]
    if probs_chw.dtype == np.uint8:
        return (gated_chw + np.float32(0.5)).astype(np.uint8)
    return gated_chw


def close(
    probs_chw: NDArray[Any], presence_c: NDArray[np.float32], *, least: Sequence[float]
) -> NDArray[Any]:
    """Empty each class whose presence is below `least`."""
    assert len(least) == len(presence_c) == len(probs_chw)
    is_there = presence_c >= np.asarray(least, np.float32)
    return probs_chw if is_there.all() else probs_chw * is_there[:, None, None]
