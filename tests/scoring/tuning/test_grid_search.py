import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.scoring.postprocess import level_of
from steelseg.scoring.tuning.grid_search import (
    best,
    between_levels,
    cross_fit,
    landscape,
    nearby,
    operating_points,
    ranking,
)
from steelseg.scoring.tuning.grid_tables import Choice, Tables, make_grid

WEIGHTS = {"min_recall": 0.9, "cost_miss": 10.0, "cost_false_alarm": 1.0}
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)


def table_of(levels, *, num_folds=1, min_areas=(0,), thresholds=THRESHOLDS):
    """Tables over strips of one pixel; each is (fold, level, whether it is a defect)."""
    grid = make_grid(thresholds=thresholds, top_thresholds=None, min_sizes=[0], min_areas=min_areas)
    tables = Tables(grid, num_folds)
    for fold, level, is_defect in levels:
        tables.add(fold, np.full((1, 1), level, np.uint8), np.full((1, 1), is_defect))
    return tables


def chosen(objective, levels, **weights):
    sums = table_of(levels).sums([0])
    return sums.choice(best(sums, ranking(objective, **(WEIGHTS | weights)))).threshold


# Defects at 0.4, 0.8 and 1; clean strips at 0.6, 0.6, 0.6, 0.8.
STRIPS = [(0, round(255 * p), True) for p in (0.4, 0.8, 1.0)]
STRIPS += [(0, round(255 * p), False) for p in (0.6, 0.6, 0.6, 0.8)]


@pytest.mark.parametrize(
    ("objective", "weights", "threshold"),
    [
        # 0.3: 3 + 0, 0.5: 2 + 0, 0.7: 2 + 3, 0.9: 1 + 4 of 7; the last two tie at 5.
        ("dice", {}, 0.9),
        ("dice_positive", {}, 0.3),
        ("recall", {"min_recall": 1.0}, 0.3),
        ("recall", {"min_recall": 0.6}, 0.7),
        ("recall", {"min_recall": 0.3}, 0.9),
        ("cost", {"cost_miss": 10.0}, 0.3),
        ("cost", {"cost_miss": 2.0}, 0.7),
        ("cost", {"cost_miss": 0.1}, 0.9),
    ],
)
def test_each_objective_chooses_by_its_own_rule(objective, weights, threshold):
    """Worked out by hand on seven strips of one pixel."""
    assert chosen(objective, STRIPS, **weights) == threshold


def test_a_lucky_combination_does_not_win():
    """0.6 is as good as 0.2 to 0.4 and has no false alarm, but a step aside it is bad."""
    levels = [(0, 0.58, False), (0, 0.62, True)] + [(0, 0.45, True)] * 2 + [(0, 0.55, False)]
    strips = [(fold, round(255 * p), is_defect) for fold, p, is_defect in levels]
    thresholds = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.65)
    sums = table_of(strips, thresholds=thresholds).sums([0])

    highest = max(zip(sums.mean_dice.ravel(), thresholds, strict=True))

    assert highest == (3 / 5, 0.6)
    choice = sums.choice(best(sums, ranking("dice", **WEIGHTS)))
    assert choice.threshold <= 0.35


def test_nearby_is_a_mean_weighted_by_distance():
    """By brute force over every pair of combinations."""
    grid = make_grid(
        thresholds=(0.3, 0.35, 0.6),
        top_thresholds=(0.35, 0.5),
        min_sizes=(0, 10, 20),
        min_areas=(0, 7),
        gates=(0.0, 0.1),
    )
    sizes = {0: 2 * np.log2(10) - 1, 10: 2 * np.log2(10), 20: 2 * np.log2(20)}
    areas = {0: 2 * np.log2(7) - 1, 7: 2 * np.log2(7)}
    places = [
        (k, s, a, g)
        for k in range(len(grid.pairs))
        for s in (0, 1, 2)
        for a in (0, 1)
        for g in (0, 1)
    ]
    points = np.array(
        [
            (
                *(t / 0.05 for t in grid.pairs[k]),
                sizes[grid.min_sizes[s]],
                areas[grid.min_areas[a]],
                grid.gates[g] / 0.05,
            )
            for k, s, a, g in places
        ]
    )
    values = np.random.default_rng(0).random((len(grid.pairs), 3, 2, 2))

    found = nearby(values, grid)

    for place, point in zip(places, points, strict=True):
        weights = np.exp(-np.square(points - point).sum(axis=1) / 2)
        assert found[place] == pytest.approx(weights @ values.ravel() / weights.sum())


def test_a_recall_out_of_reach_comes_as_near_as_it_can():
    """A defect at level 0 is found at no threshold; the others are, at fewest false alarms."""
    strips = [(0, 0, True), (0, 200, True), (0, 100, False)]

    assert chosen("recall", strips, min_recall=1.0) == 0.5


def test_what_makes_no_difference_stays_plain():
    """Of equal combinations the one nearest to a threshold of one half without filters."""
    sums = table_of([(0, 255, True), (0, 0, False)], min_areas=(0, 1)).sums([0])

    choice = sums.choice(best(sums, ranking("dice", **WEIGHTS)))

    assert choice == Choice(threshold=0.5, top_threshold=0.5, min_size=0, min_area=0)


def test_cross_fitting_judges_a_strip_by_the_others():
    """The lone defect of fold 0 teaches nothing to its own score: it is missed."""
    strips = [(0, 150, True), (0, 0, False), (1, 150, False), (1, 0, False)]
    tables = table_of(strips, num_folds=2, thresholds=(0.5, 0.9))
    rank = ranking("dice", **WEIGHTS)

    choices, outcome = cross_fit(tables, 2, rank)

    # Without fold 0 a false alarm at 0.5 asks for 0.9; without fold 1 the defect asks for 0.5.
    assert [choice.threshold for choice in choices] == [0.9, 0.5]
    assert (outcome.found, outcome.false_alarms) == (0, 1)
    assert outcome.dice == 2 / 4


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 255), st.booleans()), min_size=3),
    st.sampled_from(["dice", "dice_positive", "recall", "cost"]),
)
def test_cross_fitting_never_beats_the_naive_score_of_each_part(levels, objective):
    """No choice can do better on a fold than the best one for it."""
    tables = table_of(levels, num_folds=3)
    rank = ranking(objective, **WEIGHTS)

    _, outcome = cross_fit(tables, 3, rank)

    assert outcome.positives + outcome.negatives == len(levels)
    most = sum(table.dice.max() for table in map(tables.sums, ([0], [1], [2])))
    assert outcome.dice_sum <= most + 1e-9


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.35, 0.5, 0.95, 1.0])
def test_thresholds_move_between_two_levels(threshold):
    """There a float and its stored level fall on the same side."""
    moved = between_levels(threshold)

    assert abs(moved - threshold) <= 1 / 255
    level = level_of(moved, np.dtype(np.uint8))
    assert (level - 1) / 255 < moved < level / 255
    assert between_levels(0.5) == 0.5


def test_the_landscape_is_the_best_over_the_other_two():
    """A row a threshold, a column a min_size."""
    sums = table_of(STRIPS).sums([0])

    thresholds, dice_ts = landscape(sums)

    assert thresholds == list(THRESHOLDS)
    np.testing.assert_allclose(dice_ts[:, 0], np.array([3, 2, 5, 5]) / 7)


def test_operating_points_are_those_that_nothing_beats():
    """More found only for more false alarms."""
    points = operating_points(table_of(STRIPS).sums([0]))

    assert [(o.false_alarms, o.found, c.threshold) for c, o in points] == [
        (0, 1, 0.9),
        (1, 2, 0.7),
        (4, 3, 0.3),
    ]
    assert operating_points(table_of([(0, 0, True)]).sums([0])) == []
