"""ensemble.json: the runs that a combined run is made of, and what each of them counts for.

A combined run has predictions of its own, for every stage that judges, and no network: prediction
takes those of its members. Each member is known by the SHA-256 of its checkpoints, so that one that
was trained on since is noticed.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steelseg.files.atomic import write_text
from steelseg.files.json_file import read_json
from steelseg.run.run_folder import RunFolder

Crop = tuple[int, int, int]
"""Height, width and stride of crops, in pixels."""


@dataclass(frozen=True)
class Combined:
    """One run of a combined run, as it is predicted with."""

    run: str
    """Its folder, as a path from the folder of ensemble.json."""

    models: Mapping[int, str]
    """SHA-256 of the checkpoint of each fold."""

    tta: str
    """Its flips: none, hflip, vflip or both."""

    crop: Crop | None
    """Its crops; None predicts whole strips."""

    weights: tuple[float, ...]
    """What its pixels count for, one a class; those of all members sum to 1."""

    presence: float
    """What its presence counts for; all sum to 1, or are 0 where there is no presence."""


@dataclass(frozen=True)
class Combination:
    """What ensemble.json tells prediction."""

    members: tuple[Combined, ...]
    """In the order in which their probabilities are added up."""

    parts: Any
    """The weights that held-out strips were combined with, part by part, as plain values."""

    words: tuple[str, ...]
    """The command line that made it, without the runs and the folder."""

    runs: tuple[str, ...]
    """The runs that it chose from, as paths from the folder."""

    presence_runs: tuple[str, ...]
    """The runs that were named for presence, as paths from the folder."""

    def digest(self, fold: int) -> str:
        """SHA-256 over all that the predictions of a fold hang on; it stands for a checkpoint's."""
        content = {
            "members": [
                {**asdict(member), "run": "", "models": member.models[fold]}
                for member in self.members
            ],
            "parts": self.parts,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def folds(self) -> list[int]:
        """The folds that it combines, ascending."""
        return sorted(self.members[0].models)

    @property
    def has_presence(self) -> bool:
        """Whether it says how likely a class is on a strip at all."""
        return any(member.presence for member in self.members)

    def command(self, folder: Path) -> str:
        """The command that makes it anew."""
        runs = [str(shorten(folder / run)) for run in self.runs]
        presence = [str(shorten(folder / run)) for run in self.presence_runs]
        words = [*runs, *self.words, *(["--presence", *presence] if presence else [])]
        return shlex.join(["steelseg", "ensemble", *words, "--out", str(folder)])


def shorten(path: Path) -> Path:
    """Take `outputs/both/../a` for what it is, outputs/a."""
    steps: list[str] = []
    for step in path.parts:
        if step == ".." and steps and steps[-1] not in ("..", path.anchor):
            steps.pop()
        else:
            steps.append(step)
    return Path(*steps)


def write_combination(path: Path, combination: Combination, report: Mapping[str, Any]) -> None:
    """Write ensemble.json, with what else is worth knowing."""
    write_text(path, json.dumps({**asdict(combination), "report": report}, indent=1) + "\n")


def read_combination(run: RunFolder) -> Combination:
    """Read ensemble.json.

    Raises:
        DataError: if it is damaged.
    """
    remedy = f"Make it again: steelseg ensemble RUN RUN --out {run.path}."
    return read_json(run.ensemble_json, _parse, remedy=remedy)


def _parse(content: Mapping[str, Any]) -> Combination:
    combination = Combination(
        members=tuple(_member(member) for member in content["members"]),
        parts=content["parts"],
        words=_current_words(tuple(map(str, content["words"]))),
        runs=tuple(map(str, content["runs"])),
        presence_runs=tuple(map(str, content["presence_runs"])),
    )
    folds = {tuple(sorted(member.models)) for member in combination.members}
    if len(folds) != 1 or folds == {()}:
        raise ValueError("members of other folds")
    return combination


def _current_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """Drop options that were removed: --weights learnt and --choose-tta.

    They chose the weights and flips that the members have, so only combining again differs.
    """
    if words[:2] == ("--weights", "learnt"):
        return ()
    return words[: words.index("--choose-tta")] if "--choose-tta" in words else words


def _member(content: Mapping[str, Any]) -> Combined:
    """Take a member out of JSON."""
    crop = content["crop"]
    height, width, stride = map(int, crop or (0, 0, 0))
    if content["tta"] not in ("none", "hflip", "vflip", "both"):
        raise ValueError(content["tta"])
    return Combined(
        run=str(content["run"]),
        models={int(fold): str(digest) for fold, digest in content["models"].items()},
        tta=content["tta"],
        crop=(height, width, stride) if crop else None,
        weights=tuple(map(float, content["weights"])),
        presence=float(content["presence"]),
    )
