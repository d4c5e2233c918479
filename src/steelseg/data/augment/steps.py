"""Augmentation of training samples.

An augmentation takes `image_chw` (uint8), `mask_chw` (uint8, 0 or 1) and a random generator, and
returns both. The built-in ones change the two arrays in place; a custom one returns new arrays,
which may have another size. All randomness comes from the generator, which the data set derives
from (seed, epoch, sample), so worker count and resuming change nothing.
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

from steelseg.data.augment import geometric, photometric
from steelseg.data.augment.geometric import CopyPasteSource
from steelseg.errors import ConfigError

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Augmentation = Callable[[Image, Mask, np.random.Generator], tuple[Image, Mask]]


def find_augmentation(
    steps: str | Sequence[str], *, copy_paste: CopyPasteSource | None = None
) -> Augmentation:
    """Build the augmentation that `train.augmentation` describes.

    Args:
        steps: One step or several, applied in this order. A step is a name, "0.3 NAME" to apply it
            with that probability, or `module:callable`. The callable is called as
            `f(image=image_hwc, mask=mask_hwc)` with uint8 arrays and returns a dict with
            those two keys, as an `albumentations.Compose` does.
        copy_paste: Where defect_paste takes defects from; without it defect_paste does nothing.

    Raises:
        ConfigError: if a name is unknown or a callable cannot be imported.
    """
    texts = [steps] if isinstance(steps, str) else steps
    parsed = [_parse_step(text, copy_paste) for text in texts]
    if len(parsed) == 1 and parsed[0][0] == 1:
        return parsed[0][1]
    return Compose(parsed)


def _parse_step(step: str, copy_paste: CopyPasteSource | None) -> tuple[float, Augmentation]:
    """Return the probability and the augmentation of a step."""
    share_text, _, name = step.strip().rpartition(" ")
    try:
        share = float(share_text or 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ConfigError(
            f"train.augmentation={step}: {share_text.strip()} before {name} is not a fraction; "
            "use a number above 0 and at most 1."
        )
    return share, _find_step(name, copy_paste)


def _find_step(name: str, copy_paste: CopyPasteSource | None) -> Augmentation:
    """Return the augmentation with this name."""
    if name == "defect_paste" and copy_paste:
        return copy_paste.paste
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
        raise ConfigError(
            f"train.augmentation={name} is a {type(function).__name__}, not a callable."
        )
    return CustomAugmentation(name, function)


class Compose:
    """Applies steps in order, each with its probability; picklable for worker processes."""

    def __init__(self, steps: Sequence[tuple[float, Augmentation]]) -> None:
        """Take the probability and the augmentation of each step."""
        self._steps = tuple(steps)

    @property
    def needs_processes(self) -> bool:
        """Whether any step needs processes."""
        return any(needs_processes(step) for _, step in self._steps)

    def __call__(
        self, image_chw: Image, mask_chw: Mask, rng: np.random.Generator
    ) -> tuple[Image, Mask]:
        """Apply the steps to one sample."""
        for share, step in self._steps:
            if share == 1 or rng.random() < share:
                image_chw, mask_chw = step(image_chw, mask_chw, rng)
        return image_chw, mask_chw


def needs_processes(augmentation: Augmentation) -> bool:
    """Whether it must run in worker processes, because threads would share its global state."""
    return bool(getattr(augmentation, "needs_processes", False))


def identity(image_chw: Image, mask_chw: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:  # noqa: ARG001
    """Return the sample unchanged."""
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
    return photometric.brightness(image_chw, mask_chw, rng)


STEPS: dict[str, Augmentation] = {
    "none": identity,
    "flips": flip,
    "light": light,
    "brightness": photometric.brightness,
    "gamma": photometric.gamma,
    "noise": photometric.noise,
    "blur": photometric.blur,
    "jpeg": photometric.jpeg,
    "shift_scale": geometric.shift_scale,
    "conveyor_shift": geometric.conveyor_shift,
    "black_ends": geometric.black_ends,
    "defect_blackout": geometric.defect_blackout,
    "defect_paste": identity,  # `find_augmentation` replaces it where it has defects to paste
}
"""Every built-in step that `train.augmentation` can name."""


class CustomAugmentation:
    """Adapts a user's callable to our signature; picklable for worker processes.

    The callable uses the global random generators, which are seeded from ours before each call.
    Threads would share those generators, so this needs processes.
    """

    needs_processes = True

    def __init__(self, name: str, function: Callable[..., dict[str, NDArray[np.uint8]]]) -> None:
        self._name = name
        self._function = function

    def __call__(
        self, image_chw: Image, mask_chw: Mask, rng: np.random.Generator
    ) -> tuple[Image, Mask]:
        """Call it; raise ConfigError unless it returns an image and mask of matching shapes."""
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
            # User code can raise anything; the traceback is kept.
            raise ConfigError(
                f"train.augmentation={self._name} failed: {_describe(error)}"
            ) from error
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
                "and the same number of channels and classes as given. "
                "Leave normalisation and conversion to tensors out."
            )
        return _channels_first(image), _channels_first((mask > 0).view(np.uint8))


def _describe(error: Exception) -> str:
    """Return the error with the file and line where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})."


def _has_planes(array: NDArray[Any], planes: int) -> bool:
    """Whether an array is (H, W, planes); a single plane may also be (H, W)."""
    return array.ndim > 1 and array.size == planes * math.prod(array.shape[:2])


def _channels_first(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert hwc to chw; hw is accepted, because OpenCV drops the axis of a single channel.

    Planes are contiguous, as OpenCV's in-place functions require.
    """
    return np.ascontiguousarray(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1))
