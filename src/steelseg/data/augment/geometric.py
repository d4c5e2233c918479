"""Geometric augmentation: moves, hides or adds defects, in image and masks together.

Each function takes `image_chw` and `mask_chw` (uint8, the mask 0 or 1), changes both in place and
returns them. All randomness comes from the given generator.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.data.crops import Box
from steelseg.data.formats.annotations import Labels

Array = NDArray[np.uint8]
Sample = tuple[Array, Array]

# Pixels around a pasted defect that are copied with it, so that its edge can fade.
_MARGIN = 8

# Pixels beyond the ends of a strip are darker than this, and so are a few on it.
_BLACK = 8
_MOST_BLACK = 0.1


def shift_scale(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Scale by 0.8 to 1.25 about the centre and shift by up to a tenth; edges are mirrored."""
    _, height, width = image_chw.shape
    scale = 1.25 ** rng.uniform(-1, 1)
    down, right = rng.uniform(-0.1, 0.1, 2) * (height, width)
    middle = (width - 1) / 2, (height - 1) / 2
    matrix = cv2.getRotationMatrix2D(middle, 0, scale)
    matrix[:, 2] += right, down
    for planes, method in ((image_chw, cv2.INTER_LINEAR), (mask_chw, cv2.INTER_NEAREST)):
        for plane in planes:
            plane[...] = cv2.warpAffine(
                plane, matrix, (width, height), flags=method, borderMode=cv2.BORDER_REFLECT_101
            )
    return image_chw, mask_chw


def conveyor_shift(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Shift the strip along the conveyor; columns that leave at one end enter at the other."""
    columns = int(rng.integers(image_chw.shape[2]))
    for planes in (image_chw, mask_chw):
        planes[...] = np.roll(planes, columns, axis=2)
    return image_chw, mask_chw


def black_ends(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Make 5 to 40 % of the columns at one end black and remove their labels."""
    columns = int(image_chw.shape[2] * rng.uniform(0.05, 0.4))
    end = np.s_[:, :, :columns] if rng.random() < 0.5 else np.s_[:, :, -columns:]
    if columns:
        image_chw[end] = rng.integers(4)
        mask_chw[end] = 0
    return image_chw, mask_chw


def defect_blackout(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Make the bounding box of one defect black and remove all labels in it."""
    if found := _pick_component(mask_chw, rng):
        box, _ = found
        window = np.s_[:, box.top : box.top + box.height, box.left : box.left + box.width]
        image_chw[window] = 0
        mask_chw[window] = 0
    return image_chw, mask_chw


def _pick_component(
    mask_chw: Array, rng: np.random.Generator, channel: int | None = None
) -> tuple[Box, NDArray[np.bool_]] | None:
    """Pick a class, then one of its components, both uniformly.

    Returns:
        Bounding box and pixels of the component; None if there is no defect.
    """
    channels = np.flatnonzero(mask_chw.any(axis=(1, 2))) if channel is None else [channel]
    if not len(channels):
        return None
    plane = np.ascontiguousarray(mask_chw[rng.choice(channels)])
    count, labels_hw, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=8)
    number = int(rng.integers(1, count))
    left, top, width, height = (int(value) for value in stats[number, :4])
    inside = labels_hw[top : top + height, left : left + width] == number
    return Box(top, left, height, width), inside


class CopyPasteSource:
    """Defects of the training strips, for pasting into other samples (copy-paste augmentation)."""

    def __init__(
        self,
        labels: Labels,
        image_ids: Sequence[str],
        read: Callable[[str, Box], NDArray[np.uint8]],
    ) -> None:
        """Index the strips by class; nothing is read.

        Args:
            labels: The masks.
            image_ids: The strips of the training folds.
            read: Returns image_hwc of an image_id and a box.
        """
        self._labels = labels
        self._read = read
        image_ids_by_class: dict[int, list[str]] = {}
        for image_id in image_ids:
            for class_id in labels.class_ids(image_id):
                image_ids_by_class.setdefault(class_id, []).append(image_id)
        self._image_ids_by_class = image_ids_by_class

    def paste(self, image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
        """Paste a defect of a random class at a random place, adjusted to the brightness there.

        Nothing is pasted where the strip has ended and the image is black.
        """
        if not self._image_ids_by_class:
            return image_chw, mask_chw
        patch_chw, patch_mask_chw, is_clear_hw = self._draw(image_chw.shape[1:], rng)
        _, height, width = patch_chw.shape
        top = int(rng.integers(image_chw.shape[1] - height + 1))
        left = int(rng.integers(image_chw.shape[2] - width + 1))
        window = np.s_[:, top : top + height, left : left + width]
        if np.mean(image_chw[window] < _BLACK) > _MOST_BLACK:
            return image_chw, mask_chw
        offset = _brightness_offset(image_chw[window], patch_chw, is_clear_hw)
        alpha_hw = _fading_alpha(patch_mask_chw)
        mixed = image_chw[window] * (1 - alpha_hw) + (patch_chw + offset) * alpha_hw
        image_chw[window] = np.clip(mixed + 0.5, 0, 255)
        mask_chw[window] |= patch_mask_chw
        return image_chw, mask_chw

    def _draw(
        self, largest: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Draw a defect to paste.

        Returns:
            Image of the defect with a margin, at most as large as `largest`; its mask; and True
            for pixels without any defect, shape (H, W).
        """
        class_id = int(rng.choice(sorted(self._image_ids_by_class)))
        strips = self._image_ids_by_class[class_id]
        image_id = strips[int(rng.integers(len(strips)))]
        mask_chw = self._labels.draw(image_id).astype(np.uint8)
        found = _pick_component(mask_chw, rng, class_id - 1)
        assert found is not None
        defect, inside = found
        own = np.zeros(mask_chw.shape[1:], np.bool_)
        own[defect.top : defect.top + defect.height, defect.left : defect.left + defect.width] = (
            inside
        )
        box = _add_margin(defect, mask_chw.shape[1:], largest)
        window = np.s_[box.top : box.top + box.height, box.left : box.left + box.width]
        present_chw = mask_chw[:, window[0], window[1]]
        patch_chw = self._read(image_id, box).transpose(2, 0, 1)
        return patch_chw, present_chw * own[window], present_chw.max(axis=0) == 0


def _add_margin(defect: Box, size: tuple[int, ...], largest: tuple[int, ...]) -> Box:
    """Return the box with a margin, clipped to its strip and to the largest size."""
    begins = [max(0, begin - _MARGIN) for begin in defect[:2]]
    ends = [begin + length + _MARGIN for begin, length in zip(defect[:2], defect[2:], strict=True)]
    lengths = [
        min(min(end, whole) - begin, most)
        for begin, end, whole, most in zip(begins, ends, size, largest, strict=True)
    ]
    return Box(*begins, *lengths)


def _brightness_offset(
    under_chw: Array, patch_chw: Array, is_clear_hw: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the mean brightness of the target minus that of the patch around its defect."""
    if not is_clear_hw.any():
        return np.zeros((len(patch_chw), 1, 1), np.float32)
    around = patch_chw[:, is_clear_hw].mean(axis=1)
    return np.asarray(under_chw.mean(axis=(1, 2)) - around, np.float32)[:, None, None]


def _fading_alpha(patch_mask_chw: Array) -> NDArray[np.float32]:
    """Return the blending weight: 1 on the defect, fading to 0 within a few pixels."""
    is_defect_hw = patch_mask_chw.max(axis=0).astype(np.float32)
    faded = cv2.GaussianBlur(is_defect_hw, (0, 0), _MARGIN / 4)
    return np.asarray(np.maximum(faded, is_defect_hw), np.float32)
