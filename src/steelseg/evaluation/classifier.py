"""Scores of a classifier: presence of each class, and screening of strips.

Both are out of fold. Screening is cross-fitted: the cutoff for each inner fold is chosen on the
others, as in `steelseg cascade`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.errors import DataError
from steelseg.run.held_out import HeldOut, assign_inner_folds
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import mask_settings
from steelseg.scoring.metrics import Scores, count_pixels, for_json, table
from steelseg.scoring.postprocess import binarize
from steelseg.scoring.presence import COLUMNS, PresenceTally, has_pixels, one_pixel, without_sizes
from steelseg.scoring.screening import ScreeningResult, count_screened, cross_fit

_MISS_RATES = (0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True)
class Scored:
    """Scores of held-out strips, for metrics.json and scores.csv."""

    counts_nc3: NDArray[np.int64]
    """Pixels of intersection, prediction and ground truth, shape (N, C, 3)."""

    label: Mapping[str, str]
    """How strips were scored, as a key and value of metrics.json."""

    details: Mapping[str, Any]
    """Further keys of metrics.json."""


def score_classifier(config: Config, run: RunFolder, held_out: HeldOut) -> Scored:
    """Score the held-out strips of a classifier.

    Args:
        config: The settings; only the thresholds of postprocess are used.
        run: The run, whose folds.csv has the groups of near-duplicates.
        held_out: Its predictions.

    Raises:
        DataError: if only one strip was predicted.
    """
    settings = without_sizes(mask_settings(config))
    tally = PresenceTally()
    counts = []
    for image_id, presence_c in held_out.presence.items():
        truth_chw = has_pixels(held_out.labels.draw(image_id))
        tally.add(presence_c, truth_chw)
        mask_chw = binarize(
            one_pixel(presence_c),
            threshold=settings.threshold,
            min_size=settings.min_size,
            min_area=settings.min_area,
        )
        counts.append(count_pixels(mask_chw, truth_chw))
    screening = _screening(config, run, held_out)
    details = {
        "average_precision": tally.result(),
        "classes": [for_json({"average_precision": value}) for value in tally.per_class()],
        "first_look": [{"miss_rate": rate, **asdict(found)} for rate, found in screening.items()],
    }
    return Scored(np.stack(counts), {"scored": "presence, as one pixel per strip"}, details)


def _screening(config: Config, run: RunFolder, held_out: HeldOut) -> dict[float, ScreeningResult]:
    """Return the screening result at each miss rate; empty if no strip has a defect."""
    inner_fold_of = assign_inner_folds(
        run, held_out, num_folds=config.tune.inner_folds, seed=config.train.seed
    )
    score_of = {i: float(presence_c.max()) for i, presence_c in held_out.presence.items()}
    is_defective = {image_id: bool(ids) for image_id, ids in held_out.present.items()}
    try:
        return {
            rate: count_screened(
                cross_fit(score_of, is_defective, inner_fold_of, miss_rate=rate), is_defective
            )
            for rate in _MISS_RATES
        }
    except DataError as error:
        run.warn(str(error))
        return {}


def print_classifier(
    config: Config, run: RunFolder, metrics: Mapping[str, Any], scores: Scores
) -> None:
    """Print the table, the average precision, and the screening results."""
    names = config.data.names
    precisions = ", ".join(
        f"{name} {'-' if value is None else f'{value:.4f}'}"
        for name, value in zip(
            names, (c["average_precision"] for c in metrics["classes"]), strict=True
        )
    )
    lines = [
        f"out-of-fold, {metrics['strips']} strips of folds {', '.join(metrics['folds'])}, "
        "presence at postprocess.threshold:",
        table(scores, names, columns=COLUMNS),
        f"average precision {metrics['average_precision']:.4f} ({precisions})",
    ]
    lines += [
        f"screening, cross-fitted, requested to miss at most {row['miss_rate']:.1%}: "
        f"{row['missed']} of {row['defective']} defective strips missed, "
        f"{row['skipped']} of {row['clean']} clean strips skipped"
        for row in metrics["first_look"]
    ]
    run.say("\n".join(lines))
