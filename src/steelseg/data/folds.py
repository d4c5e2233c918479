"""Cross-validation folds, stratified by the number of defects per image.

Images are dealt to the folds like cards: sorted by number of defect classes, within that by
which classes they show, within that at random. So every fold gets its share of clean strips,
of strips with one, two, ... defects and, as far as there are enough, of every class; fold
sizes differ by one at most. `folds.csv` keeps the result for every later stage.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from steelseg.atomic import replacing
from steelseg.errors import ConfigError, DataError

COLUMNS = ("image_id", "fold", "num_defects")


def assign_folds(
    present: Mapping[str, Sequence[int]], *, num_folds: int, seed: int
) -> dict[str, int]:
    """Deal images to folds.

    Args:
        present: Class ids that each image shows, by image_id.
        num_folds: Number of folds, at least 2.
        seed: Of the shuffle within a stratum.

    Returns:
        Fold of each image, 0 to `num_folds - 1`, in the order of `present`.

    Raises:
        ConfigError: if there are fewer images than folds.
    """
    if len(present) < num_folds:
        raise ConfigError(
            f"data.num_folds={num_folds}, but there are {len(present)} images. "
            f"Use at most {len(present)} folds."
        )
    image_ids = sorted(present)
    draws = np.random.default_rng(seed).permutation(len(image_ids))
    order = sorted(
        range(len(image_ids)),
        key=lambda i: (len(present[image_ids[i]]), tuple(present[image_ids[i]]), draws[i]),
    )
    folds = {image_ids[i]: place % num_folds for place, i in enumerate(order)}
    return {image_id: folds[image_id] for image_id in present}


def write_folds(path: Path, folds: Mapping[str, int], present: Mapping[str, Sequence[int]]) -> None:
    """Write folds.csv: image_id, fold, num_defects."""
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            (image_id, fold, len(present[image_id])) for image_id, fold in folds.items()
        )


def read_folds(path: Path, *, image_ids: Sequence[str], num_folds: int) -> dict[str, int]:
    """Read folds.csv back and hold it against the data.

    Args:
        path: The file that `write_folds` wrote.
        image_ids: Every image of the data set.
        num_folds: Number of folds.

    Returns:
        Fold of each image.

    Raises:
        DataError: if the file is damaged, or its images or folds are not those of the data set.
    """
    rows = _read_rows(path)
    folds = dict(rows)
    if len(folds) != len(rows):
        raise DataError(f"{path} names an image twice. Keep one row of each image.")
    if odd := set(folds) ^ set(image_ids):
        raise DataError(
            f"{path} does not fit the data set: {min(odd)} is in only one of them "
            f"({len(odd)} such). Start a new run for changed data."
        )
    if set(folds.values()) != set(range(num_folds)):
        named = ", ".join(map(str, sorted(set(folds.values()))))
        raise DataError(f"{path} names the folds {named}, but data.num_folds={num_folds}.")
    return folds


def _read_rows(path: Path) -> list[tuple[str, int]]:
    """Read image_id and fold of each row of folds.csv, or raise DataError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        if tuple(header) != COLUMNS:
            raise ValueError("another header")
        return [(image_id, int(fold)) for image_id, fold, _ in rows]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, csv.Error):
        raise DataError(f"{path} is damaged. Expected columns {','.join(COLUMNS)}.") from None
