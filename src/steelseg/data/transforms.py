"""Augmentation of training samples.

An augmentation takes `image_chw` (uint8), `mask_chw` (uint8, 0 or 1) and a generator, and returns
both: the built-in ones change the two arrays in place, a user's gives new ones, of another size
perhaps. Every draw comes from that generator, which the data set derives from (seed, epoch,
sample): worker count and resuming change nothing.
"""

import importlib
import math
import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.errors import ConfigError

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Augmentation = Callable[[Image, Mask, np.random.Generator], tuple[Image, Mask]]


def find_augmentation(name: str) -> Augmentation:
    """Look an augmentation up.

    Args:
        name: none, flips, light, or `module:callable`. The callable is called as
            `f(image=image_hwc, mask=mask_hwc)` with uint8 arrays and returns a dict with
            those two keys, as an `albumentations.Compose` does.

    Raises:
        ConfigError: if the name is unknown or the callable cannot be imported.
    """
    builtin: dict[str, Augmentation] = {"none": keep, "flips": flip, "light": light}
    if name in builtin:
        return builtin[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"train.augmentation={name}: expected {', '.join(builtin)} or module:callable."
        )
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"train.augmentation={name} cannot be imported: {error}. A module in this folder "
            "is found with PYTHONPATH=. in front of the command."
        ) from None
    return Foreign(name, function)


def keep(image_chw: Image, mask_chw: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:  # noqa: ARG001
    """Change nothing."""
    return image_chw, mask_chw


def flip(image_chw: Image, mask_chw: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Flip left-right and up-down, each with probability 0.5, as the baseline does."""
    sideways, upside_down = rng.random() < 0.5, rng.random() < 0.5
    if sideways or upside_down:
        # OpenCV's codes: 1 left-right, 0 up-down, -1 both.
        code = 0 if not sideways else -1 if upside_down else 1
        for plane in (*image_chw, *mask_chw):
            cv2.flip(plane, code, plane)
    return image_chw, mask_chw


def light(image_chw: Image, mask_chw: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Flip, then scale contrast by 0.8 to 1.2 and shift brightness by up to 10 % of full scale."""
    flip(image_chw, mask_chw, rng)
    gain, shift = rng.uniform(0.8, 1.2), rng.uniform(-25.5, 25.5)
    # A table of 256 entries is much cheaper than arithmetic on every pixel.
    table = np.clip((np.arange(256) - 128) * gain + 128 + shift, 0, 255).astype(np.uint8)
    for plane in image_chw:
        cv2.LUT(plane, table, plane)
    return image_chw, mask_chw


class Foreign:
    """A user's callable behind our signature; picklable for worker processes.

    It draws from the global generators, which are seeded from ours. Threads would draw from them
    at once, so what holds one of these needs processes.
    """

    def __init__(self, name: str, function: Callable[..., dict[str, NDArray[np.uint8]]]) -> None:
        self._name = name
        self._function = function

    def __call__(
        self, image_chw: Image, mask_chw: Mask, rng: np.random.Generator
    ) -> tuple[Image, Mask]:
        """Call it; refuse what is no image of as many channels with a mask of its size."""
        seed = int(rng.integers(2**32))
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        image_hwc, mask_hwc = (
            np.ascontiguousarray(array.transpose(1, 2, 0)) for array in (image_chw, mask_chw)
        )
        result = self._function(image=image_hwc, mask=mask_hwc)
        image, mask = np.asarray(result["image"]), np.asarray(result["mask"])
        if not (
            image.dtype == np.uint8
            and image.shape[:2] == mask.shape[:2]
            and _has_planes(image, len(image_chw))
            and _has_planes(mask, len(mask_chw))
        ):
            raise ConfigError(
                f"train.augmentation={self._name} returned an image of {image.dtype} "
                f"{image.shape} and a mask of {mask.shape}; expected uint8, equal sizes, "
                "and as many channels and classes as it was given. "
                "Leave normalisation and tensors out of it."
            )
        return _channels_first(image), _channels_first((mask > 0).view(np.uint8))


def _has_planes(array: NDArray[Any], planes: int) -> bool:
    """Whether an array has two axes of pixels and so many planes; one plane needs no axis."""
    return array.ndim > 1 and array.size == planes * math.prod(array.shape[:2])


def _channels_first(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """From hwc, or hw as OpenCV drops the axis of one channel, to chw."""
    return array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)
