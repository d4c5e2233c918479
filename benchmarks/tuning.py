"""Exact tuning beside a loop that thresholds, filters and scores every combination.

    python benchmarks/tuning.py ROWS/train.csv [--strips 2000] [--sample 4]

The probabilities are made from real masks: blurred, shifted, too low here and there, with noise
and with false alarms in the shape of other masks. Three parts: our search over its whole default
grid on all strips; our search and the loop on the same sample of strips and the same grid
(without the triplet rule, the loop would take hours otherwise), timed; and their sums compared,
number by number. Making the probabilities is not timed.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from steelseg.config.config import Config
from steelseg.data.formats.annotations import read_labels, read_rows
from steelseg.evaluation.tune import grids, rankings
from steelseg.scoring.metrics import count_pixels, dice
from steelseg.scoring.postprocess import binarize
from steelseg.scoring.tuning.grid_search import best, cross_fit
from steelseg.scoring.tuning.grid_tables import Tables, make_grid

HEIGHT, WIDTH, CLASSES, PARTS = 256, 1600, 4, 5
CLEAN = 0.47


def make_strips(train_csv, count):
    """Yield fold, probs_chw and truth_chw; every strip follows from its number."""
    rows, _ = read_rows(train_csv, num_classes=CLASSES)
    sizes = dict.fromkeys((row.image_id for row in rows), (HEIGHT, WIDTH))
    labels = read_labels(train_csv, sizes, num_classes=CLASSES)
    names = list(labels.sizes)
    for number in range(count):
        random = np.random.default_rng(number)
        is_clean = random.random() < CLEAN
        truth_chw = labels.draw(names[random.integers(len(names))])
        if is_clean:
            truth_chw[:] = False
        ghost_chw = labels.draw(names[random.integers(len(names))])
        probs = [
            probabilities(random, truth, ghost & (random.random() < 0.15))
            for truth, ghost in zip(truth_chw, ghost_chw, strict=True)
        ]
        yield number % PARTS, np.stack(probs), truth_chw


def probabilities(random, truth_hw, ghost_hw):
    """What a network might say of one class."""
    sure, unsure = random.beta(5, 1.5), random.beta(2, 4)
    shape = np.roll(truth_hw, random.integers(-6, 7, 2), axis=(0, 1)) * sure + ghost_hw * unsure
    blurred = cv2.GaussianBlur(shape.astype(np.float32), (0, 0), random.uniform(2, 8))
    coarse = random.normal(0, 1, (HEIGHT // 8, WIDTH // 8)).astype(np.float32)
    waves = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return (np.clip(blurred * (1 + 0.25 * waves) + 0.02 * np.abs(waves), 0, 1) * 255).astype(
        np.uint8
    )


def loop(grid, strips):
    """The plain way: a mask for each combination, then its score."""
    shape = len(grid.pairs), len(grid.min_sizes), len(grid.min_areas), len(grid.gates)
    sums = np.zeros((3, *shape))
    for probs_hw, truth_hw in strips:
        for place in product(*map(range, shape)):
            (threshold, top), size, area = (
                grid.pairs[place[0]],
                grid.min_sizes[place[1]],
                grid.min_areas[place[2]],
            )
            mask_chw = binarize(
                probs_hw[None],
                threshold=[threshold],
                top_threshold=[top],
                min_size=[size],
                min_area=[area],
            )
            counts = count_pixels(mask_chw, truth_hw[None])[0]
            is_predicted, is_there = counts[1] > 0, counts[2] > 0
            sums[(0, *place)] += dice(counts) if is_there else 0
            sums[(1, *place)] += is_predicted and is_there
            sums[(2, *place)] += is_predicted and not is_there
    return sums


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train_csv", type=Path)
    parser.add_argument("--strips", type=int, default=2000)
    parser.add_argument("--sample", type=int, default=4)
    args = parser.parse_args()
    print(json.dumps(whole_search(args) | beside_the_loop(args), indent=1))


def whole_search(args):
    """Our search on every strip, default grid, cross-fitted."""
    tables = [Tables(grid, PARTS) for grid in grids(Config(), {"": (HEIGHT, WIDTH)})]
    seconds = 0.0
    for fold, probs_chw, truth_chw in make_strips(args.train_csv, args.strips):
        begin = time.perf_counter()
        for table, probs_hw, truth_hw in zip(tables, probs_chw, truth_chw, strict=True):
            table.add(fold, probs_hw, truth_hw)
        seconds += time.perf_counter() - begin
    begin = time.perf_counter()
    naive, fitted = [], []
    for table, rank in zip(tables, rankings(Config()), strict=True):
        sums = table.sums(range(PARTS))
        naive.append(sums.outcome(best(sums, rank)).dice)
        fitted.append(cross_fit(table, PARTS, rank)[1].dice)
    grid = tables[0].grid
    return {
        "strips": args.strips,
        "combinations": len(grid.pairs) * len(grid.min_sizes) * len(grid.min_areas),
        "counting_seconds": round(seconds, 1),
        "choosing_seconds": round(time.perf_counter() - begin, 2),
        "naive_dice": round(float(np.mean(naive)), 5),
        "cross_fitted_dice": round(float(np.mean(fitted)), 5),
    }


def beside_the_loop(args):
    """Both on the same strips, grid and class order."""
    whole = grids(Config(), {"": (HEIGHT, WIDTH)})[0]
    grid = make_grid(
        thresholds=[t for t, _ in whole.pairs],
        top_thresholds=None,
        min_sizes=whole.min_sizes,
        min_areas=whole.min_areas,
    )
    strips = [
        (probs_hw, truth_hw)
        for _, probs_chw, truth_chw in make_strips(args.train_csv, args.sample)
        for probs_hw, truth_hw in zip(probs_chw, truth_chw, strict=True)
    ]
    begin = time.perf_counter()
    table = Tables(grid, 1)
    for probs_hw, truth_hw in strips:
        table.add(0, probs_hw, truth_hw)
    sums = table.sums([0])
    ours_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    dice_sums, found, false_alarms = loop(grid, strips)
    loop_seconds = time.perf_counter() - begin
    return {
        "sample_strips": args.sample,
        "sample_combinations": dice_sums.size,
        "loop_seconds": round(loop_seconds, 2),
        "ours_seconds": round(ours_seconds, 4),
        "times_faster": round(loop_seconds / ours_seconds, 1),
        "found_equal": bool((found == sums.found).all()),
        "false_alarms_equal": bool((false_alarms == sums.false_alarms).all()),
        "dice_equal_to_1e-12": bool(np.allclose(dice_sums, sums.dice, rtol=0, atol=1e-12)),
    }


if __name__ == "__main__":
    main()
