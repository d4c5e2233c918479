"""The charts of the report, made from the facts of a run.

Folds share a chart and differ in colour; each class has its own chart, so that twelve classes stay
readable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from steelseg.reporting.charts import Series, heat_map, line_chart
from steelseg.reporting.facts import Chosen, Evaluation, History, Tuning
from steelseg.reporting.page import fold_style, number
from steelseg.reporting.scales import Axis, Value

_MOST_POINTS = 60
_EPOCH = Axis("epoch", is_whole=True)


@dataclass(frozen=True)
class Chart:
    """A chart with its caption."""

    title: str
    note: str
    svg: Markup
    channel: int | None = None
    """Channel of the class that it shows; None if it shows several."""


def training_charts(histories: Sequence[History]) -> list[Chart]:
    """Draw losses, scores and learning rate by epoch."""
    on_defects = Axis("Dice on defects", low=0)
    rate = Axis("learning rate", is_log=True)
    return [
        Chart("Loss", "validation; training dotted", loss_chart(histories)),
        Chart("Validation Dice", "the dot is the best epoch", dice_chart(histories)),
        Chart(
            "Dice on defects",
            "of held-out strips",
            history_chart(histories, "val_dice_positive", on_defects),
        ),
        Chart(
            "Learning rate",
            "at the start of the epoch",
            history_chart(histories, "learning_rate", rate),
        ),
    ]


def precision_recall_charts(evaluation: Evaluation) -> list[Chart]:
    """Draw one precision-recall curve per class."""
    return [
        Chart(
            row.name,
            f"average precision {number(detail['precision_recall']['average_precision'])}",
            precision_recall_chart(detail["precision_recall"], row.name),
            row.channel,
        )
        for row, detail in zip(evaluation.classes, evaluation.details, strict=True)
    ]


def calibration_charts(evaluation: Evaluation) -> list[Chart]:
    """Draw one calibration curve per class."""
    return [
        Chart(
            row.name,
            f"expected calibration error {number(detail['calibration']['error'])}",
            calibration_chart(detail["calibration"], row.name),
            row.channel,
        )
        for row, detail in zip(evaluation.classes, evaluation.details, strict=True)
    ]


def landscape_charts(tuning: Tuning) -> list[Chart]:
    """Draw the grid search of each class that has one."""
    charts = [(one, landscape_chart(one)) for one in tuning.classes]
    return [
        Chart(
            one.name,
            f"chosen: threshold {one.settings['threshold']:.2f}, "
            f"min_size {one.settings['min_size']:,.0f} px",
            svg,
            one.channel,
        )
        for one, svg in charts
        if svg is not None
    ]


def frontier_charts(tuning: Tuning) -> list[Chart]:
    """Draw the operating points of each class that has defects."""
    charts = [(one, frontier_chart(one)) for one in tuning.classes]
    return [
        Chart(one.name, "share found against false alarms", svg, one.channel)
        for one, svg in charts
        if svg is not None
    ]


def loss_chart(histories: Sequence[History]) -> Markup:
    """Draw validation loss and, dotted, training loss."""
    lines = [
        _line(history, name, f"{fold_style(index)} {style}", title)
        for name, style, title in (
            ("train_loss", "faint", "training loss"),
            ("val_loss", "", "validation loss"),
        )
        for index, history in enumerate(histories)
    ]
    return line_chart(lines, x=_EPOCH, y=Axis("loss"), title="Loss by epoch")


def dice_chart(histories: Sequence[History]) -> Markup:
    """Draw validation Dice with the best epoch and the Dice of empty masks."""
    levels = sorted({round(h.all_empty, 6) for h in histories if h.all_empty is not None})
    ends = [float(min(h.epochs[0] for h in histories)), float(max(h.epochs[-1] for h in histories))]
    empty = [Series([(end, level) for end in ends], "reference dashed") for level in levels]
    lines = [_line(h, "val_dice", fold_style(n), "Dice") for n, h in enumerate(histories)]
    kept = [
        Series(
            [(h.epochs[h.best], h.columns["val_dice"][h.best])],
            fold_style(n),
            [f"fold {h.fold}: best epoch {h.epochs[h.best]}"],
            has_dots=True,
        )
        for n, h in enumerate(histories)
    ]
    title = "Validation Dice by epoch"
    return line_chart([*empty, *lines, *kept], x=_EPOCH, y=Axis("Dice"), title=title)


def history_chart(histories: Sequence[History], column: str, y: Axis) -> Markup:
    """Draw one column of history.csv."""
    lines = [_line(h, column, fold_style(n), y.label) for n, h in enumerate(histories)]
    return line_chart(lines, x=_EPOCH, y=y, title=f"{y.label} by epoch")


def _line(history: History, column: str, style: str, title: str) -> Series:
    """Make the line of one column and fold."""
    values = history.columns[column]
    notes = [
        f"fold {history.fold}, epoch {epoch}: {title} {'-' if value is None else f'{value:.4g}'}"
        for epoch, value in zip(history.epochs, values, strict=True)
    ]
    return Series(list(zip(history.epochs, values, strict=True)), style.strip(), notes)


def _share(label: str) -> Axis:
    """Make an axis from 0 to 1."""
    return Axis(label, low=0.0, high=1.0)


def precision_recall_chart(curve: Mapping[str, Any], name: str) -> Markup:
    """Draw pixel precision against recall over all thresholds."""
    line = Series(list(zip(curve["recall"], curve["precision"], strict=True)), "ink")
    return line_chart(
        [line],
        x=_share("recall of pixels"),
        y=_share("precision of pixels"),
        title=f"Precision and recall of {name}",
    )


def calibration_chart(calibration: Mapping[str, Any], name: str) -> Markup:
    """Draw the observed share of defect pixels against the predicted probability."""
    bins = calibration["bins"]
    notes = [
        f"predicted {b['predicted']:.3f}, observed {b['observed']:.3f}, {b['pixels']:,} px"
        for b in bins
    ]
    points = [(b["predicted"], b["observed"]) for b in bins]
    line = Series(points, "ink", notes, has_dots=True)
    return line_chart(
        [Series([(0.0, 0.0), (1.0, 1.0)], "reference dashed"), line],
        x=_share("predicted probability"),
        y=_share("share that is defect"),
        title=f"Calibration of {name}",
    )


def landscape_chart(chosen: Chosen) -> Markup | None:
    """Draw Dice over threshold and min_size; None if the settings fix both."""
    table = chosen.landscape
    thresholds, min_sizes = table["thresholds"], table["min_sizes"]
    if len(thresholds) * len(min_sizes) < 2:
        return None
    index = None
    at = chosen.settings["threshold"], chosen.settings["min_size"]
    if at[0] in thresholds and at[1] in min_sizes:
        index = thresholds.index(at[0]), min_sizes.index(at[1])
    return heat_map(
        table["dice"],
        columns=[f"{threshold:.2f}" for threshold in thresholds],
        rows=[f"{min_size:,}" for min_size in min_sizes],
        labels=("threshold", "min_size, px"),
        chosen=index,
        title=f"Dice of {chosen.name} over threshold and min_size",
    )


def frontier_chart(chosen: Chosen) -> Markup | None:
    """Draw strips found against false alarms; None without defects."""
    points = thin(chosen.operating_points, _MOST_POINTS)
    if not points or not chosen.scores["naive"]["positives"]:
        return None
    places = [_alarms_and_share(point) for point in points]
    stairs = places[:1]
    for alarms, share in places[1:]:
        stairs += [(alarms, stairs[-1][1]), (alarms, share)]
    notes = [_operating_note(point) for point in points]
    here = _alarms_and_share(chosen.scores["naive"])
    negatives = chosen.scores["naive"]["negatives"]
    return line_chart(
        [
            Series(stairs, "ink"),
            Series(places, "ink bare", notes, has_dots=True),
            Series([here], "ring", ["chosen"], has_dots=True),
        ],
        x=Axis(f"false alarms, of {negatives:,} strips without", low=0.0, is_whole=True),
        y=_share("share found"),
        title=f"Strips of {chosen.name} found against false alarms",
    )


def _alarms_and_share(outcome: Mapping[str, Any]) -> tuple[float, Value]:
    """Return the point of an outcome."""
    return float(outcome["false_alarms"]), outcome["found"] / outcome["positives"]


def _operating_note(point: Mapping[str, Any]) -> str:
    """Describe an operating point."""
    return (
        f"{point['found']}/{point['positives']} found, {point['false_alarms']} false alarms: "
        f"threshold {point['threshold']:.2f}, top_threshold {point['top_threshold']:.2f}, "
        f"min_size {point['min_size']}, min_area {point['min_area']}"
    )


def thin(points: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Return at most `most` points, evenly spaced, including the first and the last."""
    if len(points) <= most:
        return list(points)
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]
