"""ensemble.json: the members of a combined run, and their weights.

A combined run has out-of-fold predictions, so that every stage can score it, but no networks:
prediction uses those of its members. Members are identified by the SHA-256 of their checkpoints, so
a member that was trained since is noticed.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steelseg.config.flips import FLIPS
from steelseg.files.atomic import write_text
from steelseg.files.json_file import read_json
from steelseg.run.run_folder import RunFolder

Crop = tuple[int, int, int]
"""Height, width and stride of crops, in pixels."""


@dataclass(frozen=True)
class EnsembleMember:
    """One member of a combined run."""

    run: str
    """Its run folder, relative to the folder of ensemble.json."""

    models: Mapping[int, str]
    """SHA-256 of the checkpoint of each fold."""

    tta: str
    """TTA flips: none, hflip, vflip or both."""

    crop: Crop | None
    """Crops; None predicts whole strips."""

    weights: tuple[float, ...]
    """Weight of its masks, one per class; those of all members sum to 1."""

    presence: float
    """Weight of its presence; all sum to 1, or are 0 without presence."""


@dataclass(frozen=True)
class EnsembleSpec:
    """The content of ensemble.json, without the report."""

    members: tuple[EnsembleMember, ...]
    """In the order in which their probabilities are added."""

    parts: Any
    """Weights of the out-of-fold predictions, one item per inner fold, as plain values."""

    words: tuple[str, ...]
    """The options of the command that made it, without runs and folder."""

    runs: tuple[str, ...]
    """The runs that were combined, relative to the folder."""

    presence_runs: tuple[str, ...]
    """The runs of --presence, relative to the folder."""

    def digest(self, fold: int) -> str:
        """SHA-256 over all that the predictions of a fold depend on, in place of a checkpoint's."""
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
        """The combined folds, ascending."""
        return sorted(self.members[0].models)

    @property
    def has_presence(self) -> bool:
        """Whether it predicts presence."""
        return any(member.presence for member in self.members)

    def command(self, folder: Path) -> str:
        """Return the command that combines the runs again."""
        runs = [str(shorten(folder / run)) for run in self.runs]
        presence = [str(shorten(folder / run)) for run in self.presence_runs]
        words = [*runs, *self.words, *(["--presence", *presence] if presence else [])]
        return shlex.join(["steelseg", "ensemble", *words, "--out", str(folder)])


def shorten(path: Path) -> Path:
    """Resolve `..` without reading the disk: outputs/both/../a becomes outputs/a."""
    steps: list[str] = []
    for step in path.parts:
        if step == ".." and steps and steps[-1] not in ("..", path.anchor):
            steps.pop()
        else:
            steps.append(step)
    return Path(*steps)


def write_ensemble(path: Path, spec: EnsembleSpec, report: Mapping[str, Any]) -> None:
    """Write ensemble.json, with a report of scores."""
    write_text(path, json.dumps({**asdict(spec), "report": report}, indent=1) + "\n")


def read_ensemble(run: RunFolder) -> EnsembleSpec:
    """Read ensemble.json.

    Raises:
        DataError: if it is damaged.
    """
    remedy = f"Recreate it with: steelseg ensemble RUN RUN --out {run.path}."
    return read_json(run.ensemble_json, _parse, remedy=remedy)


def _parse(content: Mapping[str, Any]) -> EnsembleSpec:
    spec = EnsembleSpec(
        members=tuple(_member(member) for member in content["members"]),
        parts=content["parts"],
        words=_current_options(tuple(map(str, content["words"]))),
        runs=tuple(map(str, content["runs"])),
        presence_runs=tuple(map(str, content["presence_runs"])),
    )
    folds = {tuple(sorted(member.models)) for member in spec.members}
    if len(folds) != 1 or folds == {()}:
        raise ValueError("members of other folds")
    return spec


def _current_options(words: tuple[str, ...]) -> tuple[str, ...]:
    """Drop options that were removed: --weights learnt and --choose-tta.

    They chose the weights and flips that the members have, so only combining again differs.
    """
    if words[:2] == ("--weights", "learnt"):
        return ()
    return words[: words.index("--choose-tta")] if "--choose-tta" in words else words


def _member(content: Mapping[str, Any]) -> EnsembleMember:
    """Parse a member."""
    crop = content["crop"]
    height, width, stride = map(int, crop or (0, 0, 0))
    if content["tta"] not in FLIPS:
        raise ValueError(content["tta"])
    return EnsembleMember(
        run=str(content["run"]),
        models={int(fold): str(digest) for fold, digest in content["models"].items()},
        tta=content["tta"],
        crop=(height, width, stride) if crop else None,
        weights=tuple(map(float, content["weights"])),
        presence=float(content["presence"]),
    )
