"""Exact grid search for post-processing settings, by an objective.

The objective of a class does not depend on the other classes, so each is searched alone, over its
whole grid. On a few hundred strips the highest of a hundred thousand combinations is highest by
luck, so each is scored with its neighbours in the grid (`nearby`). `cross_fit` chooses for the
strips of each inner fold on the others; only its outcome estimates the score on new strips, because
settings chosen and scored on the same strips are optimistic.

No files, no torch. Masks are counted in `grid_tables`.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steelseg.scoring.tuning.grid_tables import Choice, Grid, Index, Outcome, Sums, Tables, add_up

Objective = Literal["dice", "dice_positive", "recall", "cost"]

# Sums of a few thousand Dice values differ by this much when added in another order.
_SAME = 1e-9

# One step of the default grid.
_THRESHOLD_STEP = 0.05
_SIZES_A_DOUBLING = 2

Ranking: TypeAlias = Callable[[Sums], tuple[NDArray[Any], NDArray[Any]]]
"""Ranks combinations: the highest value of the first array, then of the second."""


def ranking(
    objective: Objective, *, min_recall: float, cost_miss: float, cost_false_alarm: float
) -> Ranking:
    """Return how an objective ranks combinations.

    Args:
        objective: dice: highest mean Dice. dice_positive: highest over positive pairs, then
            fewest false alarms. cost: lowest sum of misses and false alarms at their costs. These
            three score a combination with its neighbours. recall: fewest false alarms among those
            that find at least `min_recall` of the positive pairs, or come closest to it. The mean
            Dice breaks ties of the last two.
        min_recall: Minimum recall of positive pairs, for recall.
        cost_miss: Cost of a positive pair without a mask.
        cost_false_alarm: Cost of a negative pair with one.
    """

    def by_recall(sums: Sums) -> tuple[NDArray[Any], NDArray[Any]]:
        enough = np.minimum(sums.found, np.ceil(min_recall * sums.positives - _SAME))
        # A miss too many outweighs every false alarm.
        return enough * (sums.negatives + 1) - sums.false_alarms, sums.mean_dice

    def by_cost(sums: Sums) -> tuple[NDArray[Any], NDArray[Any]]:
        misses = sums.positives - sums.found
        costs = cost_miss * misses + cost_false_alarm * sums.false_alarms
        return nearby(-costs, sums.grid), sums.mean_dice

    rankings: dict[Objective, Ranking] = {
        "dice": lambda sums: (nearby(sums.mean_dice, sums.grid), -sums.false_alarms),
        "dice_positive": lambda sums: (
            nearby(sums.dice / max(sums.positives, 1), sums.grid),
            -sums.false_alarms,
        ),
        "recall": by_recall,
        "cost": by_cost,
    }
    return rankings[objective]


def nearby(values_ksag: NDArray[Any], grid: Grid) -> NDArray[np.float64]:
    """Average each combination with its neighbours, because its own value is partly luck.

    Args:
        values_ksag: A value of each combination.
        grid: The combinations.

    Returns:
        Same shape: means weighted by a Gaussian with a standard deviation of 0.05 in thresholds and
        gates and of half a doubling in sizes.
    """
    pairs, gates = np.array(grid.pairs) / _THRESHOLD_STEP, np.array(grid.gates) / _THRESHOLD_STEP
    axes = pairs, _doublings(grid.min_sizes), _doublings(grid.min_areas), gates[:, None]
    for axis, indices in enumerate(axes):
        squares = np.square(indices[:, None] - indices).sum(axis=-1)
        weights = np.exp(-squares / 2)
        weights /= weights.sum(axis=1, keepdims=True)
        values_ksag = np.moveaxis(np.tensordot(weights, values_ksag, (1, axis)), 0, axis)
    return values_ksag


def _doublings(sizes: ArrayLike) -> NDArray[np.float64]:
    """Return sizes in steps of the grid, shape (n, 1); 0 is a step below the smallest other."""
    steps = _SIZES_A_DOUBLING * np.log2(np.maximum(sizes, 1))
    above = steps[np.asarray(sizes) > 0]
    below = above.min() - 1 if len(above) else 0.0
    return np.where(np.asarray(sizes) > 0, steps, below)[:, None]


def between_levels(threshold: float) -> float:
    """Return the nearest threshold halfway between two of the 256 levels; 0.5 is one.

    There the stored probabilities give the same mask as the floats of the network.
    """
    return float((np.clip(np.floor(threshold * 255), 0, 254) + 0.5) / 255)


def best(sums: Sums, rank: Ranking) -> Index:
    """Find the best combination; of equal ones the one nearest to the defaults.

    Returns:
        Its index in the tables.
    """
    first, second = rank(sums)
    equal = first >= first.max() - _SAME
    equal &= second >= second[equal].max() - _SAME
    indices = [(int(k), int(s), int(a), int(g)) for k, s, a, g in np.argwhere(equal)]
    return min(indices, key=lambda index: _distance_from_default(sums.choice(index)))


def _distance_from_default(choice: Choice) -> tuple[float, ...]:
    """Return how far a combination is from a plain threshold of 0.5, as a sort key."""
    return (
        choice.min_size,
        choice.min_area,
        choice.gate,
        choice.top_threshold - choice.threshold,
        abs(choice.threshold - 0.5),
        choice.threshold,
    )


def cross_fit(tables: Tables, num_folds: int, rank: Ranking) -> tuple[list[Choice], Outcome]:
    """Choose for each inner fold on the others, and count the outcome.

    Returns:
        The choice for each inner fold, and the outcome over all strips, each with the choice that
        was made without it.
    """
    choices, outcomes = [], []
    for fold in range(num_folds):
        others = tables.sums([p for p in range(num_folds) if p != fold])
        index = best(others, rank)
        choices.append(others.choice(index))
        outcomes.append(tables.sums([fold]).outcome(index))
    return choices, add_up(outcomes)


def landscape(sums: Sums) -> tuple[list[float], NDArray[np.float64]]:
    """Return the mean Dice over threshold and min_size, with the best other settings.

    Returns:
        The thresholds T, and the Dice, shape (T, S).
    """
    thresholds = sorted({threshold for threshold, _ in sums.grid.pairs})
    best_ks = sums.mean_dice.max(axis=(2, 3))
    rows = [
        best_ks[[k for k, (t, _) in enumerate(sums.grid.pairs) if t == threshold]].max(axis=0)
        for threshold in thresholds
    ]
    return thresholds, np.stack(rows)


def operating_points(sums: Sums) -> list[tuple[Choice, Outcome]]:
    """Return the combinations that find more than any other with as few false alarms.

    Returns:
        One combination for each number found, the fewest false alarms first; of equal ones
        the one with the highest mean Dice.
    """
    order = np.lexsort((-sums.mean_dice.ravel(), -sums.found.ravel(), sums.false_alarms.ravel()))
    found = sums.found.ravel()[order]
    most_before = np.concatenate([[0], np.maximum.accumulate(found)[:-1]])
    points = []
    for flat in order[found > most_before]:
        pair, size, area, gate = np.unravel_index(flat, sums.found.shape)
        index = int(pair), int(size), int(area), int(gate)
        points.append((sums.choice(index), sums.outcome(index)))
    return points
