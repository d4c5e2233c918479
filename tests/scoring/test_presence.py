import numpy as np
import pytest

from steelseg.scoring.postprocess import MaskSettings, to_uint8
from steelseg.scoring.presence import (
    PresenceTally,
    average_precision,
    has_pixels,
    one_pixel,
    without_sizes,
)
from steelseg.scoring.screening import defect_score, defect_score_of


def test_average_precision_of_a_worked_example():
    """Found at ranks 1 and 3: half of the recall at precision 1, half at 2/3."""
    presence = np.array([0.9, 0.8, 0.7, 0.1], np.float32)

    assert average_precision(presence, np.array([1, 0, 1, 0], bool)) == pytest.approx(5 / 6)
    assert average_precision(presence, np.array([1, 1, 0, 0], bool)) == 1
    assert np.isnan(average_precision(presence, np.zeros(4, bool)))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0]])
def test_strips_of_equal_presence_have_no_order(order):
    """Who knows nothing gets the share of strips with the class, however they lie."""
    is_there = np.array([1, 0, 0, 0], bool)[order]

    assert average_precision(np.full(4, 0.5, np.float32), is_there) == 0.25


def test_the_mean_is_over_the_classes_that_are_shown():
    tally = PresenceTally()
    truth_chw = np.zeros((3, 2, 2), bool)
    truth_chw[0, 1, 1] = True
    tally.add(np.array([0.2, 0.9, 0.5], np.float32), truth_chw)
    tally.add(np.array([0.1, 0.9, 0.5], np.float32), np.zeros((3, 2, 2), bool))

    assert tally.per_class()[0] == 1
    assert np.isnan(tally.per_class()[1:]).all()
    assert tally.result() == 1


def test_presence_is_one_pixel_that_no_size_filters():
    settings = without_sizes(MaskSettings((0.5, 0.6), (200, 9), (1, 3000), (0.9, 0.9)))

    assert one_pixel(np.array([0.1, 0.7], np.float32)).shape == (2, 1, 1)
    assert has_pixels(np.eye(3, dtype=bool)[None]).tolist() == [[[True]]]
    assert settings == MaskSettings((0.5, 0.6), (0, 0), (0, 0), (0.0, 0.0))


def test_the_defect_score_of_a_constant_map_is_its_value():
    """It needs no blur, and has no edge that a blur would pad."""
    probs_chw = np.stack([np.full((40, 70), p, np.float32) for p in (0.2, 0.6)])

    assert defect_score(to_uint8(probs_chw)) == 153 / 255


def test_a_classifier_is_as_suspicious_as_it_says():
    """Below a 255th, where its strips are, rounding would make all alike."""
    presence_c = np.array([0.0003, 0.0011], np.float32)
    probs_chw = np.broadcast_to(presence_c[:, None, None], (2, 16, 16))

    assert defect_score_of(probs_chw, presence_c, by_presence=True) == float(presence_c[1])
    assert defect_score_of(probs_chw, presence_c, by_presence=False) == 0
