"""Generate a small synthetic data set in the layout of Kaggle's Severstal competition.

    ROOT/train_images/*.jpg  ROOT/test_images/*.jpg
    ROOT/train.csv               ImageId,ClassId,EncodedPixels, defects only
    ROOT/sample_submission.csv   ImageId_ClassId,EncodedPixels, four empty rows per test strip

The demo and the tests use it in place of the real images. Frequencies and sizes of the four
classes, and how often they occur together, follow the real data; `defects` draws them. The same
arguments give the same files. Scores on this data set show that the software works, and say
nothing about real steel.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.data.folder import DataSet
from steelseg.data.formats import rle
from steelseg.data.formats.mask_csv import JOINED, SEPARATE
from steelseg.data.synthetic.defects import Image, draw_defect, noise, split_columns
from steelseg.errors import ConfigError, DataError
from steelseg.files.atomic import write_bytes, write_text
from steelseg.progress import Progress, no_progress

CLASS_IDS = (1, 2, 3, 4)

IMAGES_BY_CLASSES: dict[tuple[int, ...], int] = {
    (): 5872,
    (3,): 4736,
    (1,): 758,
    (4,): 507,
    (3, 4): 283,
    (2,): 184,
    (1, 3): 91,
    (1, 2): 34,
    (2, 3): 14,
    (1, 2, 3): 2,
    (2, 4): 1,
}
"""Number of images with exactly these classes, in Kaggle's Severstal train.csv."""

QUANTILES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)

AREA_QUANTILES = {
    1: (796, 1061, 1773, 3326, 5808, 9107, 11650),
    2: (931, 1202, 1932, 2971, 4448, 5821, 7004),
    3: (1829, 2776, 5046, 11933, 29016, 62167, 94089),
    4: (5286, 7161, 13080, 25357, 44960, 75134, 97375),
}
"""Mask pixels per image at `QUANTILES`, by class_id, in Kaggle's Severstal train.csv."""

REAL_PIXELS = 256 * 1600

MIN_HEIGHT, MIN_WIDTH = 32, 64

JPEG_QUALITY = 90

# Limits for the part of a strip that black ends leave: the largest share of it that masks fill,
# and its minimum number of columns.
_MAX_FILL, _MIN_STEEL = 0.45, 48


@dataclass(frozen=True)
class _Strip:
    """A strip to draw."""

    image_id: str
    is_training: bool
    areas: dict[int, int]
    """Mask pixels by class_id, for the classes in the strip."""


def make_dataset(
    root: Path,
    *,
    num_train: int = 160,
    num_test: int = 24,
    height: int = 256,
    width: int = 1600,
    min_per_class: int = 4,
    seed: int = 0,
    progress: Progress = no_progress,
) -> None:
    """Write a synthetic data set to a new or empty folder.

    Classes and areas are stratified, so small data sets have the right shares too. Areas scale with
    the size of the strip. Every class gets at least `min_per_class` training strips, because rarer
    classes could not be held out. `train.csv` is written last: a folder without it is incomplete.

    Args:
        root: The folder to create.
        num_train: Training strips, at least four times `min_per_class`.
        num_test: Test strips, at least 1. Their masks are not written.
        height: Height of a strip, in pixels, at least 32.
        width: Width of a strip, in pixels, at least 64.
        min_per_class: Minimum number of training strips per class.
        seed: Random seed, an integer from 0.
        progress: Shows how many strips are drawn.

    Raises:
        ConfigError: if a number is too small.
        DataError: if `root` is a file or a folder that is not empty.
    """
    _refuse_small("min_per_class", min_per_class, 0)
    _refuse_small("num_train", num_train, max(1, min_per_class * len(CLASS_IDS)))
    _refuse_small("num_test", num_test, 1)
    _refuse_small("height", height, MIN_HEIGHT)
    _refuse_small("width", width, MIN_WIDTH)
    _refuse_small("seed", seed, 0)
    _refuse_occupied(root)
    data_set = DataSet(root)
    strips = _plan(num_train, num_test, floor=min_per_class, pixels=height * width, seed=seed)
    rows: list[str] = []
    # Stream 0 of the seed draws the plan, stream k the strip k.
    for number, strip in enumerate(progress(strips, len(strips), "synth"), start=1):
        rng = np.random.default_rng([seed, number])
        image, masks = _draw_strip(strip.areas, height=height, width=width, rng=rng)
        folder = data_set.train_images if strip.is_training else data_set.test_images
        write_bytes(folder / strip.image_id, _jpeg(image))
        if strip.is_training:
            rows += [f"{strip.image_id},{c},{rle.encode(m)}" for c, m in masks.items()]
    _write_csv(data_set.sample_submission, JOINED, _empty_rows(strips))
    _write_csv(data_set.train_csv, SEPARATE, rows)


def _refuse_small(name: str, number: int, limit: int) -> None:
    """Raise ConfigError if a number is below its limit."""
    if number < limit:
        raise ConfigError(
            f"{name}={number} is too small for a synthetic data set. Use at least {limit}."
        )


def _refuse_occupied(root: Path) -> None:
    """Raise DataError unless `root` is missing or an empty folder."""
    if root.is_dir() and not any(root.iterdir()):
        return
    if root.exists():
        what = "a folder that is not empty" if root.is_dir() else "a file"
        raise DataError(
            f"{root} is {what}. A synthetic data set needs a new or empty folder: use another, "
            "or delete this one first."
        )


def _plan(num_train: int, num_test: int, *, floor: int, pixels: int, seed: int) -> list[_Strip]:
    """Draw names, classes and areas of all strips, training strips first."""
    rng = np.random.default_rng([seed, 0])
    image_ids: dict[str, None] = {}
    while len(image_ids) < num_train + num_test:
        image_ids[f"{rng.integers(16**9):09x}.jpg"] = None
    names = iter(image_ids)
    strips: list[_Strip] = []
    for is_training, num, least in ((True, num_train, floor), (False, num_test, 0)):
        ordered = list(_quotas(num, floor=least).elements())
        classes = [ordered[i] for i in rng.permutation(num)]
        areas = {c: _areas(c, sum(c in ids for ids in classes), pixels, rng) for c in CLASS_IDS}
        strips += [
            _Strip(next(names), is_training, {c: next(areas[c]) for c in ids}) for ids in classes
        ]
    return strips


def _quotas(num: int, *, floor: int) -> Counter[tuple[int, ...]]:
    """Assign numbers of strips to the combinations of classes by the largest remainder method.

    A class with fewer than `floor` strips then gets more, first in place of clean strips, then of
    strips with only class 3.
    """
    total = sum(IMAGES_BY_CLASSES.values())
    quotas = Counter({key: num * count // total for key, count in IMAGES_BY_CLASSES.items()})
    by_remainder = sorted(
        IMAGES_BY_CLASSES, key=lambda key: num * IMAGES_BY_CLASSES[key] % total, reverse=True
    )
    quotas.update(by_remainder[: num - quotas.total()])
    for class_id in CLASS_IDS:
        present = sum(count for key, count in quotas.items() if class_id in key)
        quotas[class_id,] += max(0, floor - present)
    excess = quotas.total() - num
    clean = min(excess, quotas[()])
    quotas[()] -= clean
    quotas[3,] -= excess - clean
    return quotas


def _areas(class_id: int, num: int, pixels: int, rng: np.random.Generator) -> Iterator[int]:
    """Draw areas by stratified inverse transform sampling, one from each of `num` strata."""
    slices = (rng.permutation(num) + rng.random(num)) / max(num, 1)
    areas = np.interp(slices, QUANTILES, AREA_QUANTILES[class_id]) * pixels / REAL_PIXELS
    return iter(np.maximum(areas.round(), 1).astype(int).tolist())


def _draw_strip(
    areas: dict[int, int], *, height: int, width: int, rng: np.random.Generator
) -> tuple[Image, dict[int, NDArray[np.bool_]]]:
    """Draw a strip, shape (H, W) in [0, 1], and the masks of its classes by class_id."""
    unit = float(np.sqrt(height * width / REAL_PIXELS))
    left, right = _steel_columns(width, sum(areas.values()) / height, rng)
    image_hw = _steel(height, width, unit=unit, rng=rng)
    _darken_ends(image_hw, left, right, unit=unit, rng=rng)
    order = [list(areas)[i] for i in rng.permutation(len(areas))]
    masks = {}
    if order:
        # Defects keep a distance from the edge of the steel.
        margin = 0 if right - left == width else round(12 * unit)
        slots = split_columns(left + margin, right - margin, [areas[c] for c in order])
        for class_id, (start, stop) in zip(order, slots, strict=True):
            masks[class_id] = draw_defect(
                image_hw, class_id, area=areas[class_id], left=start, right=stop, unit=unit, rng=rng
            )
    return _photograph(image_hw, unit=unit, rng=rng), dict(sorted(masks.items()))


def _steel_columns(width: int, needed: float, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the columns of the steel; some strips have one black end.

    Args:
        width: Width of the strip, in pixels.
        needed: Area of the masks, in full columns.
        rng: Random generator.

    Returns:
        First column of the steel and one past its last column.
    """
    has_end, at_left = rng.random(2) < (0.3, 0.5)
    steel = round(max(rng.uniform(0.2, 0.9) * width, needed / _MAX_FILL, _MIN_STEEL))
    if not has_end or steel >= width:
        return 0, width
    return (width - steel, width) if at_left else (0, steel)


def _steel(height: int, width: int, *, unit: float, rng: np.random.Generator) -> Image:
    """Draw clean steel: uneven light, bands, rolling grain, and faint marks, not defects."""
    shape = (height, width)
    light = 1 + 0.28 * noise(shape, cell_height=height / 2, cell_width=width / 4, rng=rng)
    light += np.linspace(-1, 1, width, dtype=np.float32) * rng.uniform(-0.3, 0.3)
    bands = 0.07 * noise((2, width), cell_height=2, cell_width=30 * unit, rng=rng)[:1]
    period = rng.uniform(60, 180) * unit
    bands += 0.02 * np.sin(np.arange(width, dtype=np.float32) * 2 * np.pi / period)
    grain = noise(shape, cell_height=1.5 * unit, cell_width=rng.uniform(30, 90) * unit, rng=rng)
    # Blotches occur in a few bands and on some of the strips.
    blotch = noise(shape, cell_height=30 * unit, cell_width=8 * unit, rng=rng)
    blotch += rng.uniform(0.2, 1.2) * noise(
        shape, cell_height=height, cell_width=100 * unit, rng=rng
    )
    streak = noise(shape, cell_height=4 * unit, cell_width=120 * unit, rng=rng)
    marks = rng.uniform(0, 0.15) * np.clip(streak - 1.2, 0, 1)
    marks -= rng.uniform(0, 0.15) * np.clip(3 * blotch - 4, 0, 1)
    texture = 1 + bands + rng.uniform(0.02, 0.07) * grain + marks
    image_hw = rng.uniform(0.25, 0.52) * np.maximum(light, 0.4) * texture
    specks = rng.poisson(rng.uniform(0, 60) * unit)
    ys, xs = rng.integers(height, size=specks), rng.integers(width, size=specks)
    image_hw[ys, xs] += rng.uniform(0.15, 0.4, specks)
    return np.asarray(image_hw, dtype=np.float32)


def _darken_ends(
    image_hw: Image, left: int, right: int, *, unit: float, rng: np.random.Generator
) -> None:
    """Make the columns outside the steel nearly black and brighten the edge next to them."""
    width = image_hw.shape[1]
    if right - left == width:
        return
    column = np.arange(width, dtype=np.float32)
    inward = np.minimum(
        column - left if left else width, right - column if right < width else width
    )
    image_hw *= 1 + rng.uniform(0, 0.4) * np.exp(-np.maximum(inward, 0) / (25 * unit))
    dark = inward < 0
    image_hw[:, dark] = rng.uniform(0, 0.02)


def _photograph(image_hw: Image, *, unit: float, rng: np.random.Generator) -> Image:
    """Blur a drawing and add camera noise, which grows with the brightness."""
    soft_hw = cv2.GaussianBlur(image_hw, (3, 3), 0.7 * unit)
    grains_hw = rng.standard_normal(image_hw.shape, dtype=np.float32)
    grains_hw *= 0.004 + np.float32(rng.uniform(0.02, 0.06)) * soft_hw
    return np.asarray(soft_hw + grains_hw, dtype=np.float32)


def _jpeg(image_hw: Image) -> bytes:
    """Encode a strip as Kaggle does: grayscale, repeated in three channels."""
    grey = np.clip(255 * image_hw + 0.5, 0, 255).astype(np.uint8)
    _, content = cv2.imencode(
        ".jpg", cv2.merge([grey, grey, grey]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return content.tobytes()


def _empty_rows(strips: list[_Strip]) -> list[str]:
    """Return the rows of the sample submission: every class of every test strip, without a mask."""
    tests = [strip.image_id for strip in strips if not strip.is_training]
    return [f"{image_id}_{class_id}," for image_id in tests for class_id in CLASS_IDS]


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[str]) -> None:
    """Write a header and sorted rows."""
    write_text(path, "\n".join([",".join(columns), *sorted(rows)]) + "\n")
