"""Augmentation of training samples.

An augmentation takes `image_hwc` (uint8), `mask_hwc` (bool) and a generator, and returns both.
Every draw comes from that generator, which the data set derives from (seed, epoch, sample):
worker count and resuming change nothing.
"""

import importlib
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from steelseg.errors import ConfigError

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
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
    return _Foreign(name, function)


def keep(image_hwc: Image, mask_hwc: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:  # noqa: ARG001
    """Change nothing."""
    return image_hwc, mask_hwc


def flip(image_hwc: Image, mask_hwc: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Flip left-right and up-down, each with probability 0.5, as the baseline does."""
    for axis in (1, 0):
        if rng.random() < 0.5:
            image_hwc, mask_hwc = np.flip(image_hwc, axis), np.flip(mask_hwc, axis)
    return image_hwc, mask_hwc


def light(image_hwc: Image, mask_hwc: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Flip, then scale contrast by 0.8 to 1.2 and shift brightness by up to 10 % of full scale."""
    image_hwc, mask_hwc = flip(image_hwc, mask_hwc, rng)
    gain, shift = rng.uniform(0.8, 1.2), rng.uniform(-25.5, 25.5)
    # A table of 256 entries is much cheaper than arithmetic on every pixel.
    table = np.clip((np.arange(256) - 128) * gain + 128 + shift, 0, 255).astype(np.uint8)
    return table[image_hwc], mask_hwc


class _Foreign:
    """A user's callable behind our signature; picklable for worker processes."""

    def __init__(self, name: str, function: Callable[..., dict[str, NDArray[np.uint8]]]) -> None:
        self._name = name
        self._function = function

    def __call__(
        self, image_hwc: Image, mask_hwc: Mask, rng: np.random.Generator
    ) -> tuple[Image, Mask]:
        # A foreign callable draws from the global generators, so those are seeded from ours.
        seed = int(rng.integers(2**32))
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        result = self._function(
            image=np.ascontiguousarray(image_hwc), mask=mask_hwc.astype(np.uint8)
        )
        image, mask = np.asarray(result["image"]), np.asarray(result["mask"])
        if image.dtype != np.uint8 or image.shape[:2] != mask.shape[:2]:
            raise ConfigError(
                f"train.augmentation={self._name} returned an image of {image.dtype} "
                f"{image.shape} and a mask of {mask.shape}; expected uint8 and equal sizes. "
                "Leave normalisation and tensors out of it."
            )
        return image.reshape(*image.shape[:2], -1), mask.reshape(*mask.shape[:2], -1) > 0
