import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from steelseg.scoring.best_threshold_dice import (
    LEVELS,
    BestThresholdDice,
    minimum_areas,
)
from steelseg.scoring.metrics import count_pixels, score


def best_dice(strips):
    counter = BestThresholdDice()
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
    assert best_dice(strips) == pytest.approx(brute_force(strips))


def test_an_epoch_that_finds_more_wins_over_one_that_predicts_nothing():
    """At threshold 0.5 both have the Dice of empty masks, three clean strips of four."""
    truth = np.zeros((4, 1, 4, 8), bool)
    truth[0, :, 1:3, 2:6] = True
    silent = np.full((4, 1, 4, 8), 20, np.uint8)
    knows = np.where(truth, 80, 20).astype(np.uint8)

    assert best_dice(list(zip(silent, truth, strict=True))) == 0.75
    assert best_dice(list(zip(knows, truth, strict=True))) == 1
    at_half = [count_pixels(p >= 128, t) for p, t in zip(knows, truth, strict=True)]
    assert score(np.stack(at_half)).overall.dice == 0.75


def draw_strips(count, seed=0):
    """Predictions that are brighter where the truth is, of two classes; some strips are clean."""
    random = np.random.default_rng(seed)
    for number in range(count):
        truth_chw = (random.random((2, 8, 8)) < 0.3) & (number % 3 > 0)
        noise_chw = random.integers(0, 150, (2, 8, 8))
        yield (noise_chw + 100 * truth_chw).astype(np.uint8), truth_chw


def test_every_strip_is_counted_with_the_best_settings_of_the_other_inner_folds():
    """By brute force over masks."""
    strips, fold_n = list(draw_strips(9)), np.arange(9) % 3
    counter = BestThresholdDice()
    for strip in strips:
        counter.add(*strip)

    counts_nc3 = counter.cross_fitted(fold_n)

    def count(level, area, chosen):
        masks = [strips[n][0] >= level for n in chosen]
        kept = [m & (m.sum(axis=(1, 2), keepdims=True) >= area) for m in masks]
        truths = (strips[n][1] for n in chosen)
        return np.stack([count_pixels(*pair) for pair in zip(kept, truths, strict=True)])

    settings = [(level, area) for level in LEVELS for area in minimum_areas(64)]
    for fold in range(3):
        own, others = np.flatnonzero(fold_n == fold), np.flatnonzero(fold_n != fold)
        for channel in (0, 1):
            dices = [
                score(count(*s, others)[:, channel : channel + 1]).overall.dice for s in settings
            ]
            best = [s for s, d in zip(settings, dices, strict=True) if d >= max(dices) - 1e-9]
            allowed = [count(*s, own)[:, channel].tolist() for s in best]
            assert counts_nc3[own, channel].tolist() in allowed


def test_of_equally_good_thresholds_the_middle_one_is_chosen():
    """A network that is certain of everything gives no reason to choose an extreme one."""
    counter = BestThresholdDice()
    truth_chw = np.zeros((1, 4, 4), bool)
    truth_chw[0, :2] = True
    for certain in (True, True, False):
        probs_chw = np.where(truth_chw, 255 if certain else 130, 0 if certain else 120).astype(
            np.uint8
        )
        counter.add(probs_chw, truth_chw)

    counts_nc3 = counter.cross_fitted(np.array([0, 1, 2]))

    assert counts_nc3[2, 0].tolist() == [8, 8, 8]
