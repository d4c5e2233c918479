"""Readers of the files of a run, as plain records for the report.

A missing file raises CheckpointError with the command that makes it; the report shows that line
instead of the part. A damaged file raises DataError. Nothing is computed again: the figures are
those of history.csv, metrics.json and postprocess.json.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from steelseg.config import former
from steelseg.errors import CheckpointError, DataError
from steelseg.files.json_file import read_json
from steelseg.run.ensemble_json import read_ensemble, shorten
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import given, read_tuned
from steelseg.scoring.blending.report import summary
from steelseg.scoring.metrics import Figures
from steelseg.scoring.postprocess import MaskSettings

_KINDS = ("untuned", "cross_fitted", "naive")


@dataclass(frozen=True)
class Chosen:
    """The tuned settings and scores of one class."""

    name: str
    channel: int
    settings: Mapping[str, float]
    """Chosen on all strips, by the names in `MaskSettings`."""
    over_parts: Mapping[str, tuple[float, float]]
    """Lowest and highest choice of the inner folds, by setting."""
    landscape: Mapping[str, Any]
    operating_points: Sequence[Mapping[str, Any]]
    scores: Mapping[str, Mapping[str, Any]]
    """Scores by kind: untuned, cross_fitted, naive."""


@dataclass(frozen=True)
class Tuning:
    """The content of postprocess.json."""

    objective: Mapping[str, Any]
    """The settings of section tune."""
    strips: int
    parts: int
    scores: Mapping[str, Mapping[str, Any]]
    """Scores over all classes by kind: untuned, cross_fitted, naive."""
    classes: tuple[Chosen, ...]

    @property
    def rows(self) -> list[tuple[str, int | None, Mapping[str, Mapping[str, Any]]]]:
        """Name, channel and scores of all classes together, then of each class."""
        return [("all", None, self.scores), *((c.name, c.channel, c.scores) for c in self.classes)]

    @property
    def optimism(self) -> float:
        """Optimistic bias: naive minus cross-fitted Dice."""
        return float(self.scores["naive"]["dice"] - self.scores["cross_fitted"]["dice"])


def read_tuning(run: RunFolder, names: Sequence[str]) -> Tuning:
    """Read postprocess.json.

    Raises:
        CheckpointError: if it is missing.
        DataError: if it is damaged or of other classes.
    """
    tuned = read_tuned(run.postprocess_json)
    command = f"steelseg tune {run.path}"
    if tuned is None:
        raise CheckpointError(f"There is no {run.postprocess_json}. Create it with: {command}.")
    with file_errors(run.postprocess_json, command):
        scores, classes = tuned.report["scores"], tuned.report["classes"]
        if len(tuned.settings.threshold) != len(names):
            raise ValueError("other classes")
        return Tuning(
            objective=tuned.report["tune"],
            strips=len(tuned.inner_fold_of),
            parts=len(tuned.inner_folds),
            scores={kind: scores[kind] for kind in _KINDS},
            classes=tuple(
                Chosen(
                    name,
                    c,
                    settings=_of_class(tuned.settings, c),
                    over_parts=_spread([_of_class(part, c) for part in tuned.inner_folds]),
                    landscape=classes[c]["landscape"],
                    operating_points=classes[c]["operating_points"],
                    scores={kind: scores[kind]["classes"][c] for kind in _KINDS},
                )
                for c, name in enumerate(names)
            ),
        )


def _of_class(settings: MaskSettings, channel: int) -> dict[str, float]:
    """Return the settings of one class."""
    return {name: values[channel] for name, values in given(settings).items()}


def _spread(parts: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of each setting."""
    return {name: (min(p[name] for p in parts), max(p[name] for p in parts)) for name in parts[0]}


Value = float | None

_FIGURES = tuple(field.name for field in fields(Figures))


@contextmanager
def file_errors(path: Path, command: str) -> Iterator[None]:
    """Turn errors in the block into ones that name the file and the command that makes it."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"There is no {path}. Create it with: {command}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, csv.Error):
        raise DataError(
            f"{path} is damaged, or of an older version. Recreate it with: {command}."
        ) from None


@dataclass(frozen=True)
class Environment:
    """The environment in which a run was made."""

    time: datetime
    command: str
    python: str
    platform: str
    packages: Mapping[str, str | None]
    """Version by package; None if it was not installed."""


def read_environment(run: RunFolder) -> Environment | None:
    """Read environment.json; None without the file.

    Raises:
        DataError: if it is damaged.
    """
    path = run.path / "environment.json"
    if not path.exists():
        return None
    return read_json(path, _environment, remedy="Remove it; the report does without.")


def _environment(content: Mapping[str, Any]) -> Environment:
    return Environment(
        time=datetime.fromisoformat(content["time"]),
        command=" ".join(content["command"]),
        python=str(content["python"]),
        platform=str(content["platform"]),
        packages=dict(content["packages"]),
    )


@dataclass(frozen=True)
class History:
    """The epochs of one fold."""

    fold: int
    columns: Mapping[str, tuple[Value, ...]]
    """Values of all epochs, by the column names of history.csv."""

    @property
    def epochs(self) -> list[int]:
        """Numbers of the epochs."""
        return [int(epoch or 0) for epoch in self.columns["epoch"]]

    @property
    def best(self) -> int:
        """Index of the epoch with the highest monitored Dice."""
        monitored = self.columns.get("val_best_threshold_dice", self.columns["val_dice"])
        dices = [-1.0 if dice is None else dice for dice in monitored]
        return dices.index(max(dices))

    @property
    def all_empty(self) -> Value:
        """Dice of empty masks on the held-out strips of the fold."""
        pairs, positives = self.columns["val_pairs"][-1], self.columns["val_positives"][-1]
        return None if not pairs or positives is None else 1 - positives / pairs


def read_histories(run: RunFolder, num_folds: int) -> list[History]:
    """Read history.csv of each fold that has one.

    Raises:
        CheckpointError: if none has.
        DataError: if one is damaged.
    """
    if run.ensemble_json.exists():
        members = (shorten(run.path / member.run) for member in read_ensemble(run).members)
        raise CheckpointError(
            "This run combines others. Each has a report of its training: "
            + "; ".join(f"steelseg report {path}" for path in members)
            + "."
        )
    command = f"steelseg train {run.path} --resume"
    folds = [k for k in range(num_folds) if (run.fold(k) / "history.csv").exists()]
    if not folds:
        raise CheckpointError(f"No fold of {run.path} has a history.csv. Train: {command}.")
    return [_read_history(run.fold(fold) / "history.csv", fold, command) for fold in folds]


def _read_history(path: Path, fold: int, command: str) -> History:
    """Read one history.csv; an empty cell is an undefined figure."""
    with file_errors(path, command), path.open(encoding="utf-8", newline="") as file:
        rows = [former.translate_row(row) for row in csv.DictReader(file, strict=True)]
        names = list(rows[0])
        needed = {"epoch", "learning_rate", "train_loss", "val_loss", "val_dice", "val_pairs"}
        if missing := (needed | {"val_positives", "val_dice_positive"}) - set(names):
            raise KeyError(missing)
        return History(
            fold, {name: tuple(float(r[name]) if r[name] else None for r in rows) for name in names}
        )


def read_members(run: RunFolder) -> str | None:
    """Return weights and scores of the members of a combined run as text; None for other runs.

    Raises:
        DataError: if ensemble.json is damaged.
    """
    if not run.ensemble_json.exists():
        return None
    with file_errors(run.ensemble_json, read_ensemble(run).command(run.path)):
        return summary(json.loads(run.ensemble_json.read_text(encoding="utf-8"))["report"])


@dataclass(frozen=True)
class ScoreRow:
    """The figures of one class, one fold, or all classes together."""

    name: str
    channel: int | None
    """None unless the row is of a class."""
    figures: Mapping[str, Value]
    """By the names in `metrics.Figures`; None if undefined."""
    bounds: Mapping[str, Sequence[float] | None]
    """95 % intervals; empty for a fold."""
    empty: Value
    """Dice of empty masks."""

    @property
    def gain(self) -> Value:
        """Dice minus that of empty masks."""
        dice = self.figures["dice"]
        return None if dice is None or self.empty is None else dice - self.empty

    @property
    def found(self) -> int:
        """Number of positive pairs with a mask."""
        return int((self.figures["positives"] or 0) - (self.figures["misses"] or 0))

    @property
    def negatives(self) -> int:
        """Number of pairs without a defect."""
        return int((self.figures["pairs"] or 0) - (self.figures["positives"] or 0))


@dataclass(frozen=True)
class Evaluation:
    """The content of metrics.json."""

    strips: int
    is_cross_fitted: bool
    overall: ScoreRow
    classes: tuple[ScoreRow, ...]
    folds: tuple[ScoreRow, ...]
    details: tuple[Mapping[str, Any], ...]
    """Components, precision_recall and calibration of each class."""

    @property
    def rows(self) -> tuple[ScoreRow, ...]:
        """All classes together, then each class."""
        return (self.overall, *self.classes)

    @property
    def never_found(self) -> list[ScoreRow]:
        """Classes that occur, but were found in no strip."""
        return [row for row in self.classes if row.figures["positives"] and not row.found]


def read_evaluation(run: RunFolder, names: Sequence[str]) -> Evaluation:
    """Read metrics.json.

    Raises:
        CheckpointError: if it is missing.
        DataError: if it is damaged or of other classes.
    """
    path = run.metrics_json
    with file_errors(path, f"steelseg evaluate {run.path}"):
        content = json.loads(path.read_text(encoding="utf-8"))
        overall, *classes = (
            _score_row(content, tail, name, channel)
            for tail, name, channel in [
                ("", "all", None),
                *((f"_{c + 1}", name, c) for c, name in enumerate(names)),
            ]
        )
        details = tuple(content["classes"])
        for needed in ("components", "precision_recall", "calibration"):
            [detail[needed] for detail in details]
        if len(details) != len(names):
            raise ValueError("other classes")
        return Evaluation(
            strips=int(content["strips"]),
            is_cross_fitted=content["masks"] == "cross-fitted",
            overall=overall,
            classes=tuple(classes),
            folds=tuple(_fold_row(fold, row) for fold, row in content["folds"].items()),
            details=details,
        )


def _score_row(content: Any, tail: str, name: str, channel: int | None) -> ScoreRow:
    """Read the figures with one suffix in metrics.json."""
    return ScoreRow(
        name,
        channel,
        {figure: content["oof"][f"{figure}{tail}"] for figure in _FIGURES},
        {figure: content["intervals"].get(f"{figure}{tail}") for figure in _FIGURES},
        content["all_empty"][f"dice{tail}"],
    )


def _fold_row(fold: str, row: Mapping[str, Any]) -> ScoreRow:
    """Read the figures of one fold."""
    figures = {figure: row[figure] for figure in _FIGURES}
    empty = 1 - figures["positives"] / figures["pairs"] if figures["pairs"] else None
    return ScoreRow(f"fold {fold}", None, figures, {}, empty)
