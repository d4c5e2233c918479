"""From probabilities to masks: a threshold, then two filters of small regions.

Each class has its own four settings. `threshold`: pixels with at least this probability are kept.
`min_size`: connected components with fewer pixels are removed. `min_area`: the remaining mask is
emptied if fewer of its pixels reach `top_threshold`; this is the triplet rule (top score, area,
bottom score) of the competition's best entries, and a plain area filter if `top_threshold` equals
`threshold`. 0 disables either filter. Components are 8-connected.

Probabilities are floats in [0, 1] or uint8 as `to_uint8` rounds them, which is how out-of-fold
predictions are stored. A uint8 q means the probability q / 255. So both give the same mask at 0.5,
and at any threshold halfway between two levels; elsewhere they can differ on pixels within half a
level (0.002) of the threshold.

Axes: c classes, h height, w width. No files, no torch, no search for good settings.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.errors import ConfigError

Number = TypeVar("Number", int, float)

# A threshold of 0.6 is level 153, also where float32 makes it 153.000006.
_LEVEL_NOISE = 1e-4


@dataclass(frozen=True)
class MaskSettings:
    """Settings of `binarize` and of the hard gate before it, one value per class each."""

    threshold: tuple[float, ...]
    """Minimum probability of a pixel."""

    min_size: tuple[int, ...]
    """Minimum size of a component, in pixels."""

    min_area: tuple[int, ...]
    """Minimum number of pixels of the mask that reach `top_threshold`."""

    top_threshold: tuple[float, ...]
    """Minimum probability of pixels that count for `min_area`; at least `threshold`."""

    gate: tuple[float, ...] = ()
    """Minimum presence; an empty tuple without a hard gate."""


def binarize(
    probs_chw: NDArray[Any],
    *,
    threshold: Sequence[float],
    min_size: Sequence[int],
    min_area: Sequence[int],
    top_threshold: Sequence[float] | None = None,
) -> NDArray[np.bool_]:
    """Convert the probabilities of one image to masks.

    Args:
        probs_chw: Probabilities, shape (C, H, W): floats in [0, 1], or uint8 as of `to_uint8`.
        threshold: Minimum probability of a pixel, one per class.
        min_size: Minimum size of a component, in pixels, one per class.
        min_area: Minimum size of the whole mask, in pixels, one per class.
        top_threshold: Minimum probability of pixels that count for `min_area`, one per class; None
            counts every pixel of the mask.

    Returns:
        Masks, shape (C, H, W), row-major in memory.
    """
    tops = threshold if top_threshold is None else top_threshold
    assert len(threshold) == len(min_size) == len(min_area) == len(tops) == len(probs_chw), (
        f"{threshold}, {min_size}, {min_area}, {tops} for {probs_chw.shape}"
    )
    masks_chw = np.empty(probs_chw.shape, dtype=np.bool_)
    for channel, mask_hw in enumerate(masks_chw):
        probs_hw = probs_chw[channel]
        np.greater_equal(probs_hw, level_of(threshold[channel], probs_hw.dtype), out=mask_hw)
        _filter(mask_hw, min_size=min_size[channel], min_area=min_area[channel])
        if tops[channel] > threshold[channel] and mask_hw.any():
            is_top_hw = probs_hw >= level_of(tops[channel], probs_hw.dtype)
            if np.count_nonzero(mask_hw & is_top_hw) < min_area[channel]:
                mask_hw[:] = False
    return masks_chw


def level_of(threshold: float, dtype: np.dtype[Any]) -> float:
    """Convert a threshold to the unit of an array: q / 255 >= t is q >= ceil(255 t).

    Args:
        threshold: A probability.
        dtype: Type of the array, uint8 or floating.
    """
    if dtype == np.uint8:
        return math.ceil(float(threshold) * 255 - _LEVEL_NOISE)
    assert np.issubdtype(dtype, np.floating), dtype
    # A Python float lets numpy compare in the array's precision: float32(0.7) reaches 0.7.
    return float(threshold)


def _filter(mask_hw: NDArray[np.bool_], *, min_size: int, min_area: int) -> None:
    """Remove small components, then empty a small rest, in place."""
    # No component is larger than the mask, so most masks need no search for components.
    if np.count_nonzero(mask_hw) < max(min_size, min_area, 1):
        mask_hw[:] = False
        return
    if min_size <= 1:
        return
    _remove_components(mask_hw, min_size)
    if np.count_nonzero(mask_hw) < min_area:
        mask_hw[:] = False


def _remove_components(mask_hw: NDArray[np.bool_], min_size: int) -> None:
    _, labels_hw, stats, _ = cv2.connectedComponentsWithStats(
        mask_hw.view(np.uint8), connectivity=8
    )
    is_kept = stats[:, cv2.CC_STAT_AREA] >= min_size
    is_kept[0] = False  # Label 0 is the background.
    if not is_kept[1:].all():
        # Half the time of indexing; no label is out of range, so "clip" never clips.
        np.take(is_kept, np.asarray(labels_hw, dtype=np.int32), out=mask_hw, mode="clip")


def per_class(
    value: Number | Iterable[Number], num_classes: int, *, name: str
) -> tuple[Number, ...]:
    """Expand a setting to one value per class.

    Args:
        value: One number for all classes, or one per class.
        num_classes: Number of classes C.
        name: The setting as the user writes it, for the message.

    Returns:
        Values, length C.

    Raises:
        ConfigError: if the number of values is not the number of classes.
    """
    if not isinstance(value, Iterable):
        return (value,) * num_classes
    values = tuple(value)
    if len(values) != num_classes:
        raise ConfigError(
            f"{name} has {len(values)} value{'' if len(values) == 1 else 's'}, but there "
            f"{'is 1 class' if num_classes == 1 else f'are {num_classes} classes'}. "
            "Give one number for all classes, or one per class."
        )
    return values


def to_uint8(probs: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round probabilities to 256 levels, half up: floor(255 p + 0.5).

    Args:
        probs: Values in [0, 1], any shape; not modified.

    Returns:
        Levels q, same shape; q / 255 is within 1 / 510 of the probability.
    """
    levels = probs * 255
    levels += 0.5
    return levels.astype(np.uint8)
