"""Mutated train.csv texts: compare `steelseg check` with an independent oracle.

A text passes if both report exactly the same faulty lines, and every pixel of every valid mask is
the same.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path

from steelseg.data.checks.check import inspect_rows
from torture.csv_mutations import make_text
from torture.csv_oracle import judge
from torture.outcome import Outcome

NAME = "mutated train.csv: no traceback, no false accept, no false reject, every bad row listed"
COUNT = 100_000
QUICK = 400

NUM_CLASSES = 2
SHAPES = {"a.png": (4, 6), "b_2.png": (5, 5), "c,\u00e9.png": (3, 20)}
SIZES = {name: height * width for name, (height, width) in SHAPES.items()}


def run(count):
    """Judge texts 0 to `count` - 1."""
    begun = time.monotonic()
    counts, first_wrong = Counter(), ""
    with tempfile.TemporaryDirectory() as folder:
        train_csv = Path(folder) / "train.csv"
        for number in range(count):
            content = make_text(number, SIZES, NUM_CLASSES)
            bad, masks = judge(content, SIZES, NUM_CLASSES)
            try:
                found_bad, found_masks = _check(train_csv, content)
            except Exception as error:
                error.add_note(f"text {number}: {content!r}")
                raise
            is_right = (found_bad, found_masks) == (bad, masks)
            counts["right"] += is_right
            counts["sound"] += not bad
            counts["rows"] += len(bad)
            if not is_right and not first_wrong:
                first_wrong = f"; text {number}: {found_bad} for {bad}, {content!r}"
    note = (
        f"{counts['sound']:,} sound, {count - counts['sound']:,} refused with "
        f"{counts['rows']:,} bad rows{first_wrong}"
    )
    return Outcome(counts["right"], count, time.monotonic() - begun, note)


def _check(train_csv, content):
    """Lines of the bad rows and pixels of the good masks, as `steelseg` has them."""
    train_csv.write_bytes(content)
    labels, faults = inspect_rows(
        train_csv, train_csv.parent, list(SHAPES), SHAPES, num_classes=NUM_CLASSES
    )
    masks = {
        key: {pixel for start, length in runs for pixel in range(start + 1, start + length + 1)}
        for key, runs in labels.runs.items()
    }
    return {fault.row for fault in faults}, masks
