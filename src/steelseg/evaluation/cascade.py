"""The cascade stage: a cheap run looks first, and skips what is surely clean.

Reads  RUN/fold_K/oof_predictions.zarr, FIRST/fold_K/oof_predictions.zarr, data.root/train.csv
Writes RUN/cascade.json

Both runs' predictions are out of fold, and every strip is judged with a cut that was chosen on
other strips. The first look of prediction is one fold of FIRST, because that is what its
out-of-fold predictions tell about.
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
from steelseg.scoring.screening import Looks, choose_cut, count_looks, cross_fit, suspicion


def cascade_run(
    config: Config, run: RunFolder, first: RunFolder, *, miss_rate: float, fold: int | None = None
) -> Looks:
    """Choose the cut below which strips need no second look.

    Args:
        config: The settings of the run.
        run: The run whose strips are to be looked at first.
        first: The cheap run, with predictions of the same strips.
        miss_rate: Largest share of the defective strips that may be skipped, in [0, 1).
        fold: Fold of the cheap run that looks; None takes its lowest.

    Returns:
        What it does to the held-out strips, cross-fitted.

    Raises:
        CheckpointError: if predictions are missing, or the cheap run lacks some of the strips.
        ConfigError: if the runs do not fit each other.
        DataError: if no strip has a defect.
    """
    if not 0 <= miss_rate < 1:
        raise ConfigError(f"--miss-rate {miss_rate:g}: expected a share from 0 to less than 1.")
    refuse_classifier(config, run.path, what="to look at again")
    held_out = open_held_out(config.data, run, gate=config.inference.gate)
    # Suspicion is of the probabilities before any gate.
    looks = open_held_out(_fitting(config, run, first).data, first)
    chosen = _choose_fold(first, looks, fold)
    if absent := held_out.fold_of.keys() - looks.fold_of.keys():
        raise CheckpointError(
            f"{first.path} has no prediction of {min(absent)} ({len(absent)} such), which "
            f"{run.path} has. Both need the same strips: steelseg oof {first.path}."
        )
    is_defective = {image_id: bool(ids) for image_id, ids in held_out.present.items()}
    suspicions = _suspicions(first.load_config(), looks, held_out.fold_of)
    inner_fold_of = assign_inner_folds(
        run, held_out, num_folds=config.tune.inner_folds, seed=config.train.seed
    )
    is_skipped = cross_fit(suspicions, is_defective, inner_fold_of, miss_rate=miss_rate)
    found = count_looks(is_skipped, is_defective)
    defective = np.array([s for i, s in suspicions.items() if is_defective[i]])
    cascade = Cascade(
        first=Path(os.path.relpath(first.path, run.path)).as_posix(),
        fold=chosen,
        sha256=looks.models[chosen],
        cut=choose_cut(defective, miss_rate=miss_rate),
    )
    dice = _dice(config, run, held_out, is_skipped)
    report = {"miss_rate": miss_rate, "cross_fitted": asdict(found), **dice}
    write_cascade(run.cascade_json, cascade, report)
    run.say(_summary(cascade, found, dice, miss_rate))
    return found


def _fitting(config: Config, run: RunFolder, first: RunFolder) -> Config:
    """The settings of the cheap run, if both can look at the same strips."""
    other = first.load_config()
    if first.path.resolve() == run.path.resolve():
        raise ConfigError(f"{run.path} cannot be its own first look. Name a cheaper run.")
    refuse_combined(first, "A first look is cheap: name one of its members.")
    if other.data.channels != config.data.channels:
        raise ConfigError(
            f"{first.path} has data.channels={other.data.channels}, but {run.path} has "
            f"{config.data.channels}. A strip is decoded once for both."
        )
    return other.model_copy(
        update={"data": other.data.model_copy(update={"root": config.data.root})}
    )


def _suspicions(
    first_config: Config, looks: HeldOut, image_ids: Collection[str]
) -> dict[str, float]:
    """The suspicion of each strip, by image_id."""
    if first_config.model.is_classifier:
        # Kept beside the pixels, which need not be read.
        return {i: float(looks.presence[i].max()) for i in image_ids}
    strips = show(looks.read(image_ids), len(image_ids), "first look")
    return {image_id: suspicion(probs_chw) for image_id, probs_chw, _ in strips}


def _choose_fold(first: RunFolder, looks: HeldOut, fold: int | None) -> int:
    """The fold that looks."""
    chosen = min(looks.models) if fold is None else fold
    if chosen not in looks.models:
        there = ", ".join(map(str, sorted(looks.models)))
        raise ConfigError(
            f"{first.path} has no predictions of fold {chosen}; it has them of {there}."
        )
    return chosen


def _dice(
    config: Config, run: RunFolder, held_out: HeldOut, is_skipped: Mapping[str, bool]
) -> dict[str, Any]:
    """The competition's Dice with a second look at every strip, and with the cascade."""
    to_mask = held_out_masks(config, run, held_out, read_tuned(run.postprocess_json))
    with_all, with_cascade = [], []
    for image_id, probs_chw, truth_chw in show(held_out, len(held_out), "second look"):
        mask_chw = to_mask(image_id, probs_chw)
        with_all.append(count_pixels(mask_chw, truth_chw))
        kept = np.zeros_like(mask_chw) if is_skipped[image_id] else mask_chw
        with_cascade.append(count_pixels(kept, truth_chw))
    both = {"dice_with_all": with_all, "dice_with_cascade": with_cascade}
    return {name: score(np.stack(counts)).overall.dice for name, counts in both.items()}


def _summary(cascade: Cascade, found: Looks, dice: Mapping[str, float], miss_rate: float) -> str:
    """What the user wants to know before switching it on."""
    low, high = found.missed_interval
    return (
        f"first look: fold {cascade.fold} of {cascade.first}, cut {cascade.cut:.4f}\n"
        f"cross-fitted, asked for at most {miss_rate:.2%} missed: {found.missed} of "
        f"{found.defective} defective strips missed (95 % interval {low:.2%} to {high:.2%}), "
        f"{found.skipped} of {found.clean} clean strips skipped\n"
        f"Dice {dice['dice_with_cascade']:.4f}, with a second look at every strip "
        f"{dice['dice_with_all']:.4f}"
    )
