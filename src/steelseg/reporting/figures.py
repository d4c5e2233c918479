"""Which charts the page shows, made from the facts of a run.

One chart has one message. Folds share a chart, told apart by colour; classes get a chart each,
so that twelve of them stay readable.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from steelseg.reporting.charts import Range, Series, heat_map, line_chart, range_chart
from steelseg.reporting.dataset import ClassStatistics
from steelseg.reporting.facts import Chosen, History, ScoreRow
from steelseg.reporting.scales import Axis, Value

_STYLES = 8
_MOST_POINTS = 60
_EPOCH = Axis("epoch", is_whole=True)


def fold_style(place: int) -> str:
    """Style class of the n-th trained fold."""
    return f"s{place % _STYLES}"


def loss_chart(histories: Sequence[History]) -> Markup:
    """Validation loss, and training loss thin beside it."""
    lines = [
        _line(history, name, f"{fold_style(place)} {style}", title)
        for name, style, title in (
            ("train_loss", "faint", "training loss"),
            ("val_loss", "", "validation loss"),
        )
        for place, history in enumerate(histories)
    ]
    return line_chart(lines, x=_EPOCH, y=Axis("loss"), title="Loss by epoch")


def dice_chart(histories: Sequence[History]) -> Markup:
    """Validation Dice with the epoch that was kept, above what empty masks score."""
    levels = sorted({round(h.all_empty, 6) for h in histories if h.all_empty is not None})
    ends = [float(min(h.epochs[0] for h in histories)), float(max(h.epochs[-1] for h in histories))]
    empty = [Series([(end, level) for end in ends], "reference dashed") for level in levels]
    lines = [_line(h, "val_dice", fold_style(n), "Dice") for n, h in enumerate(histories)]
    kept = [
        Series(
            [(h.epochs[h.best], h.columns["val_dice"][h.best])],
            fold_style(n),
            [f"fold {h.fold}: the best epoch, {h.epochs[h.best]}, is kept"],
            has_dots=True,
        )
        for n, h in enumerate(histories)
    ]
    title = "Validation Dice by epoch"
    return line_chart([*empty, *lines, *kept], x=_EPOCH, y=Axis("Dice"), title=title)


def history_chart(histories: Sequence[History], column: str, y: Axis) -> Markup:
    """One column of history.csv."""
    lines = [_line(h, column, fold_style(n), y.label) for n, h in enumerate(histories)]
    return line_chart(lines, x=_EPOCH, y=y, title=f"{y.label} by epoch")


def _line(history: History, column: str, style: str, title: str) -> Series:
    """One column of one fold."""
    values = history.columns[column]
    notes = [
        f"fold {history.fold}, epoch {epoch}: {title} {'-' if value is None else f'{value:.4g}'}"
        for epoch, value in zip(history.epochs, values, strict=True)
    ]
    return Series(list(zip(history.epochs, values, strict=True)), style.strip(), notes)


def interval_chart(rows: Sequence[ScoreRow], figure: str, x: Axis) -> Markup:
    """A figure of every class with its interval; of the Dice also what empty masks score."""
    ranges = [_interval(row, figure, x.label) for row in rows]
    return range_chart(ranges, x=x, title=f"{x.label} with 95 % intervals")


def _interval(row: ScoreRow, figure: str, label: str) -> Range:
    """One class."""
    value, (low, high) = row.figures[figure], row.bounds[figure] or (None, None)
    mark = row.empty if figure == "dice" else None
    note = f"{row.name}: {label} {_decimal(value)} [{_decimal(low)}, {_decimal(high)}]"
    if mark is not None:
        note += f"; all empty {_decimal(mark)}"
    return Range(row.name, low, high, value, mark=mark, note=note)


def _share(label: str) -> Axis:
    """An axis from 0 to 1."""
    return Axis(label, low=0.0, high=1.0)


def _decimal(value: Value) -> str:
    """Four decimals, or a dash."""
    return "-" if value is None else f"{value:.4f}"


def area_chart(classes: Sequence[ClassStatistics]) -> Markup:
    """Size of the masks of each class, from the smallest to the largest."""
    rows = [
        Range(c.name, None, None, None, note=f"{c.name}: no mask")
        if c.areas is None
        else Range(
            c.name,
            c.areas[0],
            c.areas[4],
            c.areas[2],
            box=(c.areas[1], c.areas[3]),
            note=f"{c.name}: {c.areas[0]:,.0f} to {c.areas[4]:,.0f} px, half of them "
            f"{c.areas[1]:,.0f} to {c.areas[3]:,.0f} px, median {c.areas[2]:,.0f} px",
        )
        for c in classes
    ]
    x = Axis("pixels of a strip's mask, logarithmic", is_log=True)
    return range_chart(rows, x=x, title="Area of masks by class")


def precision_recall_chart(curve: Mapping[str, Any], name: str) -> Markup:
    """Pixel precision against recall over all thresholds."""
    line = Series(list(zip(curve["recall"], curve["precision"], strict=True)), "ink")
    return line_chart(
        [line],
        x=_share("recall of pixels"),
        y=_share("precision of pixels"),
        title=f"Precision and recall of {name}",
    )


def calibration_chart(calibration: Mapping[str, Any], name: str) -> Markup:
    """Observed share of defect pixels against predicted probability."""
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
    """Dice over threshold and min_size; None where the settings fix both."""
    table = chosen.landscape
    thresholds, min_sizes = table["thresholds"], table["min_sizes"]
    if len(thresholds) * len(min_sizes) < 2:
        return None
    place = None
    at = chosen.settings["threshold"], chosen.settings["min_size"]
    if at[0] in thresholds and at[1] in min_sizes:
        place = thresholds.index(at[0]), min_sizes.index(at[1])
    return heat_map(
        table["dice"],
        columns=[f"{threshold:.2f}" for threshold in thresholds],
        rows=[f"{min_size:,}" for min_size in min_sizes],
        labels=("threshold", "min_size, px"),
        chosen=place,
        title=f"Dice of {chosen.name} over threshold and min_size",
    )


def frontier_chart(chosen: Chosen) -> Markup | None:
    """Strips found against false alarms; None without a defect to find."""
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
    """Place of an outcome."""
    return float(outcome["false_alarms"]), outcome["found"] / outcome["positives"]


def _operating_note(point: Mapping[str, Any]) -> str:
    """An operating point in words."""
    return (
        f"{point['found']}/{point['positives']} found, {point['false_alarms']} false alarms: "
        f"threshold {point['threshold']:.2f}, top_threshold {point['top_threshold']:.2f}, "
        f"min_size {point['min_size']}, min_area {point['min_area']}"
    )


def thin(points: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Take at most so many points, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(k * (len(points) - 1) / (most - 1))] for k in range(most)]
