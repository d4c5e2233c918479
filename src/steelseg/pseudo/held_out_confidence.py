"""Confidence thresholds for pseudo-labels, chosen on out-of-fold predictions.

The thresholds for fold K are chosen on the strips of the other folds, so the ground truth of its
held-out strips does not influence its pseudo-labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.errors import CheckpointError, ConfigError
from steelseg.progress import progress as show
from steelseg.run.held_out import HeldOut, held_out_masks, open_held_out
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import read_tuned
from steelseg.scoring.confidence import (
    AcceptedPredictions,
    ConfidenceThresholds,
    choose_thresholds,
    confidence,
    count_accepted,
)
from steelseg.scoring.metrics import count_pixels


@dataclass(frozen=True)
class Evidence:
    """Confidence and pixel counts of held-out strips."""

    fold_n: NDArray[np.int64]
    """Fold of each strip."""

    confidence_nc: NDArray[np.float64]
    """Confidence of each class, in [0, 1]."""

    counts_nc3: NDArray[np.int64]
    """Pixels of intersection, prediction and truth."""


def gather_evidence(
    config: Config, runs: Sequence[RunFolder], digests: Sequence[Mapping[int, str]]
) -> Evidence:
    """Compare the mean prediction of the runs with the ground truth of held-out strips.

    Args:
        config: The settings of the first run, which makes the masks.
        runs: The runs; all have the same folds.
        digests: SHA-256 of the best model of each fold, for each run.

    Raises:
        CheckpointError: if predictions are missing, or of other models or strips.
    """
    held: list[HeldOut] = []
    for run, models in zip(runs, digests, strict=True):
        one = open_held_out(
            config.data,
            run,
            folds=list(held[0].models) if held else None,
            gate=config.inference.gate,
        )
        if any(models.get(fold, digest) != digest for fold, digest in one.models.items()):
            raise CheckpointError(
                f"The out-of-fold predictions of {run.path} were made with other models than its "
                f"folds contain now. Recreate them with: steelseg oof {run.path}."
            )
        held.append(one)
    if odd := [
        run.path for run, one in zip(runs, held, strict=True) if one.fold_of != held[0].fold_of
    ]:
        raise CheckpointError(f"{odd[0]} and {runs[0].path} have predictions of different strips.")
    first = held[0]
    presence = {
        i: np.sum([one.presence[i] for one in held], axis=0) / np.float32(len(held))
        for i in first.fold_of
    }
    joint = replace(first, presence=presence)
    to_mask = held_out_masks(config, runs[0], joint, read_tuned(runs[0].postprocess_json))
    confident, counts = [], []
    for strips in show(zip(*held, strict=True), len(first), "held-out strips"):
        image_id, _, truth_chw = strips[0]
        total_chw = sum(probs_chw.astype(np.float32) for _, probs_chw, _ in strips)
        probs_chw = (total_chw / len(strips) + np.float32(0.5)).astype(np.uint8)
        mask_chw = to_mask(image_id, probs_chw)
        confident.append(confidence(probs_chw, mask_chw))
        counts.append(count_pixels(mask_chw, truth_chw))
    return Evidence(np.array(list(first.fold_of.values())), np.stack(confident), np.stack(counts))


@dataclass(frozen=True)
class FoldThresholds:
    """Confidence thresholds for the networks of a fold."""

    thresholds: ConfidenceThresholds

    held_out: tuple[AcceptedPredictions, ...] = ()
    """What they accept on held-out strips of other folds, by class; empty if they were given."""


def choose_fold_thresholds(evidence: Evidence, fold: int, *, precision: float) -> FoldThresholds:
    """Choose the thresholds of one fold on the strips of the others.

    Raises:
        ConfigError: if no other fold was predicted.
    """
    others = evidence.fold_n != fold
    if not others.any():
        raise ConfigError(
            f"pseudo.precision={precision} needs out-of-fold predictions of folds other than "
            f"{fold}, and there are none. Train and predict another fold, or set "
            "pseudo.confidence."
        )
    known = evidence.confidence_nc[others], evidence.counts_nc3[others]
    thresholds = choose_thresholds(*known, precision=precision)
    return FoldThresholds(thresholds, tuple(count_accepted(*known, thresholds)))
