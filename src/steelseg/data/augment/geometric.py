"""Changes of a strip that move, hide or add defects, pixels and masks together.

Each takes `image_chw` and `mask_chw` (uint8, the mask 0 or 1), changes both in place and returns
them; every draw comes from the generator it is given. Where pixels go, their label goes too.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.data.crops import Box
from steelseg.data.formats.annotations import Labels

Array = NDArray[np.uint8]
Sample = tuple[Array, Array]

# Of the picture around a pasted defect, so that its edge can fade.
_MARGIN = 8

# Beyond the ends of a strip pixels are darker than this; so are a few on it.
_BLACK = 8
_MOST_BLACK = 0.1


def shift_scale(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Scale by 0.8 to 1.25 about the middle and shift by up to a tenth; edges are mirrored."""
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
    """Move the strip along the conveyor; what leaves at one end comes in at the other."""
    columns = int(rng.integers(image_chw.shape[2]))
    for planes in (image_chw, mask_chw):
        planes[...] = np.roll(planes, columns, axis=2)
    return image_chw, mask_chw


def black_ends(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """End the strip: up to 40 % of the columns at one end become black and lose their labels."""
    columns = int(image_chw.shape[2] * rng.uniform(0.05, 0.4))
    end = np.s_[:, :, :columns] if rng.random() < 0.5 else np.s_[:, :, -columns:]
    if columns:
        image_chw[end] = rng.integers(4)
        mask_chw[end] = 0
    return image_chw, mask_chw


def defect_blackout(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Paint the box of one defect black and remove every label in it."""
    if found := _one_defect(mask_chw, rng):
        box, _ = found
        window = np.s_[:, box.top : box.top + box.height, box.left : box.left + box.width]
        image_chw[window] = 0
        mask_chw[window] = 0
    return image_chw, mask_chw


def _one_defect(
    mask_chw: Array, rng: np.random.Generator, channel: int | None = None
) -> tuple[Box, NDArray[np.bool_]] | None:
    """A component of a class that is shown, any as likely: its box and its pixels; None if none."""
    shown = np.flatnonzero(mask_chw.any(axis=(1, 2))) if channel is None else [channel]
    if not len(shown):
        return None
    plane = np.ascontiguousarray(mask_chw[rng.choice(shown)])
    count, labels_hw, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=8)
    number = int(rng.integers(1, count))
    left, top, width, height = (int(value) for value in stats[number, :4])
    inside = labels_hw[top : top + height, left : left + width] == number
    return Box(top, left, height, width), inside


class Donors:
    """Defects of the training strips, to be pasted into others."""

    def __init__(
        self,
        labels: Labels,
        image_ids: Sequence[str],
        read: Callable[[str, Box], NDArray[np.uint8]],
    ) -> None:
        """Sort the strips by the classes they show.

        Args:
            labels: The masks.
            image_ids: The strips of the training folds.
            read: From image_id and box to image_hwc.
        """
        self._labels = labels
        self._read = read
        strips_of: dict[int, list[str]] = {}
        for image_id in image_ids:
            for class_id in labels.present(image_id):
                strips_of.setdefault(class_id, []).append(image_id)
        self._strips_of = strips_of

    def paste(self, image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
        """Paste a defect of any class, each as likely, at any place, as bright as what is there.

        A place beyond the end of the strip, where it is black, gets none.
        """
        if not self._strips_of:
            return image_chw, mask_chw
        patch_chw, patch_mask_chw, is_clear_hw = self._draw(image_chw.shape[1:], rng)
        _, height, width = patch_chw.shape
        top = int(rng.integers(image_chw.shape[1] - height + 1))
        left = int(rng.integers(image_chw.shape[2] - width + 1))
        window = np.s_[:, top : top + height, left : left + width]
        if np.mean(image_chw[window] < _BLACK) > _MOST_BLACK:
            return image_chw, mask_chw
        offset = _offset(image_chw[window], patch_chw, is_clear_hw)
        alpha_hw = _fading(patch_mask_chw)
        mixed = image_chw[window] * (1 - alpha_hw) + (patch_chw + offset) * alpha_hw
        image_chw[window] = np.clip(mixed + 0.5, 0, 255)
        mask_chw[window] |= patch_mask_chw
        return image_chw, mask_chw

    def _draw(
        self, largest: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """A defect with a margin, no larger than a sample, its mask, and what shows no defect."""
        class_id = int(rng.choice(sorted(self._strips_of)))
        strips = self._strips_of[class_id]
        image_id = strips[int(rng.integers(len(strips)))]
        mask_chw = self._labels.draw(image_id).astype(np.uint8)
        found = _one_defect(mask_chw, rng, class_id - 1)
        assert found is not None
        defect, inside = found
        own = np.zeros(mask_chw.shape[1:], np.bool_)
        own[defect.top : defect.top + defect.height, defect.left : defect.left + defect.width] = (
            inside
        )
        box = _with_margin(defect, mask_chw.shape[1:], largest)
        window = np.s_[box.top : box.top + box.height, box.left : box.left + box.width]
        shown_chw = mask_chw[:, window[0], window[1]]
        patch_chw = self._read(image_id, box).transpose(2, 0, 1)
        return patch_chw, shown_chw * own[window], shown_chw.max(axis=0) == 0


def _with_margin(defect: Box, size: tuple[int, ...], largest: tuple[int, ...]) -> Box:
    """A box around a defect, within its strip, cut to what a sample can take."""
    begins = [max(0, begin - _MARGIN) for begin in defect[:2]]
    ends = [begin + length + _MARGIN for begin, length in zip(defect[:2], defect[2:], strict=True)]
    lengths = [
        min(min(end, whole) - begin, most)
        for begin, end, whole, most in zip(begins, ends, size, largest, strict=True)
    ]
    return Box(*begins, *lengths)


def _offset(
    under_chw: Array, patch_chw: Array, is_clear_hw: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """What brings the surroundings of a defect to the level of what it is laid over."""
    if not is_clear_hw.any():
        return np.zeros((len(patch_chw), 1, 1), np.float32)
    around = patch_chw[:, is_clear_hw].mean(axis=1)
    return np.asarray(under_chw.mean(axis=(1, 2)) - around, np.float32)[:, None, None]


def _fading(patch_mask_chw: Array) -> NDArray[np.float32]:
    """1 on a defect, fading to 0 within a few pixels."""
    is_defect_hw = patch_mask_chw.max(axis=0).astype(np.float32)
    faded = cv2.GaussianBlur(is_defect_hw, (0, 0), _MARGIN / 4)
    return np.asarray(np.maximum(faded, is_defect_hw), np.float32)
