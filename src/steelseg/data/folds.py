"""Cross-validation folds, stratified by the number of defects per image.

Images are dealt like cards, stratum after stratum, strips with the most defects first. In a
round every fold gets one image, and each image goes to the fold that has seen the least of
its classes, rare classes first. So fold sizes and the folds' shares of every stratum differ
by one at most, and a class of four strips is spread over the folds as far as that allows.
`folds.csv` keeps the result for every later stage.
"""

import csv
from collections import Counter
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
    draws = dict(
        zip(image_ids, np.random.default_rng(seed).permutation(len(image_ids)), strict=True)
    )
    totals = Counter(class_id for ids in present.values() for class_id in ids)
    rarity = {
        image_id: min((totals[class_id] for class_id in present[image_id]), default=0)
        for image_id in image_ids
    }
    dealer = _Dealer(num_folds, totals)
    for num_defects in sorted({len(ids) for ids in present.values()}, reverse=True):
        stratum = [image_id for image_id in image_ids if len(present[image_id]) == num_defects]
        # The rarest go first, and alike ones together, while every fold can still take them.
        stratum.sort(key=lambda i: (rarity[i], tuple(present[i]), draws[i]))
        dealer.deal(stratum, present)
    return {image_id: dealer.folds[image_id] for image_id in present}


class _Dealer:
    """Gives images to folds, round by round: one image for every fold, then the next round."""

    def __init__(self, num_folds: int, totals: Mapping[int, int]) -> None:
        self.folds: dict[str, int] = {}
        self._totals = totals
        self._sizes = [0] * num_folds
        self._shown: list[Counter[int]] = [Counter() for _ in range(num_folds)]

    def deal(self, stratum: Sequence[str], present: Mapping[str, Sequence[int]]) -> None:
        """Deal one stratum so that its share in any two folds differs by one at most."""
        num_folds = len(self._sizes)
        for begin in range(0, len(stratum), num_folds):
            part = stratum[begin : begin + num_folds]
            # A round that not every fold takes part in goes to the smallest folds.
            free = sorted(range(num_folds), key=self._sizes.__getitem__)[: len(part)]
            for image_id in part:
                fold = min(free, key=lambda k: (self._share(k, present[image_id]), k))
                free.remove(fold)
                self.folds[image_id] = fold
                self._sizes[fold] += 1
                self._shown[fold].update(present[image_id])

    def _share(self, fold: int, class_ids: Sequence[int]) -> float:
        """How much of these classes a fold holds already."""
        return sum(self._shown[fold][class_id] / self._totals[class_id] for class_id in class_ids)


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
