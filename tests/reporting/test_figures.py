from xml.etree import ElementTree

import pytest

from steelseg.reporting.facts import Chosen, History
from steelseg.reporting.figures import (
    calibration_chart,
    dice_chart,
    frontier_chart,
    landscape_chart,
    loss_chart,
    precision_recall_chart,
    thin,
)


def history(fold, dices, *, positives=4.0):
    """A fold with a Dice an epoch."""
    losses = tuple(1 / (epoch + 1) for epoch in range(len(dices)))
    return History(
        fold,
        {
            "epoch": tuple(float(epoch + 1) for epoch in range(len(dices))),
            "train_loss": losses,
            "val_loss": losses,
            "val_dice": tuple(dices),
            "val_pairs": (16.0,) * len(dices),
            "val_positives": (positives,) * len(dices),
        },
    )


def elements(svg, style):
    """Elements whose class begins so."""
    root = ElementTree.fromstring(str(svg))
    return [one for one in root.iter() if one.get("class", "").startswith(style)]


def test_each_fold_has_a_line_and_a_dot_on_its_best_epoch():
    """Two folds of the same share of defects: one level of empty masks, dashed."""
    svg = dice_chart([history(0, [0.5, 0.9, 0.8]), history(1, [0.4, 0.6, 0.7])])

    assert len(elements(svg, "line s")) == 2
    assert len(elements(svg, "line reference dashed")) == 1
    assert [dot[0].text for dot in elements(svg, "dot s")] == [
        "fold 0: best epoch 2",
        "fold 1: best epoch 3",
    ]


def test_folds_with_other_shares_of_defects_have_other_levels():
    """Each Dice is above or below its own."""
    svg = dice_chart([history(0, [0.5, 0.9]), history(1, [0.4, 0.6], positives=8.0)])

    assert len(elements(svg, "line reference dashed")) == 2


def test_training_loss_is_drawn_beside_validation_loss():
    """In the colour of its fold, and under it."""
    svg = loss_chart([history(0, [0.5, 0.9])])

    assert [line.get("class") for line in elements(svg, "line s")] == ["line s0 faint", "line s0"]


def test_one_epoch_is_a_chart_too():
    """Points without a line."""
    for chart in (loss_chart, dice_chart):
        ElementTree.fromstring(str(chart([history(0, [0.5])])))


def test_a_class_that_is_not_there_has_no_curve():
    """Its precision has nothing to divide by."""
    empty = {"recall": [], "precision": [], "average_precision": None}

    assert "nothing to show" in precision_recall_chart(empty, "class 1")


def test_every_bin_is_a_point_of_the_calibration():
    """With its pixels in the tooltip."""
    bins = [
        {"predicted": 0.05, "observed": 0.0, "pixels": 1234},
        {"predicted": 0.95, "observed": 0.9, "pixels": 56},
    ]
    svg = calibration_chart({"bins": bins, "error": 0.01}, "class 1")

    assert [dot[0].text for dot in elements(svg, "dot ink")] == [
        "predicted 0.050, observed 0.000, 1,234 px",
        "predicted 0.950, observed 0.900, 56 px",
    ]


def chosen(*, thresholds=(0.4, 0.6), min_sizes=(0, 8), points=(), positives=4):
    """What was tuned for a class; threshold 0.6 and min_size 8."""
    dice = [
        [0.5 + 0.1 * k + 0.01 * s for s in range(len(min_sizes))] for k in range(len(thresholds))
    ]
    naive = {"found": positives // 2, "positives": positives, "false_alarms": 1, "negatives": 9}
    return Chosen(
        "class 1",
        0,
        {"threshold": 0.6, "min_size": 8, "min_area": 0, "top_threshold": 0.6},
        {},
        {"thresholds": list(thresholds), "min_sizes": list(min_sizes), "dice": dice},
        points,
        {"naive": naive},
    )


def test_the_landscape_rings_what_was_chosen():
    """Column 1, row 1 of a plot from (50, 190) to (346, 26)."""
    ring = elements(landscape_chart(chosen()), "ring")[0]

    assert (ring.get("cx"), ring.get("cy")) == ("272.0", "67.0")


def test_settings_that_were_fixed_have_no_landscape():
    """One combination is no landscape."""
    assert landscape_chart(chosen(thresholds=(0.6,), min_sizes=(8,))) is None


def point(found, false_alarms, *, positives=4):
    """An operating point."""
    settings = {"threshold": 0.5, "top_threshold": 0.5, "min_size": 0, "min_area": 0}
    return {"found": found, "false_alarms": false_alarms, "positives": positives, **settings}


def test_operating_points_are_stairs():
    """Between two points nothing more is found: 0 alarms find 1 of 4, 4 alarms find all."""
    svg = frontier_chart(chosen(points=[point(1, 0), point(4, 4)]))

    assert elements(svg, "line ink")[0].get("points") == "50,149 346,149 346,26"
    assert len(elements(svg, "dot ink")) == 2
    assert len(elements(svg, "dot ring")) == 1


@pytest.mark.parametrize("points", [[], [point(0, 0, positives=0)]])
def test_without_a_defect_there_is_nothing_to_find(points):
    """So there is no chart."""
    assert frontier_chart(chosen(points=points, positives=0)) is None


def test_thousands_of_points_are_thinned_and_keep_their_ends():
    """A class with five thousand strips has as many operating points."""
    assert thin(list(range(1000)), 3) == [0, 500, 999]
    assert thin([1, 2], 3) == [1, 2]
