"""Where crops lie on an image.

Crops step by `stride` from the top left corner; the last one of a row or column is moved
back until it is flush with the edge, so every pixel is covered and no crop is padded.
An image smaller than the crop is taken whole.
"""

from typing import NamedTuple

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
        crop_stride: Distance between neighbours, both ways.

    Returns:
        The crops; all of one size, the smaller of image and crop along each axis.
    """
    size = min(crop_height, height), min(crop_width, width)
    return [
        Box(top, left, *size)
        for top in crop_starts(height, crop_height, crop_stride)
        for left in crop_starts(width, crop_width, crop_stride)
    ]
