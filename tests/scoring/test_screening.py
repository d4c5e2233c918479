import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.errors import DataError
from steelseg.scoring.screening import (
    ScreeningResult,
    choose_cutoff,
    count_screened,
    cross_fit,
    defect_score,
)


def test_the_defect_score_is_the_highest_mean_of_a_block():
    """A block of 8x8 counts as a whole; a single bright pixel is one of 64."""
    probs_chw = np.zeros((2, 32, 64), np.uint8)
    probs_chw[1, 8:16, 24:32] = 204
    assert defect_score(probs_chw) == pytest.approx(0.8)

    single = np.zeros((1, 32, 64), np.uint8)
    single[0, 16, 16] = 255
    assert defect_score(single) == pytest.approx(1 / 64, abs=1 / 255)


def test_the_defect_score_does_not_depend_on_the_shape_of_a_strip():
    """Neither smaller than a block nor a view that is turned."""
    assert defect_score(np.full((1, 3, 5), 102, np.uint8)) == pytest.approx(0.4)
    tall = np.zeros((40, 16, 1), np.uint8)
    tall[:8, :8] = 255
    assert defect_score(tall.transpose(2, 1, 0)) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 1, exclude_max=True))
def test_no_more_defective_strips_lie_below_the_cut_than_asked_for(values, miss_rate):
    """And with any higher cut among the values there would be more, ties aside."""
    scores = np.array(values)
    cut = choose_cutoff(scores, miss_rate=miss_rate)

    assert (scores < cut).mean() <= miss_rate
    higher = scores[scores > cut]
    if len(higher):
        assert (scores < higher.min()).mean() > miss_rate


def test_a_miss_rate_of_zero_keeps_every_defective_strip():
    assert choose_cutoff(np.array([0.7, 0.2, 0.9]), miss_rate=0) == 0.2


def test_without_a_defective_strip_there_is_no_cut():
    with pytest.raises(DataError, match="No strip has a defect"):
        choose_cutoff(np.array([]), miss_rate=0.1)


def test_every_part_is_judged_by_the_cut_of_the_others():
    """Fold 0's faint defect is below the cut of fold 1, which never saw it."""
    score_of = {"a": 0.1, "b": 0.05, "c": 0.6, "d": 0.3}
    is_defective = {"a": True, "b": False, "c": True, "d": False}
    fold_of = {"a": 0, "b": 0, "c": 1, "d": 1}

    is_skipped = cross_fit(score_of, is_defective, fold_of, miss_rate=0)

    assert is_skipped == {"a": True, "b": True, "c": False, "d": False}
    assert count_screened(is_skipped, is_defective) == ScreeningResult(2, 1, 2, 1)


def test_the_interval_is_wilsons():
    """Worked by hand for 1 of 10: 0.0179 to 0.4042; none of 100 may still be 3.7 %."""
    assert ScreeningResult(10, 1, 0, 0).missed_interval == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert ScreeningResult(100, 0, 0, 0).missed_interval == pytest.approx((0, 0.0370), abs=1e-4)
