"""The gate: combine the presence of each class on a strip with its mask probabilities.

`presence_c` is one probability per class, from the presence head; a network without one gives an
empty array, which only the open gate accepts. A soft gate multiplies the probabilities of every
pixel by it; a hard gate empties classes with low presence.

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
    """Return the gate of a mode.

    Args:
        mode: none, hard or soft.
        least: Minimum presence of each class, for hard.
    """
    gates: dict[GateMode, Gate] = {
        "none": open_gate,
        "soft": soften,
        "hard": partial(close, least=least),
    }
    return gates[mode]


def open_gate(probs_chw: NDArray[Any], _presence_c: NDArray[np.float32]) -> NDArray[Any]:
    """Return the probabilities unchanged."""
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
    """Set classes with presence below `least` to 0."""
    assert len(least) == len(presence_c) == len(probs_chw)
    is_there = presence_c >= np.asarray(least, np.float32)
    return probs_chw if is_there.all() else probs_chw * is_there[:, None, None]
