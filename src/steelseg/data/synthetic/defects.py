"""Draw four kinds of defects for synthetic strips, with the masks that a labeller would draw.

    class 1   stains with small dark pits, each with a bright rim
    class 2   thin, nearly vertical cracks, dark next to bright
    class 3   bundles of long horizontal scratches, bright with dark gaps
    class 4   large rough patches where the surface has peeled

A mask is one or more coarse polygons, slightly larger than the defect, with exactly the requested
area. The texture inside is uniform and stronger than any on clean steel, so that a small network
can learn a class from four strips.

Images are float32, shape (H, W), 0 black and 1 white, and are changed in place. Sizes are pixels of
a 256x1600 strip times `unit`. Files and statistics are in `dataset`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

# Area of a typical outline divided by its half height times its half width.
_FILL = 3.4

# Minimum mean size of the pieces of a mask, for tiny strips.
_FEWEST_PIXELS, _FEWEST_COLUMNS = 12, 6


@dataclass(frozen=True)
class _Shape:
    """Distribution of the outlines of one class."""

    pieces: float
    """Mean number of outlines in a mask."""

    smallest_piece: float
    """Area below which a mask is not divided further, in pixels at `unit` 1."""

    aspect: tuple[float, float]
    """Range of width over height."""

    sides: tuple[int, int]
    """Minimum and maximum number of sides of a polygon."""

    lobes: int
    """Number of overlapping polygons per outline."""


_SHAPES = {
    1: _Shape(pieces=3.4, smallest_piece=300, aspect=(0.6, 1.4), sides=(5, 8), lobes=1),
    2: _Shape(pieces=1.3, smallest_piece=900, aspect=(0.05, 0.1), sides=(4, 4), lobes=1),
    3: _Shape(pieces=2.8, smallest_piece=1200, aspect=(2.5, 7.0), sides=(4, 6), lobes=1),
    4: _Shape(pieces=2.4, smallest_piece=2500, aspect=(0.9, 2.2), sides=(6, 9), lobes=3),
}


def draw_defect(
    image_hw: Image,
    class_id: int,
    *,
    area: int,
    left: int,
    right: int,
    unit: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Draw a defect of one class between two columns.

    Args:
        image_hw: The strip, shape (H, W); changed in place.
        class_id: Class of the defect, 1 to 4.
        area: Number of pixels of the mask.
        left: First column the mask may use.
        right: One past the last column the mask may use.
        unit: Size of a pixel of a 256x1600 strip, in pixels of this strip.
        rng: Random generator.

    Returns:
        Mask, shape (H, W).
    """
    shape = _SHAPES[class_id]
    mask_hw = np.zeros(image_hw.shape, dtype=np.bool_)
    smallest = max(shape.smallest_piece * unit**2, _FEWEST_PIXELS)
    most = min(int(area / smallest), (right - left) // _FEWEST_COLUMNS)
    pieces = min(1 + int(rng.poisson(shape.pieces - 1)), max(1, most))
    shares = 0.4 / pieces + 0.6 * rng.dirichlet(np.full(pieces, 2.0))
    ends = np.round(np.cumsum(shares) * area).astype(int)
    areas = np.diff(ends, prepend=0).tolist()
    for piece, (start, stop) in zip(areas, split_columns(left, right, areas), strict=True):
        patch_hw = image_hw[:, start:stop]
        distance_hw = _outline(patch_hw.shape, shape, piece, rng)
        _paint(class_id, patch_hw, distance_hw, unit, rng)
        mask_hw[:, start:stop] = distance_hw <= 1
    return mask_hw


def split_columns(left: int, right: int, areas: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Divide columns, mostly by area, so that drawings do not overlap.

    Args:
        left: First column.
        right: One past the last column.
        areas: Number of pixels of each drawing.

    Yields:
        First column and one past the last of each drawing, with a gap to the next if it fits.
    """
    shares = 0.8 * np.asarray(areas) / sum(areas) + 0.2 / len(areas)
    edges = np.round(left + (right - left) * np.cumsum(shares)).astype(int).tolist()
    for start, stop in zip([left, *edges[:-1]], edges, strict=True):
        yield start, stop - 1 if stop < right and stop - start > 2 else stop


def noise(
    shape_hw: tuple[int, ...],
    *,
    cell_height: float,
    cell_width: float,
    rng: np.random.Generator,
) -> Image:
    """Return smooth noise with mean 0 and a standard deviation slightly below 1.

    Args:
        shape_hw: Height and width, in pixels.
        cell_height: Vertical distance over which the noise changes, in pixels.
        cell_width: Horizontal distance over which the noise changes, in pixels.
        rng: Random generator.
    """
    height, width = shape_hw
    rows = max(2, round(height / max(cell_height, 1)))
    columns = max(2, round(width / max(cell_width, 1)))
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(
        cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32
    )


def _outline(
    shape_hw: tuple[int, ...], shape: _Shape, area: int, rng: np.random.Generator
) -> Image:
    """Return the relative distance to the centre of an outline: `area` pixels are at most 1."""
    height, width = shape_hw
    aspect = rng.uniform(*shape.aspect)
    half_height = min(np.sqrt(area / (_FILL * aspect)), 0.5 * height)
    half_width = min(area / (_FILL * half_height), 0.48 * width)
    half_height = min(area / (_FILL * half_width), 0.55 * height)
    y = _centre(height, half_height, rng)
    x = _centre(width, half_width, rng)
    distance_hw = _polygon(shape_hw, (y, x), (half_height, half_width), shape, rng)
    for _ in range(shape.lobes - 1):
        at = (
            y + rng.uniform(-0.6, 0.6) * half_height,
            x + rng.uniform(-0.6, 0.6) * half_width,
        )
        scale = rng.uniform(0.5, 0.8)
        lobe_hw = _polygon(shape_hw, at, (scale * half_height, scale * half_width), shape, rng)
        np.minimum(distance_hw, lobe_hw, out=distance_hw)
    last = min(area, distance_hw.size) - 1
    return distance_hw / max(float(np.partition(distance_hw, last, axis=None)[last]), 1e-6)


def _centre(length: int, half: float, rng: np.random.Generator) -> float:
    """Draw a centre that keeps the outline inside, or nearly so."""
    room = max(0.0, length - 1.8 * half)
    return 0.5 * (length - 1 - room) + room * rng.random()


def _polygon(
    shape_hw: tuple[int, ...],
    centre_yx: tuple[float, float],
    half_yx: tuple[float, float],
    shape: _Shape,
    rng: np.random.Generator,
) -> Image:
    """Return the relative distance to the centre of a convex polygon: 1 on its edge."""
    sides = rng.integers(*shape.sides, endpoint=True)
    turn = 0.0 if sides == 4 else rng.random()
    angles = 2 * np.pi * (np.arange(sides) + turn + rng.uniform(-0.05, 0.05, sides)) / sides
    reach = rng.uniform(0.85, 1.15, sides)
    v = (np.arange(shape_hw[0]) - centre_yx[0]) / half_yx[0]
    u = (np.arange(shape_hw[1]) - centre_yx[1]) / half_yx[1]
    rows = np.outer(np.sin(angles) / reach, v).astype(np.float32)
    columns = np.outer(np.cos(angles) / reach, u).astype(np.float32)
    distance_hw = rows[0][:, None] + columns[0]
    for row, column in zip(rows[1:], columns[1:], strict=True):
        np.maximum(distance_hw, row[:, None] + column, out=distance_hw)
    return np.asarray(distance_hw, dtype=np.float32)


def _paint(
    class_id: int, patch_hw: Image, distance_hw: Image, unit: float, rng: np.random.Generator
) -> None:
    """Draw the texture of a class where the distance is below 1."""
    match class_id:
        case 1:
            _pits(patch_hw, distance_hw, unit, rng)
        case 2:
            _cracks(patch_hw, distance_hw, unit, rng)
        case 3:
            _scratches(patch_hw, distance_hw, unit, rng)
        case _:
            _peel(patch_hw, distance_hw, unit, rng)


def _pits(patch_hw: Image, distance_hw: Image, unit: float, rng: np.random.Generator) -> None:
    """Draw dark round holes with a bright lower right rim, in a stain."""
    # Smaller holes would merge.
    unit = max(unit, 0.35)
    inside = np.argwhere(_inside(distance_hw, 0.85))
    count = max(2, int(np.count_nonzero(distance_hw <= 1) / (80 * unit**2)))
    light = _light(patch_hw, distance_hw)
    patch_hw *= 1 - 0.4 * _within(distance_hw, 0.95)
    for y, x in inside[rng.integers(len(inside), size=count)].tolist():
        radius = rng.uniform(1.5, 4.0) * unit
        _disc(patch_hw, y + 0.6 * radius, x + 0.6 * radius, radius, light + rng.uniform(0.3, 0.5))
        _disc(patch_hw, y, x, radius, rng.uniform(0.01, 0.06))


def _disc(patch_hw: Image, y: float, x: float, radius: float, value: float) -> None:
    """Fill a disc, positioned to an eighth of a pixel."""
    centre = (round(8 * x), round(8 * y))
    cv2.circle(patch_hw, centre, round(8 * radius), value, cv2.FILLED, cv2.LINE_8, 3)


def _cracks(patch_hw: Image, distance_hw: Image, unit: float, rng: np.random.Generator) -> None:
    """Draw vertical dark lines, each with a bright line on its right, in a bright band."""
    inside = _inside(distance_hw, 0.95)
    rows = np.flatnonzero(inside.any(axis=1))
    first = inside[rows].argmax(axis=1)
    span = float(np.median(inside[rows].sum(axis=1)))
    # The ends of an outline taper; a crack does not follow them.
    taper = len(rows) // 8
    left = np.linspace(first[taper], first[-1 - taper], len(rows))
    thick = max(2, round(2 * unit))
    bright = _light(patch_hw, distance_hw) + 0.4
    patch_hw *= 1 + 0.35 * _within(distance_hw, 0.95)
    lines = min(3, max(1, round(span / (4 * thick))))
    for line in range(lines):
        coarse = rng.uniform(12, 40)
        bend = noise((len(rows), 2), cell_height=coarse * unit, cell_width=2, rng=rng)[:, 0]
        x = left + span * np.clip((line + 0.35 + 0.15 * bend) / lines, 0, 1)
        for offset, value in ((thick, bright), (0, 0.02)):
            path = np.stack([x + offset, rows], axis=1).round().astype(np.int32)
            cv2.polylines(patch_hw, [path], False, value, thick)


def _scratches(patch_hw: Image, distance_hw: Image, unit: float, rng: np.random.Generator) -> None:
    """Draw horizontal bright streaks with dark gaps and irregular ends."""
    shape = patch_hw.shape
    streak = noise(shape, cell_height=3 * unit, cell_width=80 * unit, rng=rng)
    streak += 0.5 * noise(shape, cell_height=1.5 * unit, cell_width=14 * unit, rng=rng)
    ends = noise(shape, cell_height=2.5 * unit, cell_width=40 * unit, rng=rng)
    # A thin outline has few streaks; at least some of them must be bright.
    streak += 0.2 - float(streak[distance_hw <= 1].mean())
    np.abs(ends, out=ends)
    streak *= _within(distance_hw + 0.15 * ends, 0.95)
    light = 0.5 * (patch_hw + _light(patch_hw, distance_hw))
    patch_hw += np.clip(1.5 * streak - 0.2, 0, 1) * (0.35 + 0.5 * light)
    patch_hw *= 1 - 0.65 * np.clip(-1.5 * streak - 0.5, 0, 1)


def _peel(patch_hw: Image, distance_hw: Image, unit: float, rng: np.random.Generator) -> None:
    """Draw rough bright and dark plates, with relief as if lit from above."""
    shape = patch_hw.shape
    rough = noise(shape, cell_height=24 * unit, cell_width=34 * unit, rng=rng)
    rough += 0.6 * noise(shape, cell_height=9 * unit, cell_width=13 * unit, rng=rng)
    rough += 0.25 * noise(shape, cell_height=3 * unit, cell_width=4 * unit, rng=rng)
    relief = rough - np.roll(rough, max(1, round(2.5 * unit)), axis=0)
    swing = 0.4 * np.tanh(2 * rough) + 0.55 * np.tanh(1.5 * relief) - 0.1
    light = min(max(_light(patch_hw, distance_hw), 0.25), 0.5)
    patch_hw += light * swing * _within(distance_hw + 0.06 * rough, 0.92)


def _inside(distance_hw: Image, edge: float) -> NDArray[np.bool_]:
    """Return where the distance is at most `edge`; at least one pixel."""
    return np.asarray(distance_hw <= max(edge, float(distance_hw.min())), dtype=np.bool_)


def _within(distance_hw: Image, edge: float) -> Image:
    """Return 1 below the distance `edge`, 0 above it, with a short slope between."""
    inside_hw: Image = np.clip((edge - distance_hw) * 12, 0, 1)
    return inside_hw


def _light(patch_hw: Image, distance_hw: Image) -> float:
    """Return the mean brightness inside the outline before drawing."""
    return float(patch_hw[distance_hw <= 1].mean())
