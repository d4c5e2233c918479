"""The members of a combined run, and the refusals of runs and folders that cannot be used.

Axes: c classes, k candidates.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelseg.config.config import Config
from steelseg.errors import ConfigError
from steelseg.evaluation.ensemble.candidates import Candidate
from steelseg.run.ensemble_json import EnsembleMember, EnsembleSpec
from steelseg.run.run_folder import RunFolder
from steelseg.scoring.blending.blend import Weights
from steelseg.scoring.blending.weights import Weighing

# Files of a combined run; a folder with any other file is not overwritten.
_OURS = (
    *("config.yaml", "environment.json", "folds.csv", "ensemble.json", "training_log.txt"),
    *("events.jsonl", "postprocess.json", "cascade.json", "metrics.json", "scores.csv"),
    "report.html",
)


@dataclass(frozen=True)
class Pool:
    """The runs that are combined, and how."""

    config: Config
    """Settings of the combined run."""

    out: Path
    """Folder of the combined run."""

    weights: Weighing

    per_class: bool
    """Choose separate weights for each class."""

    candidates: tuple[Candidate, ...]
    """The runs whose masks are combined."""

    presence: tuple[Candidate, ...]
    """The runs of --presence."""

    @property
    def with_presence(self) -> tuple[Candidate, ...]:
        """Runs whose presence is averaged: those of --presence, otherwise all that have one."""
        return self.presence or tuple(c for c in self.candidates if c.has_presence)


def build_spec(pool: Pool, weights_kc: Weights, by_fold: Sequence[Weights]) -> EnsembleSpec:
    """Return the content of ensemble.json; members are in the order of the candidates.

    Args:
        pool: The runs.
        weights_kc: Weights chosen on all strips.
        by_fold: Weights for the strips of each inner fold, chosen on the others.
    """
    averaged = pool.with_presence
    members = []
    for k, candidate in enumerate(pool.candidates):
        presence = sum(_is_same(candidate, other) for other in averaged) / max(len(averaged), 1)
        if weights_kc[k].any() or presence:
            members.append(_member(pool, candidate, tuple(map(float, weights_kc[k])), presence))
    for candidate in averaged:
        if not any(_is_same(candidate, other) for other in pool.candidates):
            no_weights = (0.0,) * weights_kc.shape[1]
            members.append(_member(pool, candidate, no_weights, 1 / len(averaged)))
    return EnsembleSpec(
        members=tuple(members),
        parts=[_stored_weights(pool, chosen_kc) for chosen_kc in by_fold],
        words=("--weights", pool.weights, *(["--per-class"] if pool.per_class else [])),
        runs=tuple(_relative(pool, candidate.run) for candidate in pool.candidates),
        presence_runs=tuple(_relative(pool, candidate.run) for candidate in pool.presence),
    )


def _is_same(a: Candidate, b: Candidate) -> bool:
    """Whether two runs predict with the same networks in the same way."""
    return a.trained.models == b.trained.models and (a.tta, a.crop) == (b.tta, b.crop)


def _member(
    pool: Pool, candidate: Candidate, weights: tuple[float, ...], presence: float
) -> EnsembleMember:
    """Return a candidate as a member of ensemble.json."""
    return EnsembleMember(
        run=_relative(pool, candidate.run),
        models=candidate.trained.models,
        tta=candidate.tta,
        crop=candidate.crop,
        weights=weights,
        presence=presence,
    )


def _stored_weights(pool: Pool, weights_kc: Weights) -> list[dict[str, Any]]:
    """Return the weights of one inner fold for ensemble.json, without runs that get none."""
    return [
        {"run": k, "tta": candidate.tta, "weights": [float(weight) for weight in weights_kc[k]]}
        for k, candidate in enumerate(pool.candidates)
        if weights_kc[k].any()
    ]


def _relative(pool: Pool, run: RunFolder) -> str:
    """Return the path of a run from the folder of the combined one."""
    return Path(os.path.relpath(run.path, pool.out)).as_posix()


def refuse_nothing_to_do(
    paths: Sequence[Path], presence: Sequence[Path], *, weights: Weighing, per_class: bool
) -> None:
    """Raise ConfigError if an argument has no effect."""
    if len(paths) == 1 and not presence:
        raise ConfigError(f"{paths[0]} alone is not an ensemble. Name another run.")
    if len(paths) == 1 and weights != "equal":
        raise ConfigError(
            f"--weights {weights} needs several runs, and {paths[0]} is the only one. Omit it, "
            "or name another run."
        )
    if per_class and weights == "equal":
        raise ConfigError(
            "--per-class applies to chosen weights, and a plain mean has none. Omit it, or use "
            "--weights greedy."
        )


def refuse_no_presence(candidates: Sequence[Candidate]) -> None:
    """Raise ConfigError if a run of --presence does not predict presence."""
    for candidate in candidates:
        if not candidate.has_presence:
            raise ConfigError(
                f"{candidate.run.path} does not predict presence. Train it with "
                "model.presence_head=true, or predict it again: steelseg oof "
                f"{candidate.run.path}."
            )


def refuse_other_folder(out: Path) -> None:
    """Raise ConfigError unless `out` is new, empty, or contains only a combined run."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out} is not a folder. Choose another --out.")
    names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if not names:
        return
    if "ensemble.json" not in names:
        raise ConfigError(f"{out} contains files but not a combined run. Choose another --out.")
    unexpected = [name for name in names if name not in _OURS and not name.startswith("fold_")]
    if unexpected:
        raise ConfigError(
            f"{out / unexpected[0]} is not part of the combined run there. Move it elsewhere, "
            "or choose another --out."
        )
