"""Sampling probabilities of the training samples.

They depend on the labels and, with train.hard_negatives, on the mistakes of an earlier run. They
are computed before the first epoch, so the order of samples depends only on seed and epoch.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from steelseg.data.crops import Box
from steelseg.data.formats.annotations import Labels
from steelseg.errors import CheckpointError
from steelseg.run.oof_store import oof_origin, read_oof
from steelseg.run.run_folder import RunFolder
from steelseg.scoring.screening import defect_score

Sampling = Literal["all", "balanced", "positives"]

HARD_NEGATIVE_WEIGHT = 3.0
"""Sampling weight added to a clean crop with defect score 1 in the earlier run, relative to its
weight without; with sampling=positives, relative to the weight of a crop with a defect."""


def sample_chances(
    labels: Labels,
    samples: Sequence[tuple[str, Box]],
    *,
    sampling: Sampling,
    hard_negatives: Path | None,
) -> NDArray[np.float64] | None:
    """Return the probability of each sample to be drawn.

    Args:
        labels: Holds the masks.
        samples: Crops, as `list_samples` returns them.
        sampling: all, balanced or positives.
        hard_negatives: A run with out-of-fold predictions, or None.

    Returns:
        Probabilities that add up to 1; None draws each sample once per epoch.

    Raises:
        CheckpointError: if the run has no out-of-fold predictions.
    """
    if sampling == "all" and hard_negatives is None:
        return None
    present_nc = np.array([labels.draw(*sample).any(axis=(1, 2)) for sample in samples])
    draw = {"all": _equal, "balanced": balanced, "positives": positives}[sampling]
    chances = draw(present_nc)
    if hard_negatives is None:
        return chances
    more = (
        HARD_NEGATIVE_WEIGHT
        * _false_positive_scores(hard_negatives, samples)
        * ~present_nc.any(axis=1)
    )
    chances = chances + more * (chances.max() if sampling == "positives" else chances)
    total: float = chances.sum()
    return chances / total


def _equal(present_nc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return equal probabilities."""
    return np.full(len(present_nc), 1 / len(present_nc))


def balanced(present_nc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return probabilities with which clean samples and each class are drawn equally often.

    A sample with several classes counts for the rarest of them.

    Args:
        present_nc: Whether a sample contains a class, shape (N, C).
    """
    frequency = present_nc.sum(axis=0)
    rarest = np.where(present_nc, frequency, len(present_nc) + 1).argmin(axis=1)
    classes = present_nc.shape[1]
    group = np.where(present_nc.any(axis=1), rarest, classes)
    sizes = np.bincount(group, minlength=classes + 1)
    chances: NDArray[np.float64] = 1 / (sizes[group] * np.count_nonzero(sizes))
    return chances


def positives(present_nc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return equal probabilities for samples with a defect and 0 for clean ones.

    For networks behind a gate. If no sample has a defect, all are equally probable.

    Args:
        present_nc: Whether a sample contains a class, shape (N, C).
    """
    has_defect = present_nc.any(axis=1)
    return has_defect / has_defect.sum() if has_defect.any() else _equal(present_nc)


def _false_positive_scores(
    run_path: Path, samples: Sequence[tuple[str, Box]]
) -> NDArray[np.float64]:
    """Return the defect score of each crop in the out-of-fold predictions of an earlier run."""
    indices: dict[str, list[int]] = {}
    for index, (image_id, _) in enumerate(samples):
        indices.setdefault(image_id, []).append(index)
    found = np.zeros(len(samples))
    for path in _predictions(run_path):
        for image_id, probs_chw in read_oof(path, only=indices):
            for index in indices[image_id]:
                top, left, height, width = samples[index][1]
                crop = probs_chw[:, top : top + height, left : left + width]
                # A run on other images of the same names may have other sizes.
                found[index] = defect_score(crop) if crop.size else 0.0
    return found


def _predictions(run_path: Path) -> list[Path]:
    """List the out-of-fold predictions of a run; raise CheckpointError if there are none."""
    run = RunFolder(run_path)
    if not run.config_yaml.exists():
        raise CheckpointError(f"train.hard_negatives={run_path} is not a run folder.")
    folds = run.load_config().data.num_folds
    if predicted := [run.oof(fold) for fold in range(folds) if run.oof(fold).exists()]:
        return predicted
    raise CheckpointError(
        f"train.hard_negatives={run_path} has no out-of-fold predictions. "
        f"Run: steelseg oof {run_path}."
    )


def with_negatives(data: str, hard_negatives: Path | None) -> str:
    """Add the origin of the hard negatives to the fingerprint of the data."""
    if hard_negatives is None:
        return data
    origins = "".join(oof_origin(path) for path in _predictions(hard_negatives))
    return hashlib.sha256(f"{data} {origins}".encode()).hexdigest()
