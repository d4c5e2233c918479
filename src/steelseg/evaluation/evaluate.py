"""The evaluation stage: score the out-of-fold predictions of a run.

Reads  RUN/fold_K/oof_predictions.zarr, RUN/postprocess.json, data.root
Writes RUN/metrics.json, RUN/scores.csv; on request RUN/overlays_oof/

For a tuned run every strip is scored with settings that were chosen without it, so tuning does not
bias the scores. `evaluation.classifier` scores classifiers. Networks are not needed.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.data.folder import DataSet
from steelseg.data.formats.images import read_image
from steelseg.evaluation.classifier import Scored, print_classifier, score_classifier
from steelseg.files.atomic import write_text
from steelseg.progress import progress as show
from steelseg.run.held_out import HeldOut, held_out_masks, open_held_out
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
        folds: Which folds; None scores every predicted one.
        overlays: Also draw ground truth and prediction of every strip.

    Returns:
        The content of metrics.json.

    Raises:
        CheckpointError: if there are no predictions, or tuning used other ones.
        ConfigError: if `overlays` is set for a classifier.
        DataError: if train.csv has a fault.
    """
    if overlays:
        refuse_classifier(config, run.path, what="to draw")
    held_out = open_held_out(config.data, run, folds=folds, gate=config.inference.gate)
    if config.model.is_classifier:
        found = score_classifier(config, run, held_out)
    else:
        found = _score_masks(config, run, held_out, overlays=overlays)
    write_scores(run.scores_csv, ScoreTable(held_out.fold_of, found.counts_nc3))
    metrics = _metrics(held_out, found)
    write_text(run.metrics_json, json.dumps(metrics, indent=1) + "\n")
    tell = print_classifier if config.model.is_classifier else _print_summary
    tell(config, run, metrics, score(found.counts_nc3))
    run.event("oof", metrics["oof"])
    return metrics


def _metrics(held_out: HeldOut, found: Scored) -> dict[str, Any]:
    """Return the content of metrics.json; undefined figures are null."""
    counts_nc3 = found.counts_nc3
    folds = np.array(list(held_out.fold_of.values()))

    def figures(chosen_nc3: NDArray[np.int64]) -> dict[str, float | None]:
        return for_json(flatten(score(chosen_nc3), prefix=""))

    return {
        "strips": len(counts_nc3),
        "models": {str(fold): digest for fold, digest in held_out.models.items()},
        **found.label,
        "oof": figures(counts_nc3),
        "intervals": {name: interval(draws) for name, draws in draw_figures(counts_nc3).items()},
        "all_empty": for_json(flatten(all_empty(counts_nc3), prefix="")),
        "folds": {str(fold): figures(counts_nc3[folds == fold]) for fold in np.unique(folds)},
        **found.details,
    }


def _score_masks(config: Config, run: RunFolder, held_out: HeldOut, *, overlays: bool) -> Scored:
    """Score masks, and draw them if `overlays`."""
    tuned = read_tuned(run.postprocess_json)
    to_mask = held_out_masks(config, run, held_out, tuned)
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
    classes = [
        {
            "components": by_size(measured),
            "precision_recall": precision_recall(pixels_2l),
            "calibration": calibration(pixels_2l),
        }
        for measured, pixels_2l in zip(components, levels.pixels_c2l, strict=True)
    ]
    is_tuned = tuned is not None and has_untuned_settings(config)
    label = {"masks": "cross-fitted" if is_tuned else "by the settings"}
    return Scored(np.stack(counts), label, {"classes": classes})


def _print_summary(config: Config, run: RunFolder, metrics: dict[str, Any], scores: Scores) -> None:
    """Print the tables, and a warning for classes that are never found."""
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


def _with_interval(metrics: dict[str, Any], name: str) -> str:
    """Return a figure with its interval."""
    value, bounds = metrics["oof"][name], metrics["intervals"][name]
    if value is None or bounds is None:
        return f"{name} -"
    return f"{name} {value:.4f} [{bounds[0]:.4f}, {bounds[1]:.4f}]"


def _component_table(metrics: dict[str, Any], names: Sequence[str]) -> str:
    """Return found components of each class, by quartile of their size."""
    lines = [f"{'components':<12}  found/all, by quartile of their size in pixels"]
    for name, values in zip(names, metrics["classes"], strict=True):
        cells = [
            f"{q['found']}/{q['components']} ({q['smallest']}-{q['largest']})"
            for q in values["components"]
        ]
        lines.append(f"{name[:12]:<12}  " + ("   ".join(cells) or "-"))
    return "\n".join(lines)
