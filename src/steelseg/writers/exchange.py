"""Write predicted masks in the formats of other tools: COCO, PNG files and JSON lines.

The record of an image is a JSON value that is created first and written later, because a
prediction may be killed in between. Each writer is a context manager that yields a function to add
the record of one image. The file is written atomically when the `with` block ends without an
error. Memory does not grow with the masks.

A box is [left, top, width, height] in pixels, counted from 0. A score is the mean probability of
the pixels of a region. Channel 0 is class 1. Axes: C class, H height, W width.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import rle
from steelseg.errors import DataError
from steelseg.files.atomic import replacing, write_bytes


@dataclass(frozen=True)
class Region:
    """A mask, or a component of it, with at least one pixel."""

    runs: rle.Runs
    """Runs, relative to the whole image."""

    bbox: tuple[int, int, int, int]
    """Left, top, width and height, in pixels."""

    area: int
    """Number of pixels."""

    score: float
    """Mean probability of its pixels, rounded to six decimals."""


Record = Any
"""The entry of one image in an output file; a JSON value."""

AddRecord = Callable[[str, Record], None]
"""Writes the record of one image, given its image_id."""


def coco_record(mask_chw: NDArray[np.bool_], probs_chw: NDArray[Any]) -> Record:
    """Return the COCO record of an image: one annotation per 8-connected component.

    Args:
        mask_chw: Masks, shape (C, H, W).
        probs_chw: Probabilities, shape (C, H, W), in [0, 1] or 0..255 as uint8.
    """
    assert mask_chw.shape == probs_chw.shape, (mask_chw.shape, probs_chw.shape)
    _, height, width = mask_chw.shape
    annotations = [
        {"category_id": class_id, **_annotation(region, height=height, width=width)}
        for class_id, region in class_components(mask_chw, probs_chw)
    ]
    return {"height": height, "width": width, "annotations": annotations}


@contextmanager
def coco_writer(path: Path, class_names: Sequence[str]) -> Iterator[AddRecord]:
    """Write a COCO file with uncompressed RLE segmentations.

    Annotations are written immediately; only the list of images is kept in memory.

    Args:
        path: The file.
        class_names: Name of each class, starting with class 1.

    Yields:
        A function that writes a `coco_record`.
    """
    categories = [{"id": k, "name": name} for k, name in enumerate(class_names, start=1)]
    images: list[dict[str, object]] = []
    numbers = count(1)
    with replacing(path) as file:

        def add(image_id: str, record: Record) -> None:
            size = {"height": record["height"], "width": record["width"]}
            images.append({"id": len(images) + 1, "file_name": image_id, **size})
            for annotation in record["annotations"]:
                number = next(numbers)
                line = json.dumps({"id": number, "image_id": len(images), **annotation})
                file.write((",\n" if number > 1 else "\n") + line)

        file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
        yield add
        file.write(f'\n],\n"images": {json.dumps(images)}}}\n')


def _annotation(region: Region, *, height: int, width: int) -> dict[str, object]:
    """Return the COCO annotation of a component."""
    return {
        "segmentation": {
            "counts": _counts(region.runs, pixels=height * width),
            "size": [height, width],
        },
        "bbox": region.bbox,
        "area": region.area,
        "score": region.score,
        "iscrowd": 0,
    }


def jsonl_record(
    mask_chw: NDArray[np.bool_], probs_chw: NDArray[Any], class_names: Sequence[str]
) -> Record:
    """Return the JSON lines record of an image: one entry per class present.

    Args:
        mask_chw: Masks, shape (C, H, W).
        probs_chw: Probabilities, shape (C, H, W), in [0, 1] or 0..255 as uint8.
        class_names: Name of each class, length C.
    """
    assert mask_chw.shape == probs_chw.shape, (mask_chw.shape, probs_chw.shape)
    _, height, width = mask_chw.shape
    triples = zip(class_names, mask_chw, probs_chw, strict=True)
    defects = [
        _defect(measure(mask, probs), class_id=class_id, class_name=class_name)
        for class_id, (class_name, mask, probs) in enumerate(triples, start=1)
        if mask.any()
    ]
    return {"height": height, "width": width, "defects": defects}


@contextmanager
def jsonl_writer(path: Path) -> Iterator[AddRecord]:
    """Write one line of JSON for each image.

    Yields:
        A function that writes a `jsonl_record`.
    """
    with replacing(path) as file:

        def add(image_id: str, record: Record) -> None:
            file.write(json.dumps({"image_id": image_id, **record}) + "\n")

        yield add


def write_pngs(folder: Path, image_id: str, mask_chw: NDArray[np.bool_]) -> list[Path]:
    """Write a PNG (0 or 255) for each class present, named IMAGE_ID_class_K.png.

    The PNG of an earlier run for a class that is now empty is removed.

    Args:
        folder: Created if missing.
        image_id: Name of the image.
        mask_chw: Its masks, shape (C, H, W).

    Returns:
        The files written.

    Raises:
        DataError: if `image_id` points outside the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for class_id, mask in enumerate(mask_chw, start=1):
        path = file_for(image_id, folder=folder, suffix=f"_class_{class_id}.png")
        if mask.any():
            write_bytes(path, to_png(mask.astype(np.uint8) * 255))
            written.append(path)
        else:
            path.unlink(missing_ok=True)
    return written


def class_components(
    mask_chw: NDArray[np.bool_], probs_chw: NDArray[Any]
) -> Iterator[tuple[int, Region]]:
    """Yield the class id and region of each component in the masks of an image."""
    for class_id, (mask, probs) in enumerate(zip(mask_chw, probs_chw, strict=True), start=1):
        if mask.any():
            for region in components(mask, probs):
                yield class_id, region


def components(mask: NDArray[np.bool_], probs: NDArray[Any]) -> Iterator[Region]:
    """Split a mask into its 8-connected components.

    Args:
        mask: Shape (H, W).
        probs: Probability of each pixel, shape (H, W), in [0, 1] or 0..255 as uint8.

    Yields:
        The components.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for label, (left, width) in enumerate(
        stats[1:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_WIDTH]].tolist(), start=1
    ):
        # Only the columns of the component are searched: a mask may have a thousand components.
        columns = slice(left, left + width)
        yield measure(labels[:, columns] == label, probs[:, columns], left=left)


def measure(mask: NDArray[np.bool_], probs: NDArray[Any], *, left: int = 0) -> Region:
    """Return the region of a mask that is not empty.

    Args:
        mask: Some columns of an image, all of its rows, shape (H, w).
        probs: Probability of each pixel, shape (H, w), in [0, 1] or 0..255 as uint8.
        left: Column of the image where `mask` starts.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, first = int(rows[0]), int(columns[0])
    runs = rle.to_runs(mask)
    runs[:, 0] += left * mask.shape[0]
    full_scale = 255 if probs.dtype == np.uint8 else 1
    return Region(
        runs=runs,
        bbox=(left + first, top, int(columns[-1]) - first + 1, int(rows[-1]) - top + 1),
        area=int(runs[:, 1].sum()),
        score=round(float(probs[mask].mean(dtype=np.float64)) / full_scale, 6),
    )


def file_for(image_id: str, *, folder: Path, suffix: str) -> Path:
    """Return the path of the file of an image: `folder`, `image_id`, `suffix`.

    The extension is kept, so that a.jpg and a.png have different files.

    Raises:
        DataError: if `image_id` is empty or points outside the folder.
    """
    name = PurePath(image_id)
    if not name.name or name.is_absolute() or ".." in name.parts:
        raise DataError(
            f"image_id {image_id!r} is not a file name inside {folder}. "
            "Use the file name of the image, without '..' and without a leading '/'."
        )
    return folder / f"{image_id}{suffix}"


def to_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode grayscale (H, W) or BGR (H, W, 3) pixels as PNG."""
    is_encoded, content = cv2.imencode(".png", np.ascontiguousarray(pixels))
    assert is_encoded, pixels.shape
    return bytes(content)


def _counts(runs: rle.Runs, *, pixels: int) -> list[int]:
    """Return runs as COCO counts: alternating lengths of zeros and ones, starting with zeros."""
    starts, ends = runs[:, 0], runs[:, 0] + runs[:, 1]
    gaps = starts - np.concatenate([[0], ends[:-1]])
    counts: list[int] = np.stack([gaps, runs[:, 1]], axis=1).ravel().tolist()
    rest = pixels - int(ends[-1])
    return [*counts, rest] if rest else counts


def _defect(region: Region, *, class_id: int, class_name: str) -> dict[str, object]:
    return {
        "class_id": class_id,
        "class_name": class_name,
        "rle": rle.join(region.runs),
        "area": region.area,
        "bbox": region.bbox,
        "score": region.score,
    }
