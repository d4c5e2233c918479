"""Positions of crops on an image.

Crops step by `stride` from the top left corner; the last one of a row or column is moved back to
be flush with the edge, so every pixel is covered and no crop is padded. An image smaller than the
crop is used whole.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steelseg.errors import ConfigError


class Box(NamedTuple):
    """A window of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_starts(length: int, crop: int, stride: int) -> list[int]:
    """Place crops along one axis.

    Args:
        length: Length of the image along the axis, in pixels.
        crop: Length of a crop.
        stride: Distance between neighbouring crops.

    Returns:
        Ascending starts. The first is 0, the last is `length - crop`; [0] if the image is
        no longer than the crop.

    Raises:
        ConfigError: if the stride is below 1 or leaves pixels that no crop covers.
    """
    if length <= crop:
        return [0]
    if not 1 <= stride <= crop:
        raise ConfigError(
            f"crop_stride={stride} with a crop of {crop} pixels leaves pixels that no crop "
            f"covers. Use a stride from 1 to {crop}."
        )
    return [*range(0, length - crop, stride), length - crop]


def crop_boxes(
    height: int, width: int, *, crop_height: int, crop_width: int, crop_stride: int
) -> list[Box]:
    """Place crops on an image, row by row.

    Args:
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        crop_height: Height of a crop.
        crop_width: Width of a crop.
        crop_stride: Distance between neighbours in both directions.

    Returns:
        The crops; all have one size, the smaller of image and crop along each axis.
    """
    size = min(crop_height, height), min(crop_width, width)
    return [
        Box(top, left, *size)
        for top in crop_starts(height, crop_height, crop_stride)
        for left in crop_starts(width, crop_width, crop_stride)
    ]


def crop_around_defect(
    box: Box, mask_chw: NDArray[np.bool_], size: tuple[int, int], rng: np.random.Generator
) -> Box:
    """Move a crop so that a random defect pixel that it contains lies at a random place in it.

    First one of the classes in the crop is drawn, then one of its pixels, both uniformly.

    Args:
        box: The crop.
        mask_chw: Masks of the crop, shape (C, h, w).
        size: Height and width of the image.
        rng: Random generator.

    Returns:
        A crop of the same size within the image; `box` itself if it contains no defect.
    """
    channels = np.flatnonzero(mask_chw.any(axis=(1, 2)))
    if not len(channels):
        return box
    pixels = np.argwhere(mask_chw[rng.choice(channels)])
    row, column = (int(place) for place in pixels[rng.integers(len(pixels))])
    top = box.top + row - int(rng.integers(box.height))
    left = box.left + column - int(rng.integers(box.width))
    return Box(
        min(max(top, 0), size[0] - box.height),
        min(max(left, 0), size[1] - box.width),
        box.height,
        box.width,
    )
