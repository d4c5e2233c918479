import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.scoring.curves import LevelCounts, calibration, precision_recall


def pixels_of(levels, truth):
    """The histogram of one class on one strip of one row."""
    counts = LevelCounts(1)
    counts.add(np.array([[levels]], dtype=np.uint8), np.array([[truth]], dtype=bool))
    return counts.pixels_c2l[0]


def test_pixels_are_counted_by_level_and_truth():
    """Strip after strip, outside first."""
    pixels_2l = pixels_of([0, 7, 7, 255], [0, 0, 1, 1])

    assert pixels_2l[:, [0, 7, 255]].tolist() == [[1, 1, 0], [0, 1, 1]]
    assert pixels_2l.sum() == 4


def test_a_worked_precision_recall_curve():
    """From the highest level down: right, wrong, right of two defects."""
    curve = precision_recall(pixels_of([250, 200, 100, 0], [1, 0, 1, 0]))

    assert curve["recall"] == [0.5, 0.5, 1.0, 1.0]
    assert curve["precision"] == pytest.approx([1, 0.5, 2 / 3, 0.5], abs=1e-5)
    assert curve["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@given(st.lists(st.tuples(st.integers(0, 255), st.booleans()), min_size=1, max_size=40))
def test_every_point_is_a_threshold(pixels):
    """Each used level as a threshold gives its point."""
    levels, truth = (np.array(column) for column in zip(*pixels, strict=True))
    curve = precision_recall(pixels_of(levels, truth))

    if not truth.any():
        assert curve == {"recall": [], "precision": [], "average_precision": None}
        return
    for level, recall, precision in zip(
        sorted(set(levels.tolist()), reverse=True), curve["recall"], curve["precision"], strict=True
    ):
        mask = levels >= level
        assert recall == pytest.approx((mask & truth).sum() / truth.sum(), abs=1e-5)
        assert precision == pytest.approx((mask & truth).sum() / mask.sum(), abs=1e-5)


def test_a_probability_that_keeps_its_word_has_no_error():
    """At level 51, a fifth, one pixel in five is defect."""
    found = calibration(pixels_of([51] * 5, [1, 0, 0, 0, 0]))

    assert found["error"] == pytest.approx(0)
    assert found["bins"] == [{"predicted": 0.2, "observed": 0.2, "pixels": 5}]


def test_the_error_weighs_bins_by_their_pixels():
    """Three pixels at 0 that are clean, one at 1 that is clean too: a gap of 1 for a quarter."""
    found = calibration(pixels_of([0, 0, 0, 255], [0, 0, 0, 0]))

    assert found["error"] == pytest.approx(0.25)
    assert [b["pixels"] for b in found["bins"]] == [3, 1]
