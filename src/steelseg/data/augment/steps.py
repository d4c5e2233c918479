"""Augmentation of training samples.

An augmentation takes `image_chw` (uint8), `mask_chw` (uint8, 0 or 1) and a generator, and returns
both: the built-in ones change the two arrays in place, a user's gives new ones, of another size
perhaps. Every draw comes from that generator, which the data set derives from (seed, epoch,
sample): worker count and resuming change nothing.
"""

import importlib
import math
import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.data.augment import geometric as strip_changes
from steelseg.data.augment import photometric as pixel_changes
from steelseg.errors import ConfigError

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Augmentation = Callable[[Image, Mask, np.random.Generator], tuple[Image, Mask]]


def find_augmentation(
    steps: str | Sequence[str], *, donors: strip_changes.Donors | None = None
) -> Augmentation:
    """Look an augmentation up.

    Args:
        steps: One step or several, done in their order. A step is a name, or "0.3 NAME" for a
            share of the samples, or `module:callable`. The callable is called as
            `f(image=image_hwc, mask=mask_hwc)` with uint8 arrays and returns a dict with
            those two keys, as an `albumentations.Compose` does.
        donors: Where defect_paste takes defects from.

    Raises:
        ConfigError: if a name is unknown or a callable cannot be imported.
    """
    chain = [_parse_step(step, donors) for step in ([steps] if isinstance(steps, str) else steps)]
    if len(chain) == 1 and chain[0][0] == 1:
        return chain[0][1]
    return Chain(chain)


def _parse_step(step: str, donors: strip_changes.Donors | None) -> tuple[float, Augmentation]:
    """A share of the samples, and what is done to them."""
    share_text, _, name = step.strip().rpartition(" ")
    try:
        share = float(share_text or 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ConfigError(
            f"train.augmentation={step}: {share_text.strip()} before {name} is not a fraction; "
            "give one above 0, of at most 1."
        )
    return share, _find_one(name, donors)


def _find_one(name: str, donors: strip_changes.Donors | None) -> Augmentation:
    """One step by its name."""
    if name == "defect_paste" and donors:
        return donors.paste
    if name in STEPS:
        return STEPS[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"train.augmentation={name}: expected {', '.join(STEPS)} or module:callable."
        )
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"train.augmentation={name} cannot be imported: {error}. A module in this folder "
            "is found with PYTHONPATH=. in front of the command."
        ) from None
    if not callable(function):
        raise ConfigError(f"train.augmentation={name} is a {type(function).__name__}, no callable.")
    return Foreign(name, function)


class Chain:
    """Several steps, each for its share of the samples; picklable for worker processes."""

    def __init__(self, steps: Sequence[tuple[float, Augmentation]]) -> None:
        """Take the share of the samples and the augmentation of each step."""
        self._steps = tuple(steps)

    @property
    def needs_processes(self) -> bool:
        """Whether a step does."""
        return any(needs_processes(step) for _, step in self._steps)

    def __call__(
        self, image_chw: Image, mask_chw: Mask, rng: np.random.Generator
    ) -> tuple[Image, Mask]:
        """Do the steps in their order."""
        for share, step in self._steps:
            if share == 1 or rng.random() < share:
                image_chw, mask_chw = step(image_chw, mask_chw, rng)
        return image_chw, mask_chw


def needs_processes(augmentation: Augmentation) -> bool:
    """Whether threads would disturb each other in it."""
    return bool(getattr(augmentation, "needs_processes", False))


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
    return pixel_changes.brightness(image_chw, mask_chw, rng)


STEPS: dict[str, Augmentation] = {
    "none": keep,
    "flips": flip,
    "light": light,
    "brightness": pixel_changes.brightness,
    "gamma": pixel_changes.gamma,
    "noise": pixel_changes.noise,
    "blur": pixel_changes.blur,
    "jpeg": pixel_changes.jpeg,
    "shift_scale": strip_changes.shift_scale,
    "conveyor_shift": strip_changes.conveyor_shift,
    "black_ends": strip_changes.black_ends,
    "defect_blackout": strip_changes.defect_blackout,
    "defect_paste": keep,  # without the defects of other strips, which `find_augmentation` is given
}
"""Every built-in step that `train.augmentation` can name."""


class Foreign:
    """A user's callable behind our signature; picklable for worker processes.

    It draws from the global generators, which are seeded from ours. Threads would draw from them
    at once, so what holds one of these needs processes.
    """

    needs_processes = True

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
        try:
            result = self._function(image=image_hwc, mask=mask_hwc)
        except MemoryError:
            raise
        except Exception as error:
            # What a user's code raises can be anything; the traceback goes with it.
            raise ConfigError(f"train.augmentation={self._name} failed: {_told(error)}") from error
        if not isinstance(result, Mapping) or not {"image", "mask"} <= result.keys():
            raise ConfigError(
                f"train.augmentation={self._name} returned a {type(result).__name__}; expected a "
                "dict with image and mask."
            )
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


def _told(error: Exception) -> str:
    """What went wrong, and in which line of which file."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})."


def _has_planes(array: NDArray[Any], planes: int) -> bool:
    """Whether an array has two axes of pixels and so many planes; one plane needs no axis."""
    return array.ndim > 1 and array.size == planes * math.prod(array.shape[:2])


def _channels_first(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """From hwc, or hw as OpenCV drops the axis of one channel, to chw.

    A copy where planes are interleaved, because OpenCV writes whole ones only.
    """
    return np.ascontiguousarray(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1))
