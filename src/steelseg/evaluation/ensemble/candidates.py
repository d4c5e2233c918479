"""What an ensemble is chosen from: the held-out predictions of several runs, side by side.

All of them are of the same strips in the same folds, so that no prediction of a mean was made by a
network which had seen the strip.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.data.folder import DataSet
from steelseg.data.folds import read_fold_numbers
from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.inference.forward import forward_plan
from steelseg.inference.members import Member, checkpoint_member
from steelseg.run.ensemble_json import Crop
from steelseg.run.held_out import HeldOut, open_held_out
from steelseg.run.kinds import refuse_combined
from steelseg.run.oof_store import read_oof, views_in_words
from steelseg.run.run_folder import RunFolder


@dataclass(frozen=True)
class TrainedRun:
    """A run that may take part."""

    run: RunFolder
    config: Config
    members: Mapping[int, Member]
    """The network of each fold."""

    @property
    def models(self) -> dict[int, str]:
        """SHA-256 of the checkpoint of each fold."""
        return {fold: member.sha256 for fold, member in self.members.items()}


@dataclass(frozen=True)
class Candidate:
    """Held-out predictions of a run, by one set of views."""

    trained: TrainedRun
    place: int
    """Of the run among those to choose from."""

    tta: str
    crop: Crop | None
    predictions: RunFolder
    """Where they lie."""

    held_out: HeldOut

    def presence(self, image_id: str) -> NDArray[np.float32]:
        """presence_c of a strip; empty where there is none."""
        return self.held_out.presence[image_id]

    @property
    def has_presence(self) -> bool:
        """Whether it says how likely a class is on a strip at all."""
        return all(len(presence_c) for presence_c in self.held_out.presence.values())


def open_runs(paths: Sequence[Path]) -> list[TrainedRun]:
    """Open trained runs, in an order that does not hang on how they were named.

    Raises:
        CheckpointError: if one is no run folder, or has no trained fold.
        ConfigError: if one combines runs itself, or two are the same.
    """
    opened = [_open_run(RunFolder(path)) for path in paths]
    for place, trained in enumerate(opened):
        for other in opened[:place]:
            if other.models == trained.models:
                raise ConfigError(
                    f"{trained.run.path} has the networks of {other.run.path}. Name a run once."
                )
    return sorted(opened, key=lambda trained: sorted(trained.models.items()))


def _open_run(run: RunFolder) -> TrainedRun:
    """Read the settings and the headers of the checkpoints of a run."""
    config = run.load_config()
    refuse_combined(run, "Name its members instead.")
    folds = run.trained_folds(config.data.num_folds)
    return TrainedRun(
        run, config, {fold: checkpoint_member(run.best_model(fold)) for fold in folds}
    )


def refuse_other_folds(runs: Sequence[TrainedRun]) -> None:
    """Raise DataError unless all runs have the same strips in the same folds."""
    first, *others = runs
    expected = read_fold_numbers(first.run.folds_csv)
    for other in others:
        found = read_fold_numbers(other.run.folds_csv)
        _refuse_difference(first.run, expected, other.run, found, way_out=_SAME_FOLDS)


_SAME_FOLDS = (
    "A mean of them would be judged on strips that a network was trained on. Train with the same "
    "train.csv, data.num_folds, data.group_duplicates and data.fold_seed (null: train.seed)."
)


def _refuse_difference(
    first: RunFolder,
    expected: Mapping[str, int],
    other: RunFolder,
    found: Mapping[str, int],
    *,
    way_out: str,
) -> None:
    """Raise DataError if a strip is elsewhere, or not there at all."""
    odd = sorted(i for i in expected.keys() | found.keys() if expected.get(i) != found.get(i))
    if odd:
        here, there = (_fold(fold_of, odd[0]) for fold_of in (expected, found))
        raise DataError(
            f"{first.path} has {odd[0]} {here}, {other.path} {there} ({len(odd)} such). {way_out}"
        )


def _fold(fold_of: Mapping[str, int], image_id: str) -> str:
    """Where a strip is, in words."""
    return f"in fold {fold_of[image_id]}" if image_id in fold_of else "in none"


def open_candidate(
    trained: TrainedRun, place: int, *, root: Path, predictions: RunFolder, tta: str
) -> Candidate:
    """Open held-out predictions of a run.

    Args:
        trained: The run.
        place: Of the run among those to choose from.
        root: Folder of the data set.
        predictions: Where its predictions lie: the run itself, or a folder laid out like it.
        tta: The flips that they were made with.

    Raises:
        CheckpointError: if there are none, a fold was trained on since, or they were made with
            other flips or crops than the run has.
    """
    held_out = open_held_out(
        predictions,
        train_csv=DataSet(root).train_csv,
        num_classes=trained.config.data.num_classes,
        num_folds=trained.config.data.num_folds,
    )
    way_out = f"Predict again: steelseg oof {trained.run.path}."
    for fold, digest in held_out.models.items():
        if trained.models.get(fold) != digest:
            raise CheckpointError(
                f"{predictions.oof(fold)} was predicted by another "
                f"{trained.run.best_model(fold)}. {way_out}"
            )
    if absent := sorted(trained.models.keys() - held_out.models.keys()):
        raise CheckpointError(f"{predictions.oof(absent[0])} is missing. {way_out}")
    crop = forward_plan(trained.config).crop
    own = views_in_words(tta, crop)
    for fold, views in held_out.views.items():
        if views not in ("", own):
            raise CheckpointError(
                f"{predictions.oof(fold)} was predicted with {views}, and the run has "
                f"{own}. {way_out}"
            )
    return Candidate(trained, place, tta, crop, predictions, held_out)


def refuse_other_strips(candidates: Sequence[Candidate]) -> None:
    """Raise DataError unless all predict the same strips, of the same size."""
    first, *others = candidates
    expected = first.held_out
    for other in others:
        _refuse_difference(
            first.trained.run,
            expected.fold_of,
            other.trained.run,
            other.held_out.fold_of,
            way_out="Only what all predict can be combined: train and predict the same folds.",
        )
        for image_id, size in expected.labels.sizes.items():
            if other.held_out.labels.sizes[image_id] != size:
                raise DataError(
                    f"{other.predictions.path} predicted {image_id} as another image than "
                    f"{first.predictions.path} did. Predict both again: steelseg oof RUN."
                )


def read_side_by_side(
    candidates: Sequence[Candidate], fold: int
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yield image_id, probs_kchw (times 255) and truth_chw of each strip of a fold.

    Raises:
        DataError: if one has the strips in another order.
    """
    labels = candidates[0].held_out.labels
    readers = [read_oof(candidate.predictions.oof(fold)) for candidate in candidates]
    for strips in zip(*readers, strict=True):
        image_id = strips[0][0]
        for candidate, (name, _) in zip(candidates, strips, strict=True):
            if name != image_id:
                raise DataError(
                    f"{candidate.predictions.oof(fold)} has its strips in another order. "
                    f"Predict again: steelseg oof {candidate.trained.run.path}."
                )
        yield image_id, np.stack([probs_chw for _, probs_chw in strips]), labels.draw(image_id)
