import numpy as np
import pytest

from steelseg.scoring.intervals import draw_figures, interval
from steelseg.scoring.metrics import flatten, score


def counts_of(positives_found, positives_missed, negatives):
    """One class; what is found is found whole."""
    rows = [[5, 5, 5]] * positives_found + [[0, 0, 5]] * positives_missed + [[0, 0, 0]] * negatives
    return np.array(rows).reshape(-1, 1, 3)


def test_every_ratio_of_the_table_has_draws():
    """Overall and per class, under the names of metrics.json."""
    counts_nc3 = np.random.default_rng(0).integers(0, 3, (20, 2, 3)).astype(np.int64)
    counts_nc3[..., 0] = counts_nc3.min(axis=-1)

    draws = draw_figures(counts_nc3, draws=150)

    ratios = {k: v for k, v in flatten(score(counts_nc3), prefix="").items() if v == v}
    assert {"dice", "iou_2", "image_recall_1"} <= set(draws) <= set(ratios)
    assert all(values.shape == (150,) for values in draws.values())


def test_the_interval_of_a_share_is_the_binomial_one():
    """60 of 100 found: 0.6 +- 1.96 x sqrt(0.6 x 0.4 / 100), within the noise of 1000 draws."""
    bounds = interval(draw_figures(counts_of(60, 40, 0))["image_recall"])

    assert bounds == pytest.approx((0.504, 0.696), abs=0.015)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Mean Dice of 60 strips from a known mixture, 200 times; 95 % of 200 is 190."""
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = random.binomial(60, 0.7)
        low, high = interval(draw_figures(counts_of(found, 60 - found, 0), draws=300)["dice"])
        hits += low <= 0.7 <= high

    assert 178 <= hits <= 200


def test_the_same_counts_give_the_same_draws():
    """Runs are compared draw by draw."""
    first, second = (draw_figures(counts_of(3, 4, 5), draws=20)["dice"] for _ in range(2))

    np.testing.assert_array_equal(first, second)


def test_what_is_never_defined_has_no_interval():
    """A class without a positive strip has no recall in any draw."""
    draws = draw_figures(counts_of(0, 0, 4), draws=10)

    assert interval(draws["image_recall"]) is None
    assert interval(draws["dice"]) == (1.0, 1.0)
