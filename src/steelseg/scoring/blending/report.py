"""Scores of an ensemble and its members: figures for ensemble.json, and a table for the user.

Every strip is scored with weights that were chosen without it. There are two scores: the error that
greedy selection minimises (see `blend`), and the mean Dice with cross-fitted thresholds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.blending.blend import Products, Weights, errors, relative_error
from steelseg.scoring.blending.weights import Weighing
from steelseg.scoring.intervals import draw_figures, interval
from steelseg.scoring.metrics import score


@dataclass(frozen=True)
class StripScores:
    """Scores of every strip."""

    products: Products
    """Of all members."""

    errors: Mapping[str, NDArray[np.float64]]
    """errors_nc of "chosen" and of "plain", the plain mean."""

    counts: Mapping[str, NDArray[np.int64]]
    """counts_nc3 of "chosen", of "plain" and of "alone K", which is member K alone."""


def make_report(
    scores: StripScores,
    *,
    weights: Weighing,
    names: Sequence[str],
    passes: Sequence[int],
    weights_kc: Weights,
) -> dict[str, Any]:
    """Return the figures for ensemble.json; undefined ones are null.

    Args:
        scores: Scores of every strip.
        weights: How weights were chosen.
        names: Name of each member.
        passes: Forward passes per strip of each member, one for each TTA flip.
        weights_kc: Weights chosen on all strips.
    """
    pixels_nc = scores.products.pixels_nc
    only_kk = np.eye(len(names))
    classes = weights_kc.shape[1]
    lines = [
        {
            "name": names[k],
            "views": passes[k],
            "weights": [float(weight) for weight in weights_kc[k]],
            **_scores(
                errors(scores.products, np.repeat(only_kk[k][:, None], classes, axis=1)),
                scores.counts[f"alone {k}"],
                pixels_nc,
            ),
        }
        for k in range(len(names))
    ]
    plain, chosen = (
        _scores(scores.errors[name], scores.counts[name], pixels_nc) for name in ("plain", "chosen")
    )
    dices = [score(scores.counts[f"alone {k}"]).overall.dice for k in range(len(names))]
    best = int(np.argmax(dices))
    is_equal = weights == "equal"
    other = scores.counts[f"alone {best}" if is_equal else "plain"]
    return {
        "strips": len(pixels_nc),
        "weights": weights,
        "candidates": lines,
        "plain_mean": plain,
        "chosen": chosen
        | {"views": sum(n for n, w in zip(passes, weights_kc, strict=True) if w.any())},
        "compared_with": names[best] if is_equal else "the plain mean",
        "gain_in_dice": _gain(other, scores.counts["chosen"]),
    }


def _scores(
    errors_nc: NDArray[np.float64],
    counts_nc3: NDArray[np.int64],
    pixels_nc: NDArray[np.float64],
) -> dict[str, float | None]:
    """Return the error, null if no strip has a defect, and the competition's mean Dice."""
    error = relative_error(errors_nc, pixels_nc)
    return {
        "error": None if np.isnan(error) else error,
        "dice": score(counts_nc3).overall.dice,
    }


def _gain(before_nc3: NDArray[np.int64], after_nc3: NDArray[np.int64]) -> list[float]:
    """Return the difference in mean Dice and its 95 % interval, paired by strip."""
    draws = [draw_figures(counts_nc3)["dice"] for counts_nc3 in (after_nc3, before_nc3)]
    bounds = interval(draws[0] - draws[1])
    assert bounds is not None
    gain = score(after_nc3).overall.dice - score(before_nc3).overall.dice
    return [gain, *bounds]


def summary(report: Mapping[str, Any]) -> str:
    """Return the report as a table with a conclusion; reports of older versions work too."""
    width = max(len("plain mean"), *(len(line["name"]) for line in report["candidates"]))
    lines = [
        f"combined by weights={report['weights']} on {report['strips']} held-out strips:",
        f"{'':<{width}}  passes   error    Dice  weight",
        *(
            f"{line['name']:<{width}}  {line['views']:6d}{_cells(line)}  {_weights(line)}"
            for line in report["candidates"]
        ),
    ]
    if report["weights"] != "equal":
        lines.append(f"{'plain mean':<{width}}        {_cells(report['plain_mean'])}")
    chosen = report["chosen"]
    lines += [
        f"{'combined':<{width}}  {chosen['views']:6d}{_cells(chosen)}",
        "error: squared error of the probabilities; 0 is perfect, 1 is as bad as empty masks. "
        "Dice: thresholds and minimum areas are chosen on other strips, and so are weights.",
        _conclusion(report),
    ]
    return "\n".join(lines)


def _cells(figures: Mapping[str, Any]) -> str:
    """Return the cells of error and Dice; Dice of an older report can be null."""
    return "".join(
        f"  {'-' if figures[name] is None else format(figures[name], '.4f'):>6}"
        for name in ("error", "dice")
    )


def _weights(line: Mapping[str, Any]) -> str:
    """Return the weights of a member, one number if all classes have the same."""
    cells = [f"{weight:.3f}" for weight in line["weights"]]
    return " ".join(cells[:1] if len(set(cells)) == 1 else cells)


def _conclusion(report: Mapping[str, Any]) -> str:
    """Say whether the ensemble is better than what it is compared with."""
    if len(report["candidates"]) == 1:
        return "Masks are those of the single run; presence comes from the runs of --presence."
    gain, low, high = report["gain_in_dice"]
    other, is_equal = report["compared_with"], report["weights"] == "equal"
    difference = f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"
    if low <= 0 <= high:
        advice = "" if is_equal else "; --weights equal is as good"
        return f"No significant difference from {other}: Dice {difference}{advice}."
    if gain < 0:
        advice = "Predict with that run" if is_equal else "Use --weights equal"
        return f"Worse than {other}: Dice {difference}. {advice}."
    return f"Better than {other}: Dice {difference}."
