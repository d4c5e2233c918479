"""What a combination is worth, in figures for ensemble.json and in a table for the user.

Everything is judged on strips that it was not chosen on. Two figures stand side by side: the error
that weights are chosen by (see `blend`), and the mean Dice with thresholds chosen on other strips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.blending.blend import Products, Weights, errors, relative_error
from steelseg.scoring.blending.cross_fit import error_difference
from steelseg.scoring.blending.weights import Weighing
from steelseg.scoring.intervals import draw_figures, interval
from steelseg.scoring.metrics import score


@dataclass(frozen=True)
class Judged:
    """Every strip, judged."""

    products: Products
    """Of all candidates."""

    part_n: NDArray[np.int64]

    errors: Mapping[str, NDArray[np.float64]]
    """errors_nc of "chosen" and of "plain", the plain mean."""

    counts: Mapping[str, NDArray[np.int64]]
    """counts_nc3 of "chosen", of "plain" and of "alone K"."""

    sets: Mapping[str, tuple[int, NDArray[np.float64]]]
    """For each set of views that was tried, its views and its errors_nc if every run takes it."""


def make_report(
    judged: Judged,
    *,
    weights: Weighing,
    names: Sequence[str],
    views: Sequence[int],
    weights_kc: Weights,
    alone: Sequence[int],
) -> dict[str, Any]:
    """Figures for ensemble.json; one that is not defined is null.

    Args:
        judged: The strips.
        weights: How weights were chosen.
        names: Of each candidate.
        views: How many views each costs.
        weights_kc: What each counts for.
        alone: The candidate that stands for each run.
    """
    pixels_nc = judged.products.pixels_nc
    one_kk = np.eye(len(names))
    lines = [
        {
            "name": names[k],
            "views": views[k],
            "weights": [float(weight) for weight in weights_kc[k]],
            "error": _plain(
                relative_error(
                    errors(judged.products, one_kk[k][:, None] * np.ones(weights_kc.shape[1])),
                    pixels_nc,
                )
            ),
            "dice": _dice(judged.counts.get(f"alone {k}")),
        }
        for k in range(len(names))
    ]
    blends = {
        name: {
            "error": _plain(relative_error(judged.errors[name], pixels_nc)),
            "dice": _dice(judged.counts[name]),
        }
        for name in ("plain", "chosen")
    }
    best = max(alone, key=lambda k: _dice(judged.counts[f"alone {k}"]) or 0)
    other = f"alone {best}" if weights == "equal" else "plain"
    return {
        "strips": len(pixels_nc),
        "weights": weights,
        "candidates": lines,
        "plain_mean": blends["plain"],
        "chosen": blends["chosen"]
        | {"views": sum(n for n, w in zip(views, weights_kc, strict=True) if w.any())},
        "compared_with": names[best] if weights == "equal" else "the plain mean",
        "gain_in_dice": _gain(judged.counts[other], judged.counts["chosen"]),
        "view_sets": {
            tta: {
                "views": count,
                "error": _plain(relative_error(errors_nc, pixels_nc)),
                "chosen_is_lower_by": _difference(judged.errors["chosen"], errors_nc, pixels_nc),
            }
            for tta, (count, errors_nc) in judged.sets.items()
        },
        "error_is_lower_by": None
        if weights == "equal"
        else _difference(judged.errors["chosen"], judged.errors["plain"], pixels_nc),
    }


def _plain(value: float) -> float | None:
    """A figure for JSON."""
    return None if value != value else value


def _dice(counts_nc3: NDArray[np.int64] | None) -> float | None:
    """Mean Dice as the competition counts it."""
    return None if counts_nc3 is None else score(counts_nc3).overall.dice


def _gain(before_nc3: NDArray[np.int64], after_nc3: NDArray[np.int64]) -> list[float]:
    """How much higher the mean Dice is, and its 95 % interval, paired by strip."""
    draws = [draw_figures(counts_nc3)["dice"] for counts_nc3 in (after_nc3, before_nc3)]
    bounds = interval(draws[0] - draws[1])
    assert bounds is not None
    gain = score(after_nc3).overall.dice - score(before_nc3).overall.dice
    return [gain, *bounds]


def _difference(
    a_nc: NDArray[np.float64], b_nc: NDArray[np.float64], pixels_nc: NDArray[np.float64]
) -> list[float] | None:
    """By how much the error of a is lower, and its interval; None where no strip has a defect."""
    value, bounds = error_difference(a_nc, b_nc, pixels_nc)
    return None if bounds is None else [value, *bounds]


def summary(report: Mapping[str, Any]) -> str:
    """What the user wants to know of a combination."""
    width = max(len("plain mean"), *(len(line["name"]) for line in report["candidates"]))
    lines = [
        f"combined by weights={report['weights']} on {report['strips']} held-out strips:",
        f"{'':<{width}}  views   error    Dice  weight",
        *(
            f"{line['name']:<{width}}  {line['views']:5d}{_cells(line)}  {_weights(line)}"
            for line in report["candidates"]
        ),
    ]
    if report["weights"] != "equal":
        lines.append(f"{'plain mean':<{width}}       {_cells(report['plain_mean'])}")
    chosen = report["chosen"]
    lines += [
        f"{'combined':<{width}}  {chosen['views']:5d}{_cells(chosen)}",
        "error: squared error of the probabilities; 0 is right, 1 as wrong as empty masks. Dice: "
        "thresholds and smallest masks chosen on other strips, as weights and views are",
        *_view_lines(report),
        _conclusion(report),
    ]
    return "\n".join(lines)


def _cells(figures: Mapping[str, Any]) -> str:
    """Error and Dice."""
    return "".join(
        f"  {'-' if figures[name] is None else format(figures[name], '.4f'):>6}"
        for name in ("error", "dice")
    )


def _weights(line: Mapping[str, Any]) -> str:
    """What a candidate counts for, one figure where all classes have the same."""
    cells = [f"{weight:.3f}" for weight in line["weights"]]
    return " ".join(cells[:1] if len(set(cells)) == 1 else cells)


def _view_lines(report: Mapping[str, Any]) -> list[str]:
    """What each set of views would cost and bring."""
    lines = []
    for tta, found in report["view_sets"].items():
        difference = found["chosen_is_lower_by"]
        compared = (
            "" if difference is None else f"; what was chosen is lower by {_with(difference)}"
        )
        error = "-" if found["error"] is None else f"{found['error']:.4f}"
        lines.append(f"all with {tta}: {found['views']} views, error {error}{compared}")
    return lines


def _conclusion(report: Mapping[str, Any]) -> str:
    """Whether it was worth it."""
    if len(report["candidates"]) == 1:
        return "Pixels are those of the one run; presence is of the runs that were named for it."
    gain, low, high = report["gain_in_dice"]
    other = report["compared_with"]
    if low <= 0 <= high:
        advice = "" if report["weights"] == "equal" else "; --weights equal is as good"
        return (
            f"No difference from {other} that this data can show: Dice "
            f"{_with(report['gain_in_dice'])}{advice}."
        )
    if gain < 0:
        advice = "Predict with it" if report["weights"] == "equal" else "Take --weights equal"
        return f"Worse than {other}: Dice {_with(report['gain_in_dice'])}. {advice}."
    return f"Better than {other}: Dice {_with(report['gain_in_dice'])}."


def _with(values: Sequence[float]) -> str:
    """A difference with its interval."""
    value, low, high = values
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"
