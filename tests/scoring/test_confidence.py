"""What is trusted of what networks say, against counting by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.scoring.confidence import Trust, agreement, choose_trust, judge_trust, sureness
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


def test_sureness_is_the_mean_inside_a_mask_and_the_lack_of_suspicion_without():
    """Class 1 has a mask of 0.8 and 1; class 2 has none, and a block of 0.4."""
    probs_chw = np.zeros((2, 16, 16), np.uint8)
    probs_chw[0, :2] = [[204], [255]]
    probs_chw[1, :8, :8] = 102
    mask_chw = probs_chw > 127

    np.testing.assert_allclose(sureness(probs_chw, mask_chw), [0.9, 0.6])


def test_trust_asks_by_what_is_seen():
    """A class with a mask must be sure of it, one without of its absence."""
    trust = Trust(found=(0.9, 0.8), absent=(0.5, 0.6))

    np.testing.assert_array_equal(trust.least(np.array([True, False])), [0.9, 0.6])


def figures(sure, counts, least):
    """Precision of the masks and rightness of the absences from `least` on, counted by hand."""
    masks = [c for s, c in zip(sure, counts, strict=True) if c[1] and s >= least]
    absences = [c for s, c in zip(sure, counts, strict=True) if not c[1] and s >= least]
    pixels = sum(c[1] for c in masks)
    return (
        sum(c[0] for c in masks) / pixels if pixels else None,
        sum(not c[2] for c in absences) / len(absences) if absences else None,
    )


rows = st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.integers(0, 9), st.integers(0, 9))


@given(st.lists(rows, min_size=1, max_size=25), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_the_lowest_sureness_is_chosen_that_is_right_often_enough(strips, precision):
    """No lower one among those that occur would be, and where none is, nothing is trusted."""
    sure = np.array([[s] for s, _, _ in strips])
    counts = np.array([[(min(p, t), p, t)] for _, p, t in strips])

    trust = choose_trust(sure, counts, precision=precision)

    for chosen, kind in ((trust.found[0], 0), (trust.absent[0], 1)):
        own = [s for s, p, _ in strips if (p > 0) == (kind == 0)]
        reach = [s for s in own if figures(sure[:, 0], counts[:, 0], s)[kind] >= precision]
        assert chosen == min(reach, default=math.inf)


def test_what_is_kept_is_told():
    """One of two masks is trusted, and of three absences the two that are sure."""
    sure = np.array([[0.9], [0.4], [0.9], [0.9], [0.1]])
    counts = np.array([[(8, 10, 9)], [(0, 5, 0)], [(0, 0, 0)], [(0, 0, 7)], [(0, 0, 0)]])

    (told,) = judge_trust(sure, counts, Trust((0.5,), (0.5,)))

    assert (told.masks, told.masks_trusted, told.precision) == (2, 1, 0.8)
    assert (told.absences, told.absences_trusted, told.absences_right) == (3, 2, 0.5)


def test_a_class_that_was_never_found_is_never_trusted_where_it_is():
    """And its figures say that there is nothing to divide by."""
    sure = np.array([[0.9], [0.8]])
    counts = np.array([count_pixels(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 2), bool))] * 2)

    trust = choose_trust(sure, counts, precision=0.9)
    (told,) = judge_trust(sure, counts, trust)

    assert trust == Trust(found=(math.inf,), absent=(0.8,))
    assert math.isnan(told.precision)
