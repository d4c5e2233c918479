"""Scores of predicted masks against the ground truth.

A *pair* is one class of one image. It is *positive* if its ground truth has a pixel, otherwise
*negative*. Every figure is computed from three pixel counts of each pair: intersection, prediction
and ground truth. So `count_pixels` reads the masks once, image by image, and `score` does not need
them.

An undefined figure (division by zero) is NaN, never 0 or 1: a class without a positive pair has no
recall. The only exception is the Dice of an empty prediction on an empty ground truth, which the
competition defines as 1.

Axes: n images, c classes, h height, w width, p pairs; a trailing 3 is the three counts.
No files, no torch, no thresholds: masks come from `postprocess`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

_COLUMNS = (
    "class",
    "dice",
    "empty",
    "dice+",
    "dice-",
    "IoU",
    "precision",
    "recall",
    "presence",
    "F1",
    "found",
    "false alarms",
)
_NAME_WIDTH = 12

# The terms that figures are computed from, summed over pairs; `dice` over positive ones only.
_TERMS = (
    "dice",
    "intersection",
    "predicted",
    "truth",
    "pairs",
    "positives",
    "found",
    "false_alarms",
)


@dataclass(frozen=True)
class _Ratio:
    """A figure's numerator and denominator, computed from the terms by name."""

    parts: Callable[[Mapping[str, NDArray[np.float64]]], tuple[Any, Any]]


@dataclass(frozen=True)
class Figures:
    """The figures of one class, or of all classes together.

    In the formulas I, P and T are the pixels of intersection, prediction and truth, summed
    over all pairs. A pair is *predicted* when its prediction has any pixel, wherever it lies.
    A new figure is a field here: history.csv, metrics.json, the intervals and `steelseg compare`
    take it from this class.
    """

    dice: Annotated[float, _Ratio(lambda t: (t["dice"] + t["left_empty"], t["pairs"]))]
    """Mean over all pairs of 2I / (P + T) of the pair, 1 if both are empty: the competition's."""

    dice_positive: Annotated[float, _Ratio(lambda t: (t["dice"], t["positives"]))]
    """Mean of the same over positive pairs."""

    dice_negative: Annotated[float, _Ratio(lambda t: (t["left_empty"], t["negatives"]))]
    """Mean of the same over negative pairs: the fraction that is left empty."""

    iou: Annotated[float, _Ratio(lambda t: (t["intersection"], t["union"]))]
    """I / (P + T - I)."""

    precision: Annotated[float, _Ratio(lambda t: (t["intersection"], t["predicted"]))]
    """I / P."""

    recall: Annotated[float, _Ratio(lambda t: (t["intersection"], t["truth"]))]
    """I / T."""

    presence_accuracy: Annotated[
        float, _Ratio(lambda t: (t["found"] + t["left_empty"], t["pairs"]))
    ]
    """Pairs that are positive and predicted, or neither / pairs."""

    presence_f1: Annotated[
        float,
        _Ratio(lambda t: (2 * t["found"], t["positives"] + t["found"] + t["false_alarms"])),
    ]
    """2 x (positive and predicted pairs) / (positive pairs + predicted pairs)."""

    image_recall: Annotated[float, _Ratio(lambda t: (t["found"], t["positives"]))]
    """Predicted pairs among the positive ones / positive pairs."""

    false_alarm_rate: Annotated[float, _Ratio(lambda t: (t["false_alarms"], t["negatives"]))]
    """Predicted pairs among the negative ones / negative pairs."""

    pairs: int
    """All pairs."""

    positives: int
    """Positive pairs."""

    misses: int
    """Positive pairs that are not predicted."""

    false_alarms: int
    """Negative pairs that are predicted."""


@dataclass(frozen=True)
class Scores:
    """The figures over all pairs, and those of each class in the order of the channels."""

    overall: Figures
    per_class: tuple[Figures, ...]


def count_pixels(pred_chw: NDArray[np.bool_], truth_chw: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the pixels of one image that figures are computed from.

    Args:
        pred_chw: Predicted masks, shape (C, H, W).
        truth_chw: Ground-truth masks, same shape.

    Returns:
        Shape (C, 3): pixels of intersection, prediction and truth of each class.
    """
    assert pred_chw.shape == truth_chw.shape, f"{pred_chw.shape} against {truth_chw.shape}"
    assert pred_chw.dtype == truth_chw.dtype == np.bool_, f"{pred_chw.dtype}, {truth_chw.dtype}"
    counts_c3 = np.zeros((len(pred_chw), 3), dtype=np.int64)
    for counts, pred, truth in zip(counts_c3, pred_chw, truth_chw, strict=True):
        counts[1:] = np.count_nonzero(pred), np.count_nonzero(truth)
        # Most pairs are empty on one side, and the intersection is the slow part.
        if counts[1] and counts[2]:
            counts[0] = np.count_nonzero(pred & truth)
    return counts_c3


def dice(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the competition's Dice of each pair: 2I / (P + T), and 1 if both are empty.

    Args:
        counts: Pixels of intersection, prediction and truth, shape (..., 3).

    Returns:
        Dice of each pair, shape (...), in [0, 1].
    """
    total = counts[..., 1] + counts[..., 2]
    dices = np.ones(total.shape)
    np.divide(2 * counts[..., 0], total, out=dices, where=total > 0)
    return dices


def score(counts_nc3: NDArray[np.int64]) -> Scores:
    """Compute all figures, overall and per class.

    Args:
        counts_nc3: Results of `count_pixels` for each image, stacked, shape (N, C, 3).

    Returns:
        The figures; overall ones are taken over all N x C pairs, whatever their class.
    """
    assert counts_nc3.ndim == 3, counts_nc3.shape
    assert counts_nc3.shape[2] == 3, counts_nc3.shape
    return Scores(
        overall=_figures(counts_nc3.reshape(-1, 3)),
        per_class=tuple(_figures(counts_nc3[:, c]) for c in range(counts_nc3.shape[1])),
    )


def pair_terms(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the terms of each pair that figures sum up.

    Args:
        counts: Pixels of intersection, prediction and truth, shape (..., 3).

    Returns:
        Shape (..., 8), in the order of `_TERMS`. Summed over any pairs, they go into `ratios`.
    """
    is_predicted, is_positive = counts[..., 1] > 0, counts[..., 2] > 0
    terms = {
        "dice": dice(counts) * is_positive,
        "intersection": counts[..., 0],
        "predicted": counts[..., 1],
        "truth": counts[..., 2],
        "pairs": np.ones(is_positive.shape),
        "positives": is_positive,
        "found": is_positive & is_predicted,
        "false_alarms": is_predicted & ~is_positive,
    }
    return np.stack([terms[name] for name in _TERMS], axis=-1).astype(np.float64)


def ratios(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Compute the figures that are ratios.

    Args:
        sums: `pair_terms` summed over some pairs, shape (..., 8).

    Returns:
        Figures by name, shape (...) each, NaN where there is nothing to divide by.
    """
    terms = {name: sums[..., place] for place, name in enumerate(_TERMS)}
    negatives = terms["pairs"] - terms["positives"]
    terms |= {
        "negatives": negatives,
        "left_empty": negatives - terms["false_alarms"],
        "union": terms["predicted"] + terms["truth"] - terms["intersection"],
    }
    found = {}
    for name, kind in get_type_hints(Figures, include_extras=True).items():
        for ratio in getattr(kind, "__metadata__", ()):
            part, whole = ratio.parts(terms)
            undefined = np.full(np.shape(whole), np.nan)
            found[name] = np.divide(part, whole, out=undefined, where=whole > 0)
    return found


def _figures(counts_p3: NDArray[np.int64]) -> Figures:
    sums = pair_terms(counts_p3).sum(axis=0)
    pairs, positives, found, false_alarms = (
        int(sums[_TERMS.index(name)]) for name in ("pairs", "positives", "found", "false_alarms")
    )
    return Figures(
        **{name: float(value) for name, value in ratios(sums).items()},
        pairs=pairs,
        positives=positives,
        misses=positives - found,
        false_alarms=false_alarms,
    )


def all_empty(counts_nc3: NDArray[np.int64]) -> Scores:
    """Compute the scores of a submission without any mask.

    Args:
        counts_nc3: As for `score`; only ground-truth pixels are used.

    Returns:
        The scores that a useful model has to exceed.
    """
    return score(counts_nc3 * np.array([0, 0, 1]))


def never_found(scores: Scores) -> list[int]:
    """List the classes that images have but that are never predicted on them.

    Returns:
        Ascending class_id, counted from 1, of classes with positives and an image_recall of 0.
    """
    return [
        class_id
        for class_id, figures in enumerate(scores.per_class, start=1)
        if figures.positives > 0 and figures.misses == figures.positives
    ]


def flatten(scores: Scores, prefix: str = "val_") -> dict[str, float]:
    """Return all figures and counts as one row of `history.csv`.

    Args:
        scores: Result of `score`.
        prefix: Prefix of every name.

    Returns:
        Overall figures by name ("val_dice"), then those of each class with its class_id at the end
        ("val_dice_1"). Counts stay integers.
    """
    row = {f"{prefix}{name}": value for name, value in asdict(scores.overall).items()}
    for class_id, figures in enumerate(scores.per_class, start=1):
        row |= {f"{prefix}{name}_{class_id}": value for name, value in asdict(figures).items()}
    return row


def for_json(row: Mapping[str, float]) -> dict[str, float | None]:
    """Return figures for JSON, with null in place of NaN."""
    return {name: None if value != value else value for name, value in row.items()}


def table(scores: Scores, class_names: Sequence[str], *, columns: Sequence[str] = _COLUMNS) -> str:
    """Return the figures as a text table: one line per class, then a line for all classes.

    Args:
        scores: Result of `score`.
        class_names: One name per class; names of more than 12 characters are cut.
        columns: Which columns to show.

    Returns:
        Aligned lines without a line break at the end, "-" for undefined figures. "empty" is the
        Dice of empty masks, which a useful model has to exceed. Found is predicted/positive pairs,
        false alarms are predicted/negative pairs; presence is their accuracy.
    """
    named = zip([*class_names, "all"], [*scores.per_class, scores.overall], strict=True)
    places = [_COLUMNS.index(column) for column in columns]
    every = [_COLUMNS, *(_row(name, figures) for name, figures in named)]
    rows = [tuple(row[place] for place in places) for row in every]
    return text_table(rows)


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    positives, negatives = figures.positives, figures.pairs - figures.positives
    return (
        name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 3] + "...",
        _decimal(figures.dice),
        _decimal(negatives / figures.pairs if figures.pairs else math.nan),
        _decimal(figures.dice_positive),
        _decimal(figures.dice_negative),
        _decimal(figures.iou),
        _decimal(figures.precision),
        _decimal(figures.recall),
        _decimal(figures.presence_accuracy),
        _decimal(figures.presence_f1),
        f"{positives - figures.misses}/{positives}" if positives else "-",
        f"{figures.false_alarms}/{negatives}" if negatives else "-",
    )


def _decimal(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Align the cells of each column, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [row[0].ljust(widths[0])]
        + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        for row in rows
    ]
    return "\n".join("  ".join(line) for line in lines)
