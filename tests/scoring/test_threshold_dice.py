import numpy as np

from steelseg.scoring.best_threshold_dice import LEVELS, ThresholdDice, smallest_masks
from steelseg.scoring.metrics import count_pixels, score


def draw_strips(count, seed=0):
    """Predictions that are brighter where the truth is, of two classes; some strips are clean."""
    random = np.random.default_rng(seed)
    for number in range(count):
        truth_chw = (random.random((2, 8, 8)) < 0.3) & (number % 3 > 0)
        noise_chw = random.integers(0, 150, (2, 8, 8))
        yield (noise_chw + 100 * truth_chw).astype(np.uint8), truth_chw


def test_every_strip_is_counted_with_what_is_best_on_the_other_parts():
    """By brute force over masks."""
    strips, fold_n = list(draw_strips(9)), np.arange(9) % 3
    counter = ThresholdDice()
    for strip in strips:
        counter.add(*strip)

    counts_nc3 = counter.cross_fitted(fold_n)

    def count(level, area, chosen):
        masks = [strips[n][0] >= level for n in chosen]
        kept = [m & (m.sum(axis=(1, 2), keepdims=True) >= area) for m in masks]
        truths = (strips[n][1] for n in chosen)
        return np.stack([count_pixels(*pair) for pair in zip(kept, truths, strict=True)])

    settings = [(level, area) for level in LEVELS for area in smallest_masks(64)]
    for fold in range(3):
        own, others = np.flatnonzero(fold_n == fold), np.flatnonzero(fold_n != fold)
        for channel in (0, 1):
            dices = [
                score(count(*s, others)[:, channel : channel + 1]).overall.dice for s in settings
            ]
            best = [s for s, d in zip(settings, dices, strict=True) if d >= max(dices) - 1e-9]
            allowed = [count(*s, own)[:, channel].tolist() for s in best]
            assert counts_nc3[own, channel].tolist() in allowed


def test_of_thresholds_that_are_as_good_the_middle_is_taken():
    """A network that is sure of everything says nothing about the ends."""
    counter = ThresholdDice()
    truth_chw = np.zeros((1, 4, 4), bool)
    truth_chw[0, :2] = True
    for sure in (True, True, False):
        probs_chw = np.where(truth_chw, 255 if sure else 130, 0 if sure else 120).astype(np.uint8)
        counter.add(probs_chw, truth_chw)

    counts_nc3 = counter.cross_fitted(np.array([0, 1, 2]))

    assert counts_nc3[2, 0].tolist() == [8, 8, 8]
