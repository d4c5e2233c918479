"""Out-of-fold predictions of a run with the ground truth, and the masks that are scored.

For a tuned run every strip gets masks from settings that were chosen without it, otherwise from the
settings of the run. Stages that score strips and stages that draw them use the same functions, so
a picture shows the mask that was scored.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config, DataConfig
from steelseg.data.folder import DataSet
from steelseg.data.folds import assign_folds, read_groups
from steelseg.data.formats.annotations import Labels, read_labels
from steelseg.errors import CheckpointError, DataError
from steelseg.run.oof_store import describe_plan, open_oof, read_oof
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import (
    TunedPostprocessing,
    has_untuned_settings,
    mask_maker,
    mask_settings,
)
from steelseg.scoring.gate import GateMode, close, open_gate, soften
from steelseg.scoring.postprocess import MaskSettings


@dataclass(frozen=True)
class HeldOut:
    """Out-of-fold predictions with the ground truth; iterate to read them."""

    labels: Labels
    """Ground truth of every predicted strip."""

    fold_of: Mapping[str, int]
    """Fold of each strip, in the order of reading."""

    models: Mapping[int, str]
    """SHA-256 of the model of each fold."""

    paths: tuple[Path, ...]
    """The arrays, one per fold."""

    presence: Mapping[str, NDArray[np.float32]]
    """presence_c of each strip; empty arrays without a presence head."""

    plans: Mapping[int, str]
    """Flips and crops that each fold was predicted with; "" if unknown."""

    is_soft: bool = False
    """Whether probabilities are read after a soft gate."""

    def __len__(self) -> int:
        return len(self.fold_of)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
        """Yield image_id, probs_chw (uint8) and truth_chw of each strip."""
        return self.read()

    def read(
        self, only: Container[str] | None = None
    ) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
        """Yield the same as iteration, for the image_ids in `only`; None reads all."""
        gate = soften if self.is_soft else open_gate
        for path in self.paths:
            for image_id, probs_chw in read_oof(path, only=only):
                gated_chw = gate(probs_chw, self.presence[image_id])
                yield image_id, gated_chw, self.labels.draw(image_id)

    @property
    def present(self) -> dict[str, tuple[int, ...]]:
        """Class ids that each strip shows."""
        return {image_id: self.labels.class_ids(image_id) for image_id in self.fold_of}


def open_held_out(
    data: DataConfig,
    run: RunFolder,
    *,
    folds: Sequence[int] | None = None,
    gate: GateMode = "none",
) -> HeldOut:
    """Open the out-of-fold predictions of a run.

    Args:
        data: Where train.csv is, and the number of classes and folds.
        run: The run.
        folds: Which folds; None opens every predicted one.
        gate: soft multiplies probabilities by presence; soft and hard require presence.

    Raises:
        CheckpointError: if there are none, or they lack the presence that a gate needs.
        DataError: if train.csv has a fault.
    """
    chosen = folds or [fold for fold in range(data.num_folds) if run.oof(fold).exists()]
    if not chosen:
        raise CheckpointError(
            f"{run.path} has no out-of-fold predictions. Create them with: steelseg oof {run.path}."
        )
    sizes: dict[str, tuple[int, int]] = {}
    fold_of: dict[str, int] = {}
    models: dict[int, str] = {}
    presence: dict[str, NDArray[np.float32]] = {}
    plans: dict[int, str] = {}
    for fold in chosen:
        attrs = open_oof(run.oof(fold)).attrs
        sizes |= {i: (s[0], s[1]) for i, s in zip(attrs["image_ids"], attrs["sizes"], strict=True)}
        fold_of |= dict.fromkeys(attrs["image_ids"], fold)
        models[fold] = attrs["model_sha256"]
        plans[fold] = attrs.get("views", "")
        presence |= _presence(attrs)
    if gate != "none" and any(len(p_c) != data.num_classes for p_c in presence.values()):
        raise CheckpointError(
            f"{run.path} has out-of-fold predictions without presence, which inference.gate={gate} "
            f"needs. Recreate them with: steelseg oof {run.path}."
        )
    labels = read_labels(DataSet(data.root).train_csv, sizes, num_classes=data.num_classes)
    paths = tuple(run.oof(fold) for fold in chosen)
    return HeldOut(labels, fold_of, models, paths, presence, plans, is_soft=gate == "soft")


def _presence(attrs: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Return presence_c of each strip, by image_id."""
    image_ids = attrs["image_ids"]
    rows = attrs.get("presence", [[]] * len(image_ids))
    return {i: np.array(row, np.float32) for i, row in zip(image_ids, rows, strict=True)}


def assign_inner_folds(
    run: RunFolder, held_out: HeldOut, *, num_folds: int, seed: int
) -> dict[str, int]:
    """Assign strips to inner folds for cross-fitting; near-duplicates get the same one.

    Args:
        run: The run, whose folds.csv has the groups of near-duplicates.
        held_out: The strips.
        num_folds: Number of inner folds; fewer if there are fewer groups.
        seed: The same seed gives the same inner folds.

    Returns:
        Inner fold of each strip, by image_id; none is empty.

    Raises:
        DataError: if there is only one group of strips.
    """
    groups = read_groups(run.folds_csv)
    num_groups = len({groups.get(image_id, image_id) for image_id in held_out.fold_of})
    if num_groups < 2:
        raise DataError(f"{run.path} has predictions of one strip; at least two are needed.")
    assigned = assign_folds(
        held_out.present, num_folds=min(num_folds, num_groups), seed=seed, groups=groups
    )
    # With few strips in large groups a fold can be empty, so the others are numbered again.
    number = {fold: place for place, fold in enumerate(sorted(set(assigned.values())))}
    return {image_id: number[fold] for image_id, fold in assigned.items()}


ToMask = Callable[[str, NDArray[np.uint8]], NDArray[np.bool_]]
"""From image_id and probs_chw to mask_chw."""


def held_out_masks(
    config: Config, run: RunFolder, held_out: HeldOut, tuned: TunedPostprocessing | None
) -> ToMask:
    """Return a function that makes the masks of held-out strips, after a hard gate if there is one.

    Args:
        config: The settings; they take precedence over tuned ones.
        run: The run; gets a warning if predictions have other flips or crops than its settings.
        held_out: The predictions.
        tuned: Content of postprocess.json; None without it.

    Raises:
        CheckpointError: if tuning used other predictions.
    """
    own = describe_plan(config.inference.tta, config.data.crop if config.inference.crops else None)
    if others := sorted(set(held_out.plans.values()) - {"", own}):
        run.warn(
            f"out-of-fold predictions were made with {others[0]}, but `steelseg predict` uses "
            f"{own}. Predict again: steelseg oof {run.path}."
        )
    if tuned is None or not has_untuned_settings(config):
        return _gated(held_out, mask_settings(config))
    is_known = held_out.fold_of.keys() <= tuned.inner_fold_of.keys()
    if not is_known or any(tuned.models.get(f) != digest for f, digest in held_out.models.items()):
        raise CheckpointError(
            f"{run.postprocess_json} was tuned on other predictions. "
            f"Tune again: steelseg tune {run.path}."
        )
    makers = [_gated(held_out, mask_settings(config, own)) for own in tuned.inner_folds]
    return lambda image_id, probs_chw: makers[tuned.inner_fold_of[image_id]](image_id, probs_chw)


def _gated(held_out: HeldOut, settings: MaskSettings) -> ToMask:
    """Return a function that applies a hard gate and makes masks; `read` applies a soft one."""
    to_mask = mask_maker(settings)
    if not settings.gate:
        return lambda _, probs_chw: to_mask(probs_chw)
    return lambda image_id, probs_chw: to_mask(
        close(probs_chw, held_out.presence[image_id], least=settings.gate)
    )
