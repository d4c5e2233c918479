"""Trained runs with out-of-fold predictions that can be combined, read strip by strip together.

All runs have the same strips in the same folds, so no prediction in a mean was made by a network
that was trained on the strip.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.data.folds import read_fold_numbers
from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.inference.forward import forward_plan
from steelseg.inference.members import Member, checkpoint_member
from steelseg.run.ensemble_json import Crop
from steelseg.run.held_out import HeldOut, open_held_out
from steelseg.run.kinds import refuse_combined
from steelseg.run.oof_store import describe_plan, read_oof
from steelseg.run.run_folder import RunFolder


@dataclass(frozen=True)
class TrainedRun:
    """A run with its networks."""

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
    """A run with its networks and its out-of-fold predictions."""

    trained: TrainedRun
    held_out: HeldOut

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return self.trained.run

    @property
    def tta(self) -> str:
        """TTA flips of the run."""
        return self.trained.config.inference.tta

    @property
    def crop(self) -> Crop | None:
        """Crops of the run; None if it predicts whole strips."""
        return forward_plan(self.trained.config).crop

    def presence(self, image_id: str) -> NDArray[np.float32]:
        """Return presence_c of a strip; empty without a presence head."""
        return self.held_out.presence[image_id]

    @property
    def has_presence(self) -> bool:
        """Whether the predictions include presence."""
        return all(len(presence_c) for presence_c in self.held_out.presence.values())


def open_runs(paths: Sequence[Path]) -> list[TrainedRun]:
    """Open trained runs, in an order that does not depend on the order of their names.

    Raises:
        CheckpointError: if a path is not a run folder, or has no trained fold.
        ConfigError: if a run is itself a combined run, or two are the same.
    """
    opened = [_open_run(RunFolder(path)) for path in paths]
    for index, trained in enumerate(opened):
        for other in opened[:index]:
            if other.models == trained.models:
                raise ConfigError(
                    f"{trained.run.path} has the same networks as {other.run.path}. "
                    "Name each run once."
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
        _refuse_difference(first.run, expected, other.run, found, remedy=_SAME_FOLDS)


_SAME_FOLDS = (
    "Their mean would be scored on strips that a network was trained on. Train with the same "
    "train.csv, data.num_folds, data.group_duplicates and data.fold_seed (null: train.seed)."
)


def _refuse_difference(
    first: RunFolder,
    expected: Mapping[str, int],
    other: RunFolder,
    found: Mapping[str, int],
    *,
    remedy: str,
) -> None:
    """Raise DataError if a strip is in another fold, or missing."""
    differing = sorted(i for i in expected.keys() | found.keys() if expected.get(i) != found.get(i))
    if differing:
        here, there = (_fold(fold_of, differing[0]) for fold_of in (expected, found))
        raise DataError(
            f"{first.path} has {differing[0]} {here}, but {other.path} has it {there} "
            f"({len(differing)} in total). {remedy}"
        )


def _fold(fold_of: Mapping[str, int], image_id: str) -> str:
    """Say in which fold a strip is."""
    return f"in fold {fold_of[image_id]}" if image_id in fold_of else "in no fold"


def open_candidate(trained: TrainedRun, *, root: Path) -> Candidate:
    """Open the out-of-fold predictions of a run.

    Args:
        trained: The run.
        root: Folder of the data set.

    Raises:
        CheckpointError: if there are none, a fold was trained since, or they were made with
            other flips or crops than the run has.
    """
    run = trained.run
    held_out = open_held_out(trained.config.data.model_copy(update={"root": root}), run)
    candidate = Candidate(trained, held_out)
    remedy = f"Predict again: steelseg oof {run.path}."
    for fold, digest in held_out.models.items():
        if trained.models.get(fold) != digest:
            raise CheckpointError(
                f"{run.oof(fold)} was predicted by a different {run.best_model(fold)}. {remedy}"
            )
    if absent := sorted(trained.models.keys() - held_out.models.keys()):
        raise CheckpointError(f"{run.oof(absent[0])} is missing. {remedy}")
    expected_plan = describe_plan(candidate.tta, candidate.crop)
    for fold, plan in held_out.plans.items():
        if plan not in ("", expected_plan):
            raise CheckpointError(
                f"{run.oof(fold)} was predicted with {plan}, but the run has {expected_plan}. "
                f"{remedy}"
            )
    return candidate


def refuse_other_strips(candidates: Sequence[Candidate]) -> None:
    """Raise DataError unless all predict the same strips, of the same size."""
    first, *others = candidates
    expected = first.held_out
    for other in others:
        _refuse_difference(
            first.run,
            expected.fold_of,
            other.run,
            other.held_out.fold_of,
            remedy="Only strips that all predict can be combined: train and predict the same "
            "folds.",
        )
        for image_id, size in expected.labels.sizes.items():
            if other.held_out.labels.sizes[image_id] != size:
                raise DataError(
                    f"{other.run.path} predicted a different image {image_id} from "
                    f"{first.run.path}. Predict both again: steelseg oof RUN."
                )


def read_side_by_side(
    candidates: Sequence[Candidate], fold: int
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yield image_id, probs_kchw (times 255) and truth_chw of each strip of a fold.

    Raises:
        DataError: if a run has the strips in another order.
    """
    labels = candidates[0].held_out.labels
    readers = [read_oof(candidate.run.oof(fold)) for candidate in candidates]
    for strips in zip(*readers, strict=True):
        image_id = strips[0][0]
        for candidate, (name, _) in zip(candidates, strips, strict=True):
            if name != image_id:
                raise DataError(
                    f"{candidate.run.oof(fold)} has its strips in a different order. "
                    f"Predict again: steelseg oof {candidate.run.path}."
                )
        yield image_id, np.stack([probs_chw for _, probs_chw in strips]), labels.draw(image_id)
