import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from steelseg.scoring.metrics import (
    all_empty,
    count_pixels,
    dice,
    flatten,
    never_found,
    score,
    table,
)

FIGURES = [
    "dice",
    "dice_positive",
    "dice_negative",
    "iou",
    "precision",
    "recall",
    "presence_accuracy",
    "presence_f1",
    "image_recall",
    "false_alarm_rate",
    "pairs",
    "positives",
    "misses",
    "false_alarms",
]

# Two images, two classes. Class 1: a defect half found, and a clean image left clean.
# Class 2: a defect missed, and a false alarm of 3 pixels.
TWO_BY_TWO = np.array([[[2, 3, 5], [0, 0, 4]], [[0, 0, 0], [0, 3, 0]]])


@st.composite
def mask_pairs(draw):
    """Draw predictions and truths of a few images, shapes (N, C, H, W), many masks empty."""
    shape = tuple(draw(st.integers(1, largest)) for largest in (4, 3, 3, 3))
    pair = []
    for _ in range(2):
        masks_nchw = draw(npst.arrays(np.bool_, shape))
        is_there = draw(npst.arrays(np.bool_, shape[:2]))
        pair.append(masks_nchw & is_there[:, :, None, None])
    return pair


def pixel_sets(masks_nchw, channels):
    """List the pixels of each pair as a set, by looking at every pixel."""
    _, _, height, width = masks_nchw.shape
    return [
        {(y, x) for y in range(height) for x in range(width) if masks_hw[y, x]}
        for masks_chw in masks_nchw
        for masks_hw in masks_chw[channels]
    ]


def oracle(preds, truths):
    """Compute every figure from sets of pixels, pair by pair, in the slowest way."""

    def share(wins):
        return sum(wins) / len(wins) if wins else math.nan

    def pair_dice(pred, truth):
        return 1.0 if not pred and not truth else 2 * len(pred & truth) / (len(pred) + len(truth))

    pairs = list(zip(preds, truths, strict=True))
    positive = [(p, t) for p, t in pairs if t]
    negative = [(p, t) for p, t in pairs if not t]
    either = [(p, t) for p, t in pairs if p or t]
    true_positive = sum(1 for p, t in pairs if p and t)
    wrong = sum(1 for p, t in pairs if bool(p) != bool(t))
    return {
        "dice": share([pair_dice(p, t) for p, t in pairs]),
        "dice_positive": share([pair_dice(p, t) for p, t in positive]),
        "dice_negative": share([pair_dice(p, t) for p, t in negative]),
        "iou": share([pixel in p and pixel in t for p, t in pairs for pixel in p | t]),
        "precision": share([pixel in t for p, t in pairs for pixel in p]),
        "recall": share([pixel in p for p, t in pairs for pixel in t]),
        "presence_accuracy": share([bool(p) == bool(t) for p, t in pairs]),
        "presence_f1": true_positive / (true_positive + wrong / 2) if either else math.nan,
        "image_recall": share([bool(p) for p, _ in positive]),
        "false_alarm_rate": share([bool(p) for p, _ in negative]),
        "pairs": len(pairs),
        "positives": len(positive),
        "misses": sum(1 for p, _ in positive if not p),
        "false_alarms": sum(1 for p, _ in negative if p),
    }


def count_all(preds_nchw, truths_nchw):
    """Stack the counts of several images."""
    return np.stack([count_pixels(p, t) for p, t in zip(preds_nchw, truths_nchw, strict=True)])


def test_pixels_are_counted_as_intersection_prediction_truth():
    """The order of the three counts is the contract between count_pixels and score."""
    pred_chw = np.array([[[1, 1, 1, 0]], [[0, 0, 0, 0]]], dtype=bool)
    truth_chw = np.array([[[0, 1, 1, 1]], [[1, 0, 0, 0]]], dtype=bool)

    assert count_pixels(pred_chw, truth_chw).tolist() == [[2, 3, 3], [0, 0, 1]]


def test_the_memory_order_of_a_mask_does_not_matter():
    """Masks drawn from RLE are column-major, masks from a model row-major."""
    rng = np.random.default_rng(0)
    pred_chw, truth_chw = rng.random((2, 3, 8, 20)) < 0.5
    column_major = np.ascontiguousarray(truth_chw.transpose(0, 2, 1)).transpose(0, 2, 1)

    np.testing.assert_array_equal(
        count_pixels(pred_chw, column_major), count_pixels(pred_chw, truth_chw)
    )


def test_dice_of_single_pairs():
    """The competition's four cases: half found, both empty, missed, false alarm."""
    counts = np.array([[2, 3, 5], [0, 0, 0], [0, 0, 4], [0, 1, 0]])

    assert dice(counts).tolist() == [0.5, 1.0, 0.0, 0.0]
    assert dice(counts[0]).shape == ()


def test_figures_of_a_worked_example():
    """Every figure of two images and two classes, worked out by hand."""
    first, second = score(TWO_BY_TWO).per_class
    overall = score(TWO_BY_TWO).overall

    assert (first.dice, first.dice_positive, first.dice_negative) == (0.75, 0.5, 1.0)
    assert (first.iou, first.precision, first.recall) == (2 / 6, 2 / 3, 2 / 5)
    assert (first.presence_accuracy, first.presence_f1) == (1.0, 1.0)
    assert (first.image_recall, first.false_alarm_rate) == (1.0, 0.0)
    assert (second.dice, second.dice_positive, second.dice_negative) == (0.0, 0.0, 0.0)
    assert (second.presence_accuracy, second.presence_f1) == (0.0, 0.0)
    assert (second.image_recall, second.false_alarm_rate) == (0.0, 1.0)
    assert (second.pairs, second.positives, second.misses, second.false_alarms) == (2, 1, 1, 1)
    assert (overall.dice, overall.dice_positive, overall.dice_negative) == (0.375, 0.25, 0.5)
    assert (overall.iou, overall.precision, overall.recall) == (2 / 13, 2 / 6, 2 / 9)
    assert (overall.presence_accuracy, overall.presence_f1) == (0.5, 0.5)


def test_an_undefined_figure_is_nan():
    """A class that is nowhere and never predicted has no recall, not a perfect or a zero one."""
    row = flatten(score(np.zeros((3, 1, 3), dtype=np.int64)), prefix="")
    undefined = {name for name in FIGURES if math.isnan(row[name])}

    assert undefined == {
        "dice_positive",
        "iou",
        "precision",
        "recall",
        "presence_f1",
        "image_recall",
    }
    assert (row["dice"], row["presence_accuracy"], row["false_alarm_rate"]) == (1.0, 1.0, 0.0)


def test_a_class_on_every_image_has_no_false_alarm_rate():
    """Without a negative pair there is nothing a false alarm could be a share of."""
    figures = score(np.array([[[0, 0, 4]]])).overall

    assert math.isnan(figures.false_alarm_rate)
    assert math.isnan(figures.dice_negative)
    assert figures.presence_f1 == 0.0


def test_no_image_gives_nan_and_no_warning():
    """An empty validation fold is odd, yet its figures are undefined rather than a crash."""
    row = flatten(score(np.zeros((0, 2, 3), dtype=np.int64)))

    assert all(math.isnan(value) or value == 0 for value in row.values())
    assert math.isnan(row["val_dice"])


@settings(deadline=None, max_examples=150)
@given(mask_pairs())
def test_scores_match_sets_of_pixels(pair):
    """The oracle shares no line with the module and looks at every pixel by itself."""
    preds_nchw, truths_nchw = pair

    row = flatten(score(count_all(preds_nchw, truths_nchw)), prefix="")

    everything = slice(None)
    expected = oracle(pixel_sets(preds_nchw, everything), pixel_sets(truths_nchw, everything))
    for channel in range(preds_nchw.shape[1]):
        one = slice(channel, channel + 1)
        figures = oracle(pixel_sets(preds_nchw, one), pixel_sets(truths_nchw, one))
        expected |= {f"{name}_{channel + 1}": value for name, value in figures.items()}
    assert row == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=50)
@given(mask_pairs())
def test_dice_does_not_care_which_side_is_the_truth(pair):
    """Dice is symmetric, and so are IoU and presence."""
    preds_nchw, truths_nchw = pair
    counts_nc3 = count_all(preds_nchw, truths_nchw)
    swapped_nc3 = count_all(truths_nchw, preds_nchw)
    ours, theirs = score(counts_nc3).overall, score(swapped_nc3).overall

    np.testing.assert_array_equal(dice(counts_nc3), dice(swapped_nc3))
    np.testing.assert_equal((ours.iou, ours.presence_f1), (theirs.iou, theirs.presence_f1))
    np.testing.assert_equal((ours.precision, ours.recall), (theirs.recall, theirs.precision))


@settings(deadline=None, max_examples=50)
@given(mask_pairs())
def test_a_perfect_prediction_has_no_figure_between(pair):
    """Predicting the truth scores 1 wherever a figure is defined, with nothing missed."""
    _, truths_nchw = pair
    row = flatten(score(count_all(truths_nchw, truths_nchw)), prefix="")

    for name in FIGURES[:9]:
        assert math.isnan(row[name]) or row[name] == 1.0
    assert (row["dice"], row["misses"], row["false_alarms"]) == (1.0, 0, 0)


@settings(deadline=None, max_examples=50)
@given(mask_pairs())
def test_all_empty_scores_the_share_of_empty_pairs(pair):
    """Each empty truth gives 1 and every other 0, whatever was predicted."""
    preds_nchw, truths_nchw = pair

    empty = all_empty(count_all(preds_nchw, truths_nchw))

    expected = score(count_all(np.zeros_like(preds_nchw), truths_nchw))
    np.testing.assert_equal(flatten(empty), flatten(expected))
    assert empty.overall.dice == pytest.approx(1 - truths_nchw.any(axis=(2, 3)).mean())


@settings(deadline=None, max_examples=50)
@given(mask_pairs())
def test_reordering_the_classes_reorders_their_scores(pair):
    """No class is special, and the overall figures do not see the order."""
    counts_nc3 = count_all(*pair)
    ours, flipped = score(counts_nc3), score(counts_nc3[:, ::-1])

    np.testing.assert_equal(
        [asdict(figures) for figures in flipped.per_class[::-1]],
        [asdict(figures) for figures in ours.per_class],
    )
    assert flatten(flipped)["val_dice"] == pytest.approx(ours.overall.dice)
    np.testing.assert_equal(flipped.overall.iou, ours.overall.iou)


def test_an_all_empty_submission_scores_0_8589_on_severstal():
    """The known floor of the competition: 12,568 images, 7,095 of 50,272 pairs with a mask."""
    counts_nc3 = np.zeros((12_568, 4, 3), dtype=np.int64)
    for channel, positives in enumerate([897, 247, 5150, 801]):
        counts_nc3[:positives, channel] = 1000

    scores = all_empty(counts_nc3)

    assert (scores.overall.pairs, scores.overall.positives) == (50_272, 7_095)
    assert round(scores.overall.dice, 4) == 0.8589
    assert scores.overall.image_recall == 0.0
    assert never_found(scores) == [1, 2, 3, 4]
    assert never_found(score(counts_nc3)) == []


def test_a_class_without_positives_is_not_called_never_found():
    """There was nothing to find, so the warning would be wrong."""
    counts_nc3 = np.array([[[0, 0, 4], [0, 0, 0], [1, 1, 1]], [[0, 2, 0], [0, 0, 0], [0, 0, 1]]])

    assert never_found(score(counts_nc3)) == [1]


def test_a_history_row_names_overall_figures_then_classes():
    """history.csv takes its columns from here: every class has every name."""
    row = flatten(score(TWO_BY_TWO))

    expected = [f"val_{name}{tail}" for tail in ("", "_1", "_2") for name in FIGURES]
    assert list(row) == expected
    assert (row["val_dice"], row["val_dice_1"], row["val_misses_2"]) == (0.375, 0.75, 1)
    assert next(iter(flatten(score(TWO_BY_TWO), prefix=""))) == "dice"


def test_the_table_reads_like_this():
    """Console and log show these cells; an undefined figure is a dash."""
    counts_nc3 = np.concatenate([TWO_BY_TWO, np.zeros((2, 1, 3), dtype=np.int64)], axis=1)

    lines = table(score(counts_nc3), ["dent", "pitted_surface", "clean"]).splitlines()

    assert [" ".join(line.split()) for line in lines] == [
        "class dice empty dice+ dice- IoU precision recall presence F1 found false alarms",
        "dent 0.7500 0.5000 0.5000 1.0000 0.3333 0.6667 0.4000 1.0000 1.0000 1/1 0/1",
        "pitted_su... 0.0000 0.5000 0.0000 0.0000 0.0000 0.0000 0.0000 0.0000 0.0000 0/1 1/1",
        "clean 1.0000 1.0000 - 1.0000 - - - 1.0000 - - 0/2",
        "all 0.5833 0.6667 0.2500 0.7500 0.1538 0.3333 0.2222 0.6667 0.5000 1/2 1/4",
    ]


def test_the_table_is_aligned_and_fits_a_terminal():
    """Severstal's counts with its usual class names stays within 112 columns."""
    counts_nc3 = np.ones((12_568, 4, 3), dtype=np.int64)
    counts_nc3[5_150:, :, [0, 2]] = 0

    lines = table(score(counts_nc3), ["class 1", "class 2", "class 3", "class 4"]).splitlines()

    assert len(lines) == 6
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 112


@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 5, 4)])
def test_masks_of_different_shapes_are_refused(shape):
    """Numpy would broadcast one class over two; a wrong shape is a bug of ours."""
    with pytest.raises(AssertionError):
        count_pixels(np.zeros((2, 4, 5), dtype=bool), np.zeros(shape, dtype=bool))


def test_probabilities_are_not_taken_for_masks():
    """np.count_nonzero would count a probability of 0.01 as a pixel."""
    with pytest.raises(AssertionError, match="float32"):
        count_pixels(np.zeros((2, 4, 5), dtype=np.float32), np.zeros((2, 4, 5), dtype=bool))


@pytest.mark.parametrize("shape", [(4, 3), (5, 4, 2)])
def test_counts_of_another_shape_are_refused(shape):
    """The counts of one image alone would be read as classes of nothing."""
    with pytest.raises(AssertionError):
        score(np.zeros(shape, dtype=np.int64))


def test_a_name_too_few_is_refused():
    """A table whose rows slipped by one class would mislead without a sign."""
    with pytest.raises(ValueError, match="zip"):
        table(score(TWO_BY_TWO), ["dent"])
