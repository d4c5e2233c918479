"""The evaluation stage: what the out-of-fold predictions are worth.

Reads  RUN/fold_K/oof_predictions.zarr, RUN/postprocess.json, data.root
Writes RUN/metrics.json, RUN/scores.csv; on request RUN/overlays_oof/

Of a tuned run every strip is judged with settings that were chosen without it, so that tuning
cannot flatter. A classifier is scored by what it tells, in `evaluation.classifier`. Nothing here
needs the network.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.data.folder import DataSet
from steelseg.data.formats.images import read_image
from steelseg.evaluation.classifier import evaluate_classifier
from steelseg.files.atomic import write_text
from steelseg.progress import progress as show
from steelseg.run.held_out import HeldOut, ToMask, held_out_masks, open_held_out
from steelseg.run.kinds import refuse_classifier
from steelseg.run.run_folder import RunFolder
from steelseg.run.scores_csv import ScoreTable, write_scores
from steelseg.run.tuned_postprocess import has_untuned_settings, read_tuned
from steelseg.scoring.component_recall import by_size, measure_components
from steelseg.scoring.curves import LevelCounts, calibration, precision_recall
from steelseg.scoring.intervals import draw_figures, interval
from steelseg.scoring.metrics import (
    Scores,
    all_empty,
    count_pixels,
    flatten,
    for_json,
    never_found,
    score,
    table,
)
from steelseg.writers.overlays import OverlayWriter

_SHOWN = ("dice", "dice_positive", "image_recall", "false_alarm_rate")


def evaluate_run(
    config: Config,
    run: RunFolder,
    *,
    folds: Sequence[int] | None = None,
    overlays: bool = False,
) -> dict[str, Any]:
    """Score the held-out strips of a run.

    Args:
        config: The settings.
        run: A run with out-of-fold predictions.
        folds: Which folds; None takes every one that was predicted.
        overlays: Also draw truth and prediction of every strip.

    Returns:
        What metrics.json holds.

    Raises:
        CheckpointError: if there are no predictions, or tuning is older than they are.
        ConfigError: if a classifier shall draw.
        DataError: if train.csv has a fault.
    """
    if overlays:
        refuse_classifier(config, run.path, what="to draw")
    held_out = open_held_out(config.data, run, folds=folds, gate=config.inference.gate)
    if config.model.is_classifier:
        return evaluate_classifier(config, run, held_out)
    tuned = read_tuned(run.postprocess_json)
    to_mask = held_out_masks(config, run, held_out, tuned)
    counted = _count(config, run, held_out, to_mask, overlays=overlays)
    write_scores(run.scores_csv, ScoreTable(held_out.fold_of, counted.counts_nc3))
    metrics = _metrics(
        held_out, counted, is_tuned=tuned is not None and has_untuned_settings(config)
    )
    write_text(run.metrics_json, json.dumps(metrics, indent=1) + "\n")
    _tell(config, run, metrics, score(counted.counts_nc3))
    return metrics


@dataclass(frozen=True)
class _Counted:
    """What one pass over the strips gives."""

    counts_nc3: NDArray[np.int64]
    levels: LevelCounts
    components: list[list[NDArray[np.int64]]]
    """By class and strip, as `measure_components` gives them."""


def _count(
    config: Config, run: RunFolder, held_out: HeldOut, to_mask: ToMask, *, overlays: bool
) -> _Counted:
    """Go through the strips once."""
    data = config.data
    levels = LevelCounts(data.num_classes)
    components: list[list[NDArray[np.int64]]] = [[] for _ in range(data.num_classes)]
    writer = OverlayWriter(run.path / "overlays_oof", data.names) if overlays else None
    counts = []
    for image_id, probs_chw, truth_chw in show(held_out, len(held_out), "evaluate"):
        mask_chw = to_mask(image_id, probs_chw)
        counts.append(count_pixels(mask_chw, truth_chw))
        levels.add(probs_chw, truth_chw)
        for found, mask_hw, truth_hw in zip(components, mask_chw, truth_chw, strict=True):
            found.append(measure_components(mask_hw, truth_hw))
        if writer is not None:
            path = DataSet(data.root).train_images / image_id
            writer.add(image_id, read_image(path, channels=data.channels), mask_chw, truth_chw)
    return _Counted(np.stack(counts), levels, components)


def _metrics(held_out: HeldOut, counted: _Counted, *, is_tuned: bool) -> dict[str, Any]:
    """Everything that metrics.json holds; a figure that is not defined is null."""
    counts_nc3 = counted.counts_nc3
    folds = np.array(list(held_out.fold_of.values()))
    draws = draw_figures(counts_nc3)
    return {
        "strips": len(counts_nc3),
        "models": {str(fold): digest for fold, digest in held_out.models.items()},
        "masks": "cross-fitted" if is_tuned else "by the settings",
        "oof": for_json(flatten(score(counts_nc3), prefix="")),
        "intervals": {name: interval(values) for name, values in draws.items()},
        "all_empty": for_json(flatten(all_empty(counts_nc3), prefix="")),
        "folds": {
            str(fold): for_json(flatten(score(counts_nc3[folds == fold]), prefix=""))
            for fold in np.unique(folds)
        },
        "classes": [
            {
                "components": by_size(components),
                "precision_recall": precision_recall(pixels_2l),
                "calibration": calibration(pixels_2l),
            }
            for components, pixels_2l in zip(
                counted.components, counted.levels.pixels_c2l, strict=True
            )
        ],
    }


def _tell(config: Config, run: RunFolder, metrics: dict[str, Any], scores: Scores) -> None:
    """Print the tables, and loudly the classes that are never found."""
    names = config.data.names
    folds = ", ".join(metrics["folds"])
    run.say(
        f"out-of-fold, {metrics['strips']} strips of folds {folds}, masks {metrics['masks']}:\n"
        + table(scores, names)
        + "\n95 % intervals over strips: "
        + "; ".join(_with_interval(metrics, name) for name in _SHOWN)
        + "\n"
        + _component_table(metrics, names)
        + f"\nDice {scores.overall.dice:.4f}; "
        f"all-empty masks would score {metrics['all_empty']['dice']:.4f}"
    )
    if lost := never_found(scores):
        listed = ", ".join(names[class_id - 1] for class_id in lost)
        run.warn(f"out-of-fold, no strip with {listed} was found. Dice hides this.")
    run.event("oof", metrics["oof"])


def _with_interval(metrics: dict[str, Any], name: str) -> str:
    """A figure with its interval."""
    value, bounds = metrics["oof"][name], metrics["intervals"][name]
    if value is None or bounds is None:
        return f"{name} -"
    return f"{name} {value:.4f} [{bounds[0]:.4f}, {bounds[1]:.4f}]"


def _component_table(metrics: dict[str, Any], names: Sequence[str]) -> str:
    """Found of all true components, from the smallest quarter of the class to the largest."""
    lines = [f"{'components':<12}  found of all, by quarters of their size in pixels"]
    for name, values in zip(names, metrics["classes"], strict=True):
        cells = [
            f"{q['found']}/{q['components']} ({q['smallest']}-{q['largest']})"
            for q in values["components"]
        ]
        lines.append(f"{name[:12]:<12}  " + ("   ".join(cells) or "-"))
    return "\n".join(lines)
