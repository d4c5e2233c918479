from dataclasses import astuple
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from steelseg.scoring.metrics import count_pixels, dice
from steelseg.scoring.postprocess import binarize
from steelseg.scoring.tuning.grid_tables import Choice, Outcome, Tables, add_up, make_grid

# Two components of 3 and 1 pixels; the first reaches 0.9, the second only 0.6.
PROBS = np.array([[230, 230, 140, 0, 153], [0, 0, 0, 0, 0]], dtype=np.uint8)
TRUTH = np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]], dtype=bool)


def fill(grid, strips, *, num_folds=1):
    """Add (fold, probs_hw, truth_hw, perhaps presence) to new tables."""
    tables = Tables(grid, num_folds)
    for fold, *strip in strips:
        tables.add(fold, *strip)
    return tables


def every_place(grid):
    """List the places of a grid's combinations."""
    axes = grid.pairs, grid.min_sizes, grid.min_areas, grid.gates
    return product(*(range(len(axis)) for axis in axes))


def brute_force(choice, strips):
    """Threshold, filter and score every strip for one combination."""
    outcomes = []
    for probs_hw, truth_hw, presence in strips:
        mask_chw = binarize(
            probs_hw[None] if presence >= choice.gate else np.zeros_like(probs_hw[None]),
            threshold=[choice.threshold],
            min_size=[choice.min_size],
            min_area=[choice.min_area],
            top_threshold=[choice.top_threshold],
        )
        counts = count_pixels(mask_chw, truth_hw[None])[0]
        is_there, is_predicted = bool(counts[2]), bool(counts[1])
        outcomes.append(
            Outcome(
                dice_sum=float(dice(counts)) if is_there else 0.0,
                found=is_there and is_predicted,
                false_alarms=is_predicted and not is_there,
                positives=is_there,
                negatives=not is_there,
            )
        )
    return add_up(outcomes)


def test_thresholds_are_paired_with_those_not_below():
    """A lower top_threshold would count as threshold itself, and be tried twice."""
    grid = make_grid(
        thresholds=[0.7, 0.5], top_thresholds=[0.5, 0.9], min_sizes=[4, 0, 4], min_areas=[0]
    )

    assert grid.pairs == ((0.5, 0.5), (0.5, 0.9), (0.7, 0.7), (0.7, 0.9))
    assert (grid.min_sizes, grid.min_areas) == ((0, 4), (0,))


@pytest.mark.parametrize(
    ("choice", "dice_sum"),
    [
        (Choice(0.5, 0.5, 0, 0), 2 * 3 / (4 + 4)),
        (Choice(0.5, 0.5, 2, 0), 2 * 3 / (3 + 4)),
        (Choice(0.7, 0.7, 0, 0), 2 * 2 / (2 + 4)),
        (Choice(0.5, 0.5, 0, 5), 0),
        (Choice(0.5, 0.7, 0, 2), 2 * 3 / (4 + 4)),
        (Choice(0.5, 0.7, 0, 3), 0),
    ],
)
def test_a_worked_example(choice, dice_sum):
    """Three pixels of four are found; a speck of one pixel goes with min_size."""
    grid = make_grid(
        thresholds=[0.5, 0.7], top_thresholds=[0.7], min_sizes=[0, 2], min_areas=[0, 2, 3, 5]
    )
    sums = fill(grid, [(0, PROBS, TRUTH)]).sums([0])

    (place,) = [p for p in every_place(grid) if sums.choice(p) == choice]
    assert sums.outcome(place).dice_sum == pytest.approx(dice_sum)
    assert sums.outcome(place).found == (dice_sum > 0)


@st.composite
def strips(draw):
    """Draw a few strips of one class, with folds; probabilities of many levels or few."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    levels = draw(st.sampled_from([[0, 255], [0, 90, 127, 128, 200, 255], list(range(256))]))
    return [
        (
            draw(st.integers(0, 1)),
            draw(npst.arrays(np.uint8, shape, elements=st.sampled_from(levels))),
            draw(npst.arrays(np.bool_, shape)) & draw(st.booleans()),
            draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


@given(strips())
def test_every_combination_counts_what_brute_force_counts(cases):
    """Exactly: found and false alarms as whole numbers, Dice to the last digits."""
    grid = make_grid(
        thresholds=[0.2, 0.5, 0.6],
        top_thresholds=[0.5, 0.9],
        min_sizes=[0, 1, 2, 5],
        min_areas=[0, 1, 3, 9],
        gates=[0.0, 0.5, 0.8],
    )
    tables = fill(grid, cases, num_folds=2)

    for folds in ([0], [1], [0, 1]):
        sums = tables.sums(folds)
        chosen = [strip for fold, *strip in cases if fold in folds]
        for place in every_place(grid):
            expected = brute_force(sums.choice(place), chosen) if chosen else add_up([])
            assert astuple(sums.outcome(place)) == pytest.approx(astuple(expected))


def test_an_outcome_is_the_competitions_dice():
    """Empty on empty counts 1: two strips with the class, three without, one false alarm."""
    outcome = Outcome(dice_sum=1.5, found=2, false_alarms=1, positives=2, negatives=3)

    assert outcome.dice == (1.5 + 2) / 5
    assert outcome.dice_positive == 0.75
    assert np.isnan(add_up([]).dice)
    assert np.isnan(add_up([]).dice_positive)


def test_no_strip_is_changed():
    """The same arrays go on to be scored."""
    before = PROBS.copy(), TRUTH.copy()
    grid = make_grid(thresholds=[0.1], top_thresholds=None, min_sizes=[0], min_areas=[0])

    fill(grid, [(0, PROBS, TRUTH)])

    np.testing.assert_array_equal(PROBS, before[0])
    np.testing.assert_array_equal(TRUTH, before[1])
