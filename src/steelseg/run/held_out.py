"""Held-out strips: their predictions, their parts, and the masks that they are scored by.

Of a tuned run every strip is masked with settings that were chosen without it, else with the
settings of the run. What scores strips and what shows them both ask here, so that a picture is
of the mask that was scored.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.data.folds import assign_folds, read_groups
from steelseg.data.formats.annotations import Labels, read_labels
from steelseg.errors import CheckpointError, DataError
from steelseg.run.oof_store import open_oof, read_oof, views_in_words
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
    """The out-of-fold predictions of a run beside the truth; iterate to read them."""

    labels: Labels
    """The truth of every strip that was predicted."""

    fold_of: Mapping[str, int]
    """Fold of each strip, in the order of reading."""

    models: Mapping[int, str]
    """SHA-256 of the model of each fold."""

    paths: tuple[Path, ...]
    """The arrays."""

    presence: Mapping[str, NDArray[np.float32]]
    """presence_c of each strip; empty arrays of a network without a presence head."""

    views: Mapping[int, str]
    """Flips and crops that each fold was predicted with; "" where that is not known."""

    is_soft: bool = False
    """Whether probabilities are read behind a soft gate."""

    def __len__(self) -> int:
        return len(self.fold_of)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
        """Yield image_id, probs_chw (uint8) and truth_chw of each strip."""
        return self.read()

    def read(
        self, only: Container[str] | None = None
    ) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
        """Yield what iterating does, of some image_ids alone; None is all."""
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
    run: RunFolder,
    *,
    train_csv: Path,
    num_classes: int,
    num_folds: int,
    folds: Sequence[int] | None = None,
    gate: GateMode = "none",
) -> HeldOut:
    """Open the predictions of a run.

    Args:
        run: The run.
        train_csv: The labels.
        num_classes: Classes C.
        num_folds: Folds of the run.
        folds: Which to open; None opens all that there are.
        gate: soft gives probabilities behind it; any but none needs a presence head.

    Raises:
        CheckpointError: if there are none, or they lack the presence that a gate needs.
        DataError: if train.csv has a fault.
    """
    chosen = folds or [fold for fold in range(num_folds) if run.oof(fold).exists()]
    if not chosen:
        raise CheckpointError(
            f"{run.path} has no out-of-fold predictions. Make them: steelseg oof {run.path}."
        )
    sizes: dict[str, tuple[int, int]] = {}
    fold_of: dict[str, int] = {}
    models: dict[int, str] = {}
    presence: dict[str, NDArray[np.float32]] = {}
    views: dict[int, str] = {}
    for fold in chosen:
        attrs = open_oof(run.oof(fold)).attrs
        sizes |= {i: (s[0], s[1]) for i, s in zip(attrs["image_ids"], attrs["sizes"], strict=True)}
        fold_of |= dict.fromkeys(attrs["image_ids"], fold)
        models[fold] = attrs["model_sha256"]
        views[fold] = attrs.get("views", "")
        presence |= _presence(attrs)
    if gate != "none" and any(len(presence_c) != num_classes for presence_c in presence.values()):
        raise CheckpointError(
            f"{run.path} has out-of-fold predictions without presence, which inference.gate={gate} "
            f"needs. Make them again: steelseg oof {run.path}."
        )
    labels = read_labels(train_csv, sizes, num_classes=num_classes)
    paths = tuple(run.oof(fold) for fold in chosen)
    return HeldOut(labels, fold_of, models, paths, presence, views, is_soft=gate == "soft")


def _presence(attrs: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """presence_c of each strip, by image_id."""
    image_ids = attrs["image_ids"]
    rows = attrs.get("presence", [[]] * len(image_ids))
    return {i: np.array(row, np.float32) for i, row in zip(image_ids, rows, strict=True)}


def deal_parts(run: RunFolder, held_out: HeldOut, *, parts: int, seed: int) -> dict[str, int]:
    """Deal the strips to parts; those that look alike stay together, as in the folds.

    Args:
        run: The run, whose folds.csv knows which strips look alike.
        held_out: The strips.
        parts: How many parts; of few strips there are fewer.
        seed: The same seed deals the same parts.

    Returns:
        Part of each strip, by image_id; no part is empty.

    Raises:
        DataError: if there is only one strip.
    """
    groups = read_groups(run.folds_csv)
    alone = len({groups.get(image_id, image_id) for image_id in held_out.fold_of})
    if alone < 2:
        raise DataError(f"{run.path} has predictions of one strip; two are needed at least.")
    part_of = assign_folds(held_out.present, num_folds=min(parts, alone), seed=seed, groups=groups)
    # Of few strips in large groups a part may have got none.
    number = {part: place for place, part in enumerate(sorted(set(part_of.values())))}
    return {image_id: number[part] for image_id, part in part_of.items()}


ToMask = Callable[[str, NDArray[np.uint8]], NDArray[np.bool_]]
"""From image_id and probs_chw to mask_chw."""


def held_out_masks(
    config: Config, run: RunFolder, held_out: HeldOut, tuned: TunedPostprocessing | None
) -> ToMask:
    """Make masks by the settings, or by what was tuned without the strip, behind a hard gate.

    Args:
        config: The settings; what they fix goes before what was tuned.
        run: The run, told where predictions were made with other flips or crops than it has.
        held_out: The predictions that masks are made of.
        tuned: What postprocess.json holds; None without it.

    Raises:
        CheckpointError: if tuning has not seen these predictions.
    """
    own = views_in_words(config.inference.tta, config.data.crop if config.inference.crops else None)
    if others := sorted(set(held_out.views.values()) - {"", own}):
        run.warn(
            f"out-of-fold predictions were made with {others[0]}, and `steelseg predict` would "
            f"have {own}. Make them alike: steelseg oof {run.path}."
        )
    if tuned is None or not has_untuned_settings(config):
        return _gated(held_out, mask_settings(config))
    is_known = held_out.fold_of.keys() <= tuned.part_of.keys()
    if not is_known or any(tuned.models.get(f) != digest for f, digest in held_out.models.items()):
        raise CheckpointError(
            f"{run.postprocess_json} was tuned on other predictions. "
            f"Tune again: steelseg tune {run.path}."
        )
    makers = [_gated(held_out, mask_settings(config, part)) for part in tuned.parts]
    return lambda image_id, probs_chw: makers[tuned.part_of[image_id]](image_id, probs_chw)


def _gated(held_out: HeldOut, settings: MaskSettings) -> ToMask:
    """Close the gate where it is hard, then make masks; a soft one is behind us already."""
    to_mask = mask_maker(settings)
    if not settings.gate:
        return lambda _, probs_chw: to_mask(probs_chw)
    return lambda image_id, probs_chw: to_mask(
        close(probs_chw, held_out.presence[image_id], least=settings.gate)
    )
