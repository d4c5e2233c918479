"""Cross-validation folds, stratified by the number of defects per image.

Images are dealt like cards, stratum after stratum, strips with the most defects first. In a
round every fold gets one image, and each image goes to the fold that has seen the least of
its classes, rare classes first. So fold sizes and the folds' shares of every stratum differ
by one at most, and a class of four strips is spread over the folds as far as that allows.

Images of one group (strips that look alike, see `duplicates`) go to one fold, as one card,
before the single images of their stratum, which then level the folds as far as they suffice.
`folds.csv` keeps folds and groups for every later stage.
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
    """Deal images to folds.

    Args:
        present: Class ids that each image shows, by image_id.
        num_folds: Number of folds, at least 2.
        seed: Of the shuffle within a stratum.
        groups: For each image that must not be parted from others, one of them, the same for
            all. Images that are not in `present` may be named too.

    Returns:
        Fold of each image, 0 to `num_folds - 1`, in the order of `present`.

    Raises:
        ConfigError: if there are fewer images, or groups of images, than folds.
    """
    image_ids = sorted(present)
    draws = dict(
        zip(image_ids, np.random.default_rng(seed).permutation(len(image_ids)), strict=True)
    )
    totals = Counter(class_id for ids in present.values() for class_id in ids)
    cards = [
        _Card(members, tuple(class_id for i in members for class_id in present[i]))
        for members in _unite(image_ids, groups or {})
    ]
    _refuse_few(len(cards), len(image_ids), num_folds)

    def rank(card: _Card) -> tuple[int, int, tuple[int, ...], int]:
        """The largest go first, then the rarest, and alike ones together, while all can follow."""
        rarity = min((totals[class_id] for class_id in card.shown), default=0)
        return -len(card.image_ids), rarity, card.shown, draws[card.image_ids[0]]

    strata = defaultdict(list)
    for card in cards:
        strata[max(len(present[image_id]) for image_id in card.image_ids)].append(card)
    dealer = _Dealer(num_folds, present, totals)
    for num_defects in sorted(strata, reverse=True):
        dealer.deal(num_defects, sorted(strata[num_defects], key=rank))
    return {image_id: dealer.folds[image_id] for image_id in present}


@dataclass(frozen=True)
class _Card:
    """Images that go to one fold together."""

    image_ids: tuple[str, ...]
    """One image, or the members of a group."""

    shown: tuple[int, ...]
    """Class ids that they show, image after image."""


def _unite(image_ids: Sequence[str], groups: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Put the images of each group together; every other image stays alone."""
    members: dict[str, list[str]] = {}
    for image_id in image_ids:
        members.setdefault(groups.get(image_id, image_id), []).append(image_id)
    return [tuple(together) for together in members.values()]


def _refuse_few(num_cards: int, num_images: int, num_folds: int) -> None:
    """Raise ConfigError if a fold would stay empty."""
    if num_cards >= num_folds:
        return
    what = f"{num_images} images"
    if num_cards < num_images:
        what += f" in {num_cards} groups that must not be parted (data.group_duplicates)"
    raise ConfigError(
        f"data.num_folds={num_folds}, but there are {what}. Use at most {num_cards} folds."
    )


class _Dealer:
    """Gives cards to folds, round by round: one to every fold that lags, then the next round."""

    def __init__(
        self, num_folds: int, present: Mapping[str, Sequence[int]], totals: Mapping[int, int]
    ) -> None:
        self.folds: dict[str, int] = {}
        self._present = present
        self._totals = totals
        self._sizes = [0] * num_folds
        # Images of each stratum (number of defects) in each fold.
        self._strata: dict[int, list[int]] = defaultdict(lambda: [0] * num_folds)
        self._shown: list[Counter[int]] = [Counter() for _ in range(num_folds)]

    def deal(self, num_defects: int, cards: Sequence[_Card]) -> None:
        """Deal one stratum so that its share in any two folds differs by one card at most."""
        counts, begin = self._strata[num_defects], 0
        while begin < len(cards):
            lowest = min(counts)
            lagging = [fold for fold, count in enumerate(counts) if count == lowest]
            part = cards[begin : begin + len(lagging)]
            # A round that not every fold takes part in goes to the smallest folds.
            free = sorted(lagging, key=self._sizes.__getitem__)[: len(part)]
            for card in part:
                fold = min(free, key=lambda k: self._fullness(k, card))
                free.remove(fold)
                self._give(card, fold)
            begin += len(part)

    def _give(self, card: _Card, fold: int) -> None:
        """Put a card into a fold."""
        for image_id in card.image_ids:
            self.folds[image_id] = fold
            self._strata[len(self._present[image_id])][fold] += 1
        self._sizes[fold] += len(card.image_ids)
        self._shown[fold].update(card.shown)

    def _fullness(self, fold: int, card: _Card) -> tuple[int, float, int]:
        """How little a fold needs a card: by its size for a group, then by what it has seen."""
        size = self._sizes[fold] if len(card.image_ids) > 1 else 0
        seen = self._shown[fold]
        return size, sum(seen[class_id] / self._totals[class_id] for class_id in card.shown), fold


def write_folds(
    path: Path,
    folds: Mapping[str, int],
    present: Mapping[str, Sequence[int]],
    groups: Mapping[str, str] | None = None,
) -> None:
    """Write folds.csv: image_id, fold, num_defects, group ("" for an image alone)."""
    groups = groups or {}
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            (image_id, fold, len(present[image_id]), groups.get(image_id, ""))
            for image_id, fold in folds.items()
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
        DataError: if the file is damaged, its images or folds are not those of the data set,
            or a group lies in two folds.
    """
    rows = _read_rows(path)
    folds = {row.image_id: row.fold for row in rows}
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
    for row in rows:
        if row.group and folds.get(row.group) != row.fold:
            raise DataError(
                f"{path} puts {row.image_id} into fold {row.fold}, but its group {row.group} "
                f"is not there. Images of one group belong into one fold."
            )
    return folds


def fingerprint(labels: Labels, folds: Mapping[str, int]) -> str:
    """SHA-256 over the images, their sizes and folds, and every run of their masks."""
    digest = hashlib.sha256()
    for image_id, size in sorted(labels.sizes.items()):
        digest.update(repr((image_id, size, folds[image_id])).encode())
    for key, runs in sorted(labels.runs.items(), key=lambda item: item[0]):
        digest.update(repr((key, runs.tolist())).encode())
    return digest.hexdigest()


def read_fold_numbers(path: Path) -> dict[str, int]:
    """Read the fold of each image, whatever data set it is of.

    Raises:
        DataError: if the file is damaged.
    """
    return {row.image_id: row.fold for row in _read_rows(path)}


def seen_in_training(path: Path, *, trained_fold: int, image_ids: Iterable[str]) -> list[str]:
    """Name the images that a network was trained on, sorted.

    Args:
        path: folds.csv of its run.
        trained_fold: Its fold.
        image_ids: The images to look for; those that the file does not name were never seen.

    Raises:
        DataError: if the file is damaged.
    """
    fold_of = read_fold_numbers(path)
    return sorted(i for i in image_ids if fold_of.get(i, trained_fold) != trained_fold)


def read_groups(path: Path) -> dict[str, str]:
    """Read the groups of folds.csv: for each image that is in one, its first member.

    Raises:
        DataError: if the file is damaged.
    """
    return {row.image_id: row.group for row in _read_rows(path) if row.group}


class _Row(NamedTuple):
    """One row of folds.csv, without what follows from train.csv."""

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
