"""Draw a strip with its defects outlined.

Each class has one colour, from a palette for colour-blind readers: an outline over a light fill.
A legend below lists the classes found with their pixel counts. With ground truth, two panels are
stacked. Outlines are drawn outside the mask, so that thin defects stay visible.

Axes: C class, H height, W width; pictures are RGB, uint8, and as wide as the strip. Legend text is
made smaller, wrapped and finally shortened to fit narrow images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.errors import DataError
from steelseg.files.atomic import write_bytes
from steelseg.writers.exchange import file_for, to_png

Color = tuple[int, int, int]

# Martin Krzywinski's twelve colours for colour-blind readers. The order is ours: the first four
# differ most from each other and from grey steel, for three kinds of colour blindness.
PALETTE: tuple[Color, ...] = (
    (255, 195, 59),
    (0, 141, 249),
    (226, 1, 52),
    (0, 252, 207),
    (255, 178, 253),
    (132, 0, 205),
    (255, 110, 58),
    (0, 159, 129),
    (0, 194, 249),
    (255, 90, 175),
    (164, 1, 34),
    (159, 1, 98),
)

_FILL = 0.25
_LEGEND: Color = (24, 24, 24)
_TITLE: Color = (70, 70, 70)
_TEXT: Color = (240, 240, 240)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALES = (0.6, 0.5, 0.4)
_LINE_HEIGHT = 26
_MARGIN = 8
_SWATCH = 12
_GAP = 6


@dataclass(frozen=True)
class _Entry:
    """An item of the legend; its swatch is omitted without a colour."""

    name: str
    count: str = ""
    color: Color | None = None


class OverlayWriter:
    """Writes one picture per image, named IMAGE_ID.png."""

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        """Take the output folder, created if missing, and the class names."""
        self._folder = folder
        self._class_names = tuple(class_names)

    def add(
        self,
        image_id: str,
        image: NDArray[np.uint8],
        mask_chw: NDArray[np.bool_],
        truth_chw: NDArray[np.bool_] | None = None,
    ) -> Path:
        """Write the picture of one image and return its path; arguments as `draw_overlay`.

        Raises:
            DataError: if `image_id` points outside the folder, or the image and its masks differ in
                size.
        """
        size, masks_size = image.shape[:2], mask_chw.shape[1:]
        if size != masks_size:
            raise DataError(
                f"{image_id} is {size[0]}x{size[1]}, but its masks are "
                f"{masks_size[0]}x{masks_size[1]}: the image changed after it was predicted. "
                "Restore it, or predict it again."
            )
        path = file_for(image_id, folder=self._folder, suffix=".png")
        picture = draw_overlay(image, mask_chw, class_names=self._class_names, truth_chw=truth_chw)
        write_bytes(path, to_png(picture[:, :, ::-1]))
        return path


def draw_overlay(
    image: NDArray[np.uint8],
    mask_chw: NDArray[np.bool_],
    *,
    class_names: Sequence[str],
    truth_chw: NDArray[np.bool_] | None = None,
    title: str = "",
    zoom: int = 1,
) -> NDArray[np.uint8]:
    """Draw the outlines of defects on a strip, with a legend below.

    Args:
        image: Grayscale, (H, W) or (H, W, 1), or RGB, (H, W, 3); uint8.
        mask_chw: Predicted masks, shape (C, H, W).
        class_names: Name of each class, length C.
        truth_chw: Ground-truth masks, shape (C, H, W); drawn above the prediction if given.
        title: Title of a picture without ground truth; "" for none.
        zoom: Integer scale factor of the picture.

    Returns:
        RGB picture, shape (H', W * zoom, 3).
    """
    width = image.shape[1] * zoom
    prediction = _panel(image, mask_chw, class_names=class_names, zoom=zoom)
    if truth_chw is None:
        heading = [_title(title, width)] if title else []
        return np.concatenate([*heading, prediction])
    truth = _panel(image, truth_chw, class_names=class_names, zoom=zoom)
    return np.concatenate([_title("truth", width), truth, _title("prediction", width), prediction])


def _title(text: str, width: int) -> NDArray[np.uint8]:
    return _bar([_Entry(text)], width=width, background=_TITLE)


def _panel(
    image: NDArray[np.uint8],
    mask_chw: NDArray[np.bool_],
    *,
    class_names: Sequence[str],
    zoom: int,
) -> NDArray[np.uint8]:
    assert mask_chw.shape == (len(class_names), *image.shape[:2]), (mask_chw.shape, image.shape)
    sizes = mask_chw.sum(axis=(1, 2)).tolist()
    entries = [
        _Entry(name, f"{size:,} px", _color(channel))
        for channel, (name, size) in enumerate(zip(class_names, sizes, strict=True))
        if size
    ]
    legend = _bar(entries or [_Entry("no defect found")], width=image.shape[1] * zoom)
    large = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    large_mask_chw = mask_chw.repeat(zoom, axis=1).repeat(zoom, axis=2)
    return np.concatenate([_outline(large, large_mask_chw), legend])


def _color(channel: int) -> Color:
    return PALETTE[channel % len(PALETTE)]


def _outline(image: NDArray[np.uint8], mask_chw: NDArray[np.bool_]) -> NDArray[np.uint8]:
    image_hwc = image.reshape(*image.shape[:2], -1)
    picture = np.repeat(image_hwc, 3 // image_hwc.shape[2], axis=2)
    for channel, mask in enumerate(mask_chw):
        tint = np.array(_color(channel)) * _FILL
        picture[mask] = picture[mask] * (1 - _FILL) + tint
    # Outlines are drawn last, over all fills, and outside, so that thin defects stay visible.
    reach = 2 if min(image.shape[:2]) >= 128 else 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    for channel, mask in enumerate(mask_chw):
        picture[(cv2.dilate(mask.astype(np.uint8), disc) != 0) & ~mask] = _color(channel)
    return np.asarray(picture, dtype=np.uint8)


def _bar(
    entries: Sequence[_Entry], *, width: int, background: Color = _LEGEND
) -> NDArray[np.uint8]:
    """Draw the items on as few lines, and in as large a font, as fits without shortening."""
    layouts = [(scale, _wrap(entries, width=width, scale=scale)) for scale in _FONT_SCALES]
    uncut = [layout for layout in layouts if list(chain(*layout[1])) == list(entries)]
    scale, lines = min(uncut or layouts[-1:], key=lambda layout: len(layout[1]))
    bar = np.full((_LINE_HEIGHT * len(lines), width, 3), background, dtype=np.uint8)
    for row, line in enumerate(lines):
        left = _MARGIN
        for entry in line:
            _write(bar, entry, left=left, top=row * _LINE_HEIGHT, scale=scale)
            left += _entry_width(entry, scale=scale) + 2 * _MARGIN
    return bar


def _wrap(entries: Sequence[_Entry], *, width: int, scale: float) -> list[list[_Entry]]:
    lines: list[list[_Entry]] = []
    left = width
    for entry in entries:
        fitting = _cut(entry, width=width - 2 * _MARGIN, scale=scale)
        needed = _entry_width(fitting, scale=scale)
        if left + needed + _MARGIN > width:
            lines.append([])
            left = _MARGIN
        lines[-1].append(fitting)
        left += needed + 2 * _MARGIN
    return lines


def _cut(entry: _Entry, *, width: int, scale: float) -> _Entry:
    """Shorten the name until the item fits; the count is never shortened."""
    name = entry.name
    while name and _entry_width(entry, scale=scale) > width:
        name = name[:-1]
        entry = replace(entry, name=f"{name.rstrip()}..." if name else "")
    return entry


def _entry_width(entry: _Entry, *, scale: float) -> int:
    swatch = 0 if entry.color is None else _SWATCH + _GAP
    (text_width, _), _ = cv2.getTextSize(_text(entry), _FONT, scale, 1)
    return swatch + int(text_width)


def _text(entry: _Entry) -> str:
    return f"{entry.name}  {entry.count}".strip()


def _write(bar: NDArray[np.uint8], entry: _Entry, *, left: int, top: int, scale: float) -> None:
    middle = top + _LINE_HEIGHT // 2
    if entry.color is not None:
        edge = middle - _SWATCH // 2
        bar[edge : edge + _SWATCH, left : left + _SWATCH] = entry.color
        left += _SWATCH + _GAP
    (_, height), _ = cv2.getTextSize("H", _FONT, scale, 1)
    origin = (left, middle + height // 2 - 1)
    cv2.putText(bar, _text(entry), origin, _FONT, scale, _TEXT, 1, cv2.LINE_AA)
