"""Accepted predictions, compared with counts by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.scoring.confidence import (
    ConfidenceThresholds,
    agreement,
    choose_thresholds,
    confidence,
    count_accepted,
)
from steelseg.scoring.metrics import count_pixels


def oracle_dice(one, other):
    total = sum(map(int, one.ravel())) + sum(map(int, other.ravel()))
    both = sum(int(a) * int(b) for a, b in zip(one.ravel(), other.ravel(), strict=True))
    return 2 * both / total if total else 1.0


@pytest.mark.parametrize("seed", range(5))
def test_agreement_is_the_dice_of_the_farthest_vote(seed):
    """Pixel by pixel, class by class."""
    random = np.random.default_rng(seed)
    masks_vchw = random.random((3, 2, 4, 6)) < random.random((3, 2, 1, 1))
    mean_chw = random.random((2, 4, 6)) < 0.4

    expected = [min(oracle_dice(mask[c], mean_chw[c]) for mask in masks_vchw) for c in range(2)]
    np.testing.assert_allclose(agreement(list(masks_vchw), mean_chw), expected)


def test_votes_that_all_see_nothing_agree():
    """Both empty is 1; one speck against nothing is 0."""
    empty = np.zeros((1, 4, 4), bool)
    speck = empty.copy()
    speck[0, 1, 1] = True

    assert agreement([empty, empty], empty) == [1]
    assert agreement([empty, speck], empty) == [0]


def test_confidence_is_the_mean_inside_a_mask_and_one_minus_the_defect_score_without():
    """Class 1 has a mask of 0.8 and 1; class 2 has none, and a block of 0.4."""
    probs_chw = np.zeros((2, 16, 16), np.uint8)
    probs_chw[0, :2] = [[204], [255]]
    probs_chw[1, :8, :8] = 102
    mask_chw = probs_chw > 127

    np.testing.assert_allclose(confidence(probs_chw, mask_chw), [0.9, 0.6])


def test_masks_and_absences_have_thresholds_of_their_own():
    """Which one applies depends on whether the class has a mask."""
    thresholds = ConfidenceThresholds(found=(0.9, 0.8), absent=(0.5, 0.6))

    np.testing.assert_array_equal(thresholds.required(np.array([True, False])), [0.9, 0.6])


def figures(confident, counts, least):
    """Precision of the masks and rightness of the absences from `least` on, counted by hand."""
    masks = [c for s, c in zip(confident, counts, strict=True) if c[1] and s >= least]
    absences = [c for s, c in zip(confident, counts, strict=True) if not c[1] and s >= least]
    pixels = sum(c[1] for c in masks)
    return (
        sum(c[0] for c in masks) / pixels if pixels else None,
        sum(not c[2] for c in absences) / len(absences) if absences else None,
    )


rows = st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.integers(0, 9), st.integers(0, 9))


@given(st.lists(rows, min_size=1, max_size=25), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_the_lowest_threshold_that_reaches_the_precision_is_chosen(strips, precision):
    """If none does, nothing is accepted."""
    confident = np.array([[s] for s, _, _ in strips])
    counts = np.array([[(min(p, t), p, t)] for _, p, t in strips])

    thresholds = choose_thresholds(confident, counts, precision=precision)

    for chosen, kind in ((thresholds.found[0], 0), (thresholds.absent[0], 1)):
        own = [s for s, p, _ in strips if (p > 0) == (kind == 0)]
        reach = [s for s in own if figures(confident[:, 0], counts[:, 0], s)[kind] >= precision]
        assert chosen == min(reach, default=math.inf)


def test_accepted_predictions_are_counted():
    """One of two masks is accepted, and two of three absences."""
    confident = np.array([[0.9], [0.4], [0.9], [0.9], [0.1]])
    counts = np.array([[(8, 10, 9)], [(0, 5, 0)], [(0, 0, 0)], [(0, 0, 7)], [(0, 0, 0)]])

    (counted,) = count_accepted(confident, counts, ConfidenceThresholds((0.5,), (0.5,)))

    assert (counted.masks, counted.masks_trusted, counted.precision) == (2, 1, 0.8)
    assert (counted.absences, counted.absences_trusted, counted.absences_right) == (3, 2, 0.5)


def test_masks_of_a_class_that_was_never_found_are_never_accepted():
    """Its precision is undefined."""
    confident = np.array([[0.9], [0.8]])
    counts = np.array([count_pixels(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 2), bool))] * 2)

    thresholds = choose_thresholds(confident, counts, precision=0.9)
    (counted,) = count_accepted(confident, counts, thresholds)

    assert thresholds == ConfidenceThresholds(found=(math.inf,), absent=(0.8,))
    assert math.isnan(counted.precision)
