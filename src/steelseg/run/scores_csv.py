"""scores.csv: pixel counts of every strip and class, from which every score is computed.

One row per pair: image_id, fold, class_id, pixels of intersection, prediction and ground truth, and
the Dice, for reading in a spreadsheet.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelseg.errors import CheckpointError, DataError
from steelseg.files.atomic import replacing
from steelseg.scoring.metrics import dice

COLUMNS = ("image_id", "fold", "class_id", "intersection", "predicted", "truth", "dice")


@dataclass(frozen=True)
class ScoreTable:
    """Pixel counts of strips."""

    fold_of: Mapping[str, int]
    """Fold of each strip, in the order of the counts."""

    counts_nc3: NDArray[np.int64]
    """Pixels of intersection, prediction and truth, shape (N, C, 3)."""


def write_scores(path: Path, scores: ScoreTable) -> None:
    """Write scores.csv."""
    dices_nc = dice(scores.counts_nc3)
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (image_id, fold), counts_c3, dices in zip(
            scores.fold_of.items(), scores.counts_nc3.tolist(), dices_nc.tolist(), strict=True
        ):
            for class_id, (counts, value) in enumerate(zip(counts_c3, dices, strict=True), start=1):
                writer.writerow((image_id, fold, class_id, *counts, f"{value:.6f}"))


def read_scores(path: Path) -> ScoreTable:
    """Read scores.csv back.

    Raises:
        CheckpointError: if it is missing.
        DataError: if it is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        if tuple(header) != COLUMNS:
            raise ValueError("another header")
        num_classes = max(int(row[2]) for row in rows)
        fold_of = {row[0]: int(row[1]) for row in rows}
        counts = np.array([[int(cell) for cell in row[3:6]] for row in rows], dtype=np.int64)
        return ScoreTable(fold_of, counts.reshape(len(fold_of), num_classes, 3))
    except FileNotFoundError:
        raise CheckpointError(
            f"There is no {path}. Create it with: steelseg evaluate {path.parent}."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, IndexError, csv.Error):
        raise DataError(
            f"{path} is damaged. Recreate it with: steelseg evaluate {path.parent}."
        ) from None
