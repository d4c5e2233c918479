"""The cascade stage: choose the cutoff below which strips can skip the full model.

Reads  RUN/fold_K/oof_predictions.zarr, FIRST/fold_K/oof_predictions.zarr, data.root/train.csv
Writes RUN/cascade.json

A cheap run screens the strips. Both runs' predictions are out of fold, and every strip is scored
with a cutoff that was chosen on other strips. Prediction screens with one fold of FIRST, because
its out-of-fold predictions estimate single folds.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from steelseg.config.config import Config
from steelseg.errors import CheckpointError, ConfigError
from steelseg.progress import progress as show
from steelseg.run.cascade_json import Cascade, write_cascade
from steelseg.run.held_out import HeldOut, assign_inner_folds, held_out_masks, open_held_out
from steelseg.run.kinds import refuse_classifier, refuse_combined
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import read_tuned
from steelseg.scoring.metrics import count_pixels, score
from steelseg.scoring.screening import (
    ScreeningResult,
    choose_cutoff,
    count_screened,
    cross_fit,
    defect_score,
)


def cascade_run(
    config: Config, run: RunFolder, first: RunFolder, *, miss_rate: float, fold: int | None = None
) -> ScreeningResult:
    """Choose the defect score below which strips skip the full model.

    Args:
        config: The settings of the run.
        run: The run with the full model.
        first: The cheap run, with predictions of the same strips.
        miss_rate: Maximum fraction of the defective strips that may be skipped, in [0, 1).
        fold: Fold of the cheap run that screens; None uses its lowest.

    Returns:
        The cross-fitted result on the held-out strips.

    Raises:
        CheckpointError: if predictions are missing, or the cheap run lacks some of the strips.
        ConfigError: if the runs do not match.
        DataError: if no strip has a defect.
    """
    if not 0 <= miss_rate < 1:
        raise ConfigError(f"--miss-rate {miss_rate:g}: expected at least 0 and less than 1.")
    refuse_classifier(config, run.path, what="to screen strips for")
    held_out = open_held_out(config.data, run, gate=config.inference.gate)
    # Defect scores come from probabilities before any gate.
    screening = open_held_out(_screening_config(config, run, first).data, first)
    chosen = _choose_fold(first, screening, fold)
    if absent := held_out.fold_of.keys() - screening.fold_of.keys():
        raise CheckpointError(
            f"{first.path} has no prediction of {min(absent)} ({len(absent)} in total), which "
            f"{run.path} has. Both need the same strips: steelseg oof {first.path}."
        )
    is_defective = {image_id: bool(ids) for image_id, ids in held_out.present.items()}
    scores = _defect_scores(first.load_config(), screening, held_out.fold_of)
    inner_fold_of = assign_inner_folds(
        run, held_out, num_folds=config.tune.inner_folds, seed=config.train.seed
    )
    is_skipped = cross_fit(scores, is_defective, inner_fold_of, miss_rate=miss_rate)
    result = count_screened(is_skipped, is_defective)
    defective = np.array([s for i, s in scores.items() if is_defective[i]])
    cascade = Cascade(
        first=Path(os.path.relpath(first.path, run.path)).as_posix(),
        fold=chosen,
        sha256=screening.models[chosen],
        cut=choose_cutoff(defective, miss_rate=miss_rate),
    )
    dice = _dice(config, run, held_out, is_skipped)
    report = {"miss_rate": miss_rate, "cross_fitted": asdict(result), **dice}
    write_cascade(run.cascade_json, cascade, report)
    run.say(_summary(cascade, result, dice, miss_rate))
    return result


def _screening_config(config: Config, run: RunFolder, first: RunFolder) -> Config:
    """Return the settings of the cheap run; raise ConfigError if it does not match the run."""
    other = first.load_config()
    if first.path.resolve() == run.path.resolve():
        raise ConfigError(f"{run.path} cannot screen for itself. Name a cheaper run.")
    refuse_combined(first, "Screening must be cheap: name one of its members.")
    if other.data.channels != config.data.channels:
        raise ConfigError(
            f"{first.path} has data.channels={other.data.channels}, but {run.path} has "
            f"{config.data.channels}. Both must be equal, because strips are decoded once."
        )
    return other.model_copy(
        update={"data": other.data.model_copy(update={"root": config.data.root})}
    )


def _defect_scores(
    first_config: Config, screening: HeldOut, image_ids: Collection[str]
) -> dict[str, float]:
    """Return the defect score of each strip, by image_id."""
    if first_config.model.is_classifier:
        # Presence is an attribute of the store, so pixels are not read.
        return {i: float(screening.presence[i].max()) for i in image_ids}
    strips = show(screening.read(image_ids), len(image_ids), "screening")
    return {image_id: defect_score(probs_chw) for image_id, probs_chw, _ in strips}


def _choose_fold(first: RunFolder, screening: HeldOut, fold: int | None) -> int:
    """Return the fold that screens."""
    chosen = min(screening.models) if fold is None else fold
    if chosen not in screening.models:
        available = ", ".join(map(str, sorted(screening.models)))
        raise ConfigError(
            f"{first.path} has no predictions of fold {chosen}. It has predictions of {available}."
        )
    return chosen


def _dice(
    config: Config, run: RunFolder, held_out: HeldOut, is_skipped: Mapping[str, bool]
) -> dict[str, Any]:
    """Return the competition's Dice with the full model on every strip, and with screening."""
    to_mask = held_out_masks(config, run, held_out, read_tuned(run.postprocess_json))
    with_all, with_cascade = [], []
    for image_id, probs_chw, truth_chw in show(held_out, len(held_out), "full model"):
        mask_chw = to_mask(image_id, probs_chw)
        with_all.append(count_pixels(mask_chw, truth_chw))
        kept = np.zeros_like(mask_chw) if is_skipped[image_id] else mask_chw
        with_cascade.append(count_pixels(kept, truth_chw))
    both = {"dice_with_all": with_all, "dice_with_cascade": with_cascade}
    return {name: score(np.stack(counts)).overall.dice for name, counts in both.items()}


def _summary(
    cascade: Cascade, result: ScreeningResult, dice: Mapping[str, float], miss_rate: float
) -> str:
    """Format the result."""
    low, high = result.missed_interval
    return (
        f"screening: fold {cascade.fold} of {cascade.first}, cutoff {cascade.cut:.4f}\n"
        f"cross-fitted, requested to miss at most {miss_rate:.2%}: {result.missed} of "
        f"{result.defective} defective strips missed (95 % interval {low:.2%} to {high:.2%}), "
        f"{result.skipped} of {result.clean} clean strips skipped\n"
        f"Dice {dice['dice_with_cascade']:.4f}, with the full model on every strip "
        f"{dice['dice_with_all']:.4f}"
    )
