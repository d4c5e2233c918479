import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from steelseg.scoring.best_threshold_dice import SweptDice
from steelseg.scoring.metrics import count_pixels, score


def swept(strips):
    counter = SweptDice()
    for probs_chw, truth_chw in strips:
        counter.add(probs_chw, truth_chw)
    return counter.result()


def brute_force(strips):
    """Every threshold and every area, a class at a time, by masks."""
    pixels = max(probs_chw[0].size for probs_chw, _ in strips)
    areas = [1.0, *(pixels / 2**14 * 2 ** (k / 2) for k in range(22))]
    best = []
    for channel in range(len(strips[0][0])):
        dices = []
        for level in range(5, 256, 5):
            for area in areas:
                counts = []
                for probs_chw, truth_chw in strips:
                    mask_hw = probs_chw[channel] >= level
                    mask_hw = mask_hw & (np.count_nonzero(mask_hw) >= area)
                    counts.append(count_pixels(mask_hw[None], truth_chw[channel : channel + 1]))
                dices.append(score(np.stack(counts)).overall.dice)
        best.append(max(dices))
    return np.mean(best)


@st.composite
def strip(draw):
    shape = 2, draw(st.integers(1, 4)), draw(st.integers(1, 5))
    levels = st.sampled_from([0, 4, 5, 90, 127, 128, 254, 255])
    probs_chw = draw(npst.arrays(np.uint8, shape, elements=levels))
    return probs_chw, draw(npst.arrays(np.bool_, shape)) & draw(st.booleans())


@given(st.lists(strip(), min_size=1, max_size=3))
def test_it_is_the_best_of_all_masks(strips):
    """By the competition's Dice, strips of several sizes and empty truths among them."""
    assert swept(strips) == pytest.approx(brute_force(strips))


def test_an_epoch_that_knows_more_wins_over_a_silent_one():
    """At threshold 0.5 both have the Dice of silence on three clean strips of four."""
    truth = np.zeros((4, 1, 4, 8), bool)
    truth[0, :, 1:3, 2:6] = True
    silent = np.full((4, 1, 4, 8), 20, np.uint8)
    knows = np.where(truth, 80, 20).astype(np.uint8)

    assert swept(list(zip(silent, truth, strict=True))) == 0.75
    assert swept(list(zip(knows, truth, strict=True))) == 1
    at_half = [count_pixels(p >= 128, t) for p, t in zip(knows, truth, strict=True)]
    assert score(np.stack(at_half)).overall.dice == 0.75
