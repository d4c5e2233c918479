"""Cross-validation folds, stratified by the number of defects per image.

Images are assigned stratum by stratum, the most defects first. In each round every fold gets one
image, and each image goes to the fold that has the fewest of its classes, rare classes first. So
fold sizes and each stratum's counts per fold differ by at most one, and a class with four strips
is spread over as many folds as possible.

Images of one group (near-duplicates, see `duplicates`) go to one fold as one unit, before the
single images of their stratum, which then even out the fold sizes as far as possible.
`folds.csv` stores folds and groups for every later stage.
"""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steelseg.data.formats.annotations import Labels
from steelseg.errors import ConfigError, DataError
from steelseg.files.atomic import replacing

COLUMNS = ("image_id", "fold", "num_defects", "group")


def assign_folds(
    present: Mapping[str, Sequence[int]],
    *,
    num_folds: int,
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Assign images to folds.

    Args:
        present: Class ids of each image, by image_id.
        num_folds: Number of folds, at least 2.
        seed: Seed of the shuffle within a stratum.
        groups: Group of each image that must share a fold with others, given as one of its
            members. May contain images that are not in `present`.

    Returns:
        Fold of each image, 0 to `num_folds - 1`, in the order of `present`.

    Raises:
        ConfigError: if there are fewer images, or groups of images, than folds.
    """
    image_ids = sorted(present)
    shuffled = dict(
        zip(image_ids, np.random.default_rng(seed).permutation(len(image_ids)), strict=True)
    )
    totals = Counter(class_id for ids in present.values() for class_id in ids)
    units = [
        _Unit(members, tuple(class_id for i in members for class_id in present[i]))
        for members in _group_images(image_ids, groups or {})
    ]
    _refuse_few(len(units), len(image_ids), num_folds)

    def rank(unit: _Unit) -> tuple[int, int, tuple[int, ...], int]:
        """Sort large units first, then rare classes; equal combinations stay together."""
        rarity = min((totals[class_id] for class_id in unit.class_ids), default=0)
        return -len(unit.image_ids), rarity, unit.class_ids, shuffled[unit.image_ids[0]]

    strata = defaultdict(list)
    for unit in units:
        strata[max(len(present[image_id]) for image_id in unit.image_ids)].append(unit)
    assigner = _Assigner(num_folds, present, totals)
    for num_defects in sorted(strata, reverse=True):
        assigner.assign_stratum(num_defects, sorted(strata[num_defects], key=rank))
    return {image_id: assigner.folds[image_id] for image_id in present}


@dataclass(frozen=True)
class _Unit:
    """One image, or the members of a group, which go to one fold together."""

    image_ids: tuple[str, ...]

    class_ids: tuple[int, ...]
    """Class ids of the images, concatenated."""


def _group_images(image_ids: Sequence[str], groups: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the members of each group, and every other image as a group of one."""
    members: dict[str, list[str]] = {}
    for image_id in image_ids:
        members.setdefault(groups.get(image_id, image_id), []).append(image_id)
    return [tuple(together) for together in members.values()]


def _refuse_few(num_units: int, num_images: int, num_folds: int) -> None:
    """Raise ConfigError if a fold would be empty."""
    if num_units >= num_folds:
        return
    what = f"{num_images} images"
    if num_units < num_images:
        what += f" in {num_units} groups that must share a fold (data.group_duplicates)"
    raise ConfigError(
        f"data.num_folds={num_folds}, but there are {what}. Use at most {num_units} folds."
    )


class _Assigner:
    """Assigns units to folds in rounds: one to each fold with the fewest of the stratum."""

    def __init__(
        self, num_folds: int, present: Mapping[str, Sequence[int]], totals: Mapping[int, int]
    ) -> None:
        self.folds: dict[str, int] = {}
        self._present = present
        self._totals = totals
        self._sizes = [0] * num_folds
        # Images of each stratum (number of defects) in each fold.
        self._strata: dict[int, list[int]] = defaultdict(lambda: [0] * num_folds)
        self._class_counts: list[Counter[int]] = [Counter() for _ in range(num_folds)]

    def assign_stratum(self, num_defects: int, units: Sequence[_Unit]) -> None:
        """Assign one stratum, so that its counts in any two folds differ by at most one unit."""
        counts, begin = self._strata[num_defects], 0
        while begin < len(units):
            lowest = min(counts)
            lagging = [fold for fold, count in enumerate(counts) if count == lowest]
            part = units[begin : begin + len(lagging)]
            # If fewer units than folds remain, the smallest folds get them.
            free = sorted(lagging, key=self._sizes.__getitem__)[: len(part)]
            for unit in part:
                fold = min(free, key=lambda k: self._fullness(k, unit))
                free.remove(fold)
                self._add(unit, fold)
            begin += len(part)

    def _add(self, unit: _Unit, fold: int) -> None:
        """Add a unit to a fold."""
        for image_id in unit.image_ids:
            self.folds[image_id] = fold
            self._strata[len(self._present[image_id])][fold] += 1
        self._sizes[fold] += len(unit.image_ids)
        self._class_counts[fold].update(unit.class_ids)

    def _fullness(self, fold: int, unit: _Unit) -> tuple[int, float, int]:
        """Return the sort key of a fold: its size (for groups), then its share of the classes."""
        size = self._sizes[fold] if len(unit.image_ids) > 1 else 0
        counts = self._class_counts[fold]
        share = sum(counts[class_id] / self._totals[class_id] for class_id in unit.class_ids)
        return size, share, fold


def write_folds(
    path: Path,
    folds: Mapping[str, int],
    present: Mapping[str, Sequence[int]],
    groups: Mapping[str, str] | None = None,
) -> None:
    """Write folds.csv: image_id, fold, num_defects, group ("" for an image without a group)."""
    groups = groups or {}
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            (image_id, fold, len(present[image_id]), groups.get(image_id, ""))
            for image_id, fold in folds.items()
        )


def read_folds(path: Path, *, image_ids: Sequence[str], num_folds: int) -> dict[str, int]:
    """Read folds.csv and check that it matches the data set.

    Args:
        path: The file that `write_folds` wrote.
        image_ids: All images of the data set.
        num_folds: Number of folds.

    Returns:
        Fold of each image.

    Raises:
        DataError: if the file is damaged, its images or folds differ from the data set, or a
            group is split between folds.
    """
    rows = _read_rows(path)
    folds = {row.image_id: row.fold for row in rows}
    if len(folds) != len(rows):
        raise DataError(f"{path} has several rows for an image. Keep one row per image.")
    if odd := set(folds) ^ set(image_ids):
        raise DataError(
            f"{path} does not match the data set: {min(odd)} is in only one of them "
            f"({len(odd)} in total). Start a new run for changed data."
        )
    if set(folds.values()) != set(range(num_folds)):
        named = ", ".join(map(str, sorted(set(folds.values()))))
        raise DataError(f"{path} has the folds {named}, but data.num_folds={num_folds}.")
    for row in rows:
        if row.group and folds.get(row.group) != row.fold:
            raise DataError(
                f"{path} puts {row.image_id} into fold {row.fold}, but its group {row.group} "
                f"is not in that fold. Images of one group must share a fold."
            )
    return folds


def fingerprint(labels: Labels, folds: Mapping[str, int]) -> str:
    """Return a SHA-256 over the images, their sizes, folds and masks."""
    digest = hashlib.sha256()
    for image_id, size in sorted(labels.sizes.items()):
        digest.update(repr((image_id, size, folds[image_id])).encode())
    for key, runs in sorted(labels.runs.items(), key=lambda item: item[0]):
        digest.update(repr((key, runs.tolist())).encode())
    return digest.hexdigest()


def read_fold_numbers(path: Path) -> dict[str, int]:
    """Read the fold of each image, without checking the images.

    Raises:
        DataError: if the file is damaged.
    """
    return {row.image_id: row.fold for row in _read_rows(path)}


def seen_in_training(path: Path, *, trained_fold: int, image_ids: Iterable[str]) -> list[str]:
    """Return the images that a network was trained on, sorted.

    Args:
        path: folds.csv of its run.
        trained_fold: Its fold.
        image_ids: The images to check; images missing from the file were not used in training.

    Raises:
        DataError: if the file is damaged.
    """
    fold_of = read_fold_numbers(path)
    return sorted(i for i in image_ids if fold_of.get(i, trained_fold) != trained_fold)


def read_groups(path: Path) -> dict[str, str]:
    """Read the group of each image that has one, named by the group's first member.

    Raises:
        DataError: if the file is damaged.
    """
    return {row.image_id: row.group for row in _read_rows(path) if row.group}


class _Row(NamedTuple):
    """One row of folds.csv, without num_defects."""

    image_id: str
    fold: int
    group: str


def _read_rows(path: Path) -> list[_Row]:
    """Read folds.csv, or raise DataError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        if tuple(header) != COLUMNS:
            raise ValueError("another header")
        return [_Row(image_id, int(fold), group) for image_id, fold, _, group in rows]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, csv.Error):
        raise DataError(f"{path} is damaged. Expected columns {','.join(COLUMNS)}.") from None
