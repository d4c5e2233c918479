"""What a combined run is chosen from, and what is written of the choice.

Axes: c classes, k candidates.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from steelseg.config.config import Config
from steelseg.errors import ConfigError
from steelseg.evaluation.ensemble.candidates import Candidate, TrainedRun
from steelseg.inference.forward import FLIP_AXES
from steelseg.run.ensemble_json import Combination, Combined
from steelseg.run.run_folder import RunFolder
from steelseg.scoring.blending.blend import Weights
from steelseg.scoring.blending.cross_fit import Choose
from steelseg.scoring.blending.tta_choice import choose_views
from steelseg.scoring.blending.weights import Weigh, Weighing, build_weigh

# What a combined run may hold; another file is not ours to remove.
_OURS = (
    *("config.yaml", "environment.json", "folds.csv", "ensemble.json", "training_log.txt"),
    *("events.jsonl", "postprocess.json", "cascade.json", "metrics.json", "scores.csv"),
    "report.html",
)


@dataclass(frozen=True)
class EnsemblePlan:
    """How runs are combined."""

    weights: Weighing = "equal"

    per_class: bool = False
    """Weights of each class by itself."""

    choose_tta: tuple[str, ...] = ()
    """Sets of views to choose from, of `forward.FLIP_AXES`; empty takes each run's own."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the command line that ask for it."""
        return (
            *("--weights", self.weights),
            *(["--per-class"] if self.per_class else []),
            *(["--choose-tta", *self.choose_tta] if self.choose_tta else []),
        )

    @property
    def views_first(self) -> tuple[str, ...]:
        """The sets of views, those of fewer views first."""
        return tuple(sorted(self.choose_tta, key=lambda tta: len(FLIP_AXES[tta])))


@dataclass(frozen=True)
class Pool:
    """All that a combination is made of."""

    config: Config
    out: Path
    plan: EnsemblePlan
    runs: tuple[TrainedRun, ...]
    candidates: tuple[Candidate, ...]
    lookers: tuple[Candidate, ...]
    """What was named for presence."""

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """Places of each run's candidates."""
        return tuple(
            tuple(k for k, candidate in enumerate(self.candidates) if candidate.place == run)
            for run in range(len(self.runs))
        )

    def weigh(self, weights: Weighing) -> Weigh:
        """What chooses weights."""
        return build_weigh(weights, per_class=self.plan.per_class)

    def choose(self, weights: Weighing) -> Choose:
        """What chooses views and weights."""
        weigh = self.weigh(weights)
        return lambda products: choose_views(products, self.choices, weigh)

    def looking(self, weights_kc: Weights) -> list[Candidate]:
        """Whose presence is averaged: those named for it, else each run's that has one.

        A run takes part with the views that its pixels are predicted with, if they count.
        """
        if self.lookers:
            return list(self.lookers)
        taken = [
            next((k for k in places if weights_kc[k].any()), places[0]) for places in self.choices
        ]
        return [self.candidates[k] for k in taken if self.candidates[k].has_presence]


def combination_of(pool: Pool, weights_kc: Weights, by_part: Sequence[Weights]) -> Combination:
    """What ensemble.json tells prediction: who counts, in a fixed order.

    Args:
        pool: What was chosen from.
        weights_kc: Chosen on all strips.
        by_part: For the strips of each part, chosen on the others.
    """
    looking = pool.looking(weights_kc)
    classes = weights_kc.shape[1]
    members = []
    for k, candidate in enumerate(pool.candidates):
        share = sum(_is_same(candidate, other) for other in looking) / max(len(looking), 1)
        if weights_kc[k].any() or share:
            members.append(_member(pool, candidate, tuple(map(float, weights_kc[k])), share))
    for candidate in looking:
        if not any(_is_same(candidate, other) for other in pool.candidates):
            members.append(_member(pool, candidate, (0.0,) * classes, 1 / len(looking)))
    return Combination(
        members=tuple(members),
        parts=[
            [
                {
                    "run": candidate.place,
                    "tta": candidate.tta,
                    "weights": [float(weight) for weight in weights_c],
                }
                for candidate, weights_c in zip(pool.candidates, chosen, strict=True)
                if weights_c.any()
            ]
            for chosen in by_part
        ],
        words=pool.plan.words,
        runs=tuple(_relative(pool, trained.run) for trained in pool.runs),
        presence_runs=tuple(_relative(pool, looker.trained.run) for looker in pool.lookers),
    )


def _is_same(a: Candidate, b: Candidate) -> bool:
    """Whether two are predicted by the same networks in the same way."""
    return a.trained.models == b.trained.models and (a.tta, a.crop) == (b.tta, b.crop)


def name_of(pool: Pool, candidate: Candidate) -> str:
    """How the report calls a candidate."""
    name = str(candidate.trained.run.path)
    return f"{name} {candidate.tta}" if pool.plan.choose_tta else name


def _member(
    pool: Pool, candidate: Candidate, weights: tuple[float, ...], presence: float
) -> Combined:
    """A candidate as ensemble.json names it."""
    return Combined(
        run=_relative(pool, candidate.trained.run),
        models=candidate.trained.models,
        tta=candidate.tta,
        crop=candidate.crop,
        weights=weights,
        presence=presence,
    )


def _relative(pool: Pool, run: RunFolder) -> str:
    """A run as a path from the combined one."""
    return Path(os.path.relpath(run.path, pool.out)).as_posix()


def refuse_nothing_to_do(
    paths: Sequence[Path], plan: EnsemblePlan, presence: Sequence[Path]
) -> None:
    """Raise ConfigError if what is asked for changes nothing."""
    if len(paths) == 1 and not presence and not plan.choose_tta:
        raise ConfigError(
            f"{paths[0]} is not an ensemble by itself. Name another run, "
            "or choose its flips: --choose-tta."
        )
    if len(paths) == 1 and plan.weights != "equal":
        raise ConfigError(
            f"--weights {plan.weights} has nothing to weigh: {paths[0]} is the only run. Leave it "
            "out, or name another run."
        )
    if plan.per_class and plan.weights == "equal":
        raise ConfigError(
            "--per-class is about weights that are chosen, and a plain mean has none. Leave it "
            "out, or take --weights learnt or greedy."
        )


def refuse_classifier(trained: TrainedRun) -> None:
    """Raise ConfigError if a run says nothing of pixels."""
    if trained.config.model.is_classifier:
        raise ConfigError(
            f"{trained.run.path} is a classifier and says nothing of pixels. Name it behind "
            "--presence."
        )


def refuse_no_presence(lookers: Sequence[Candidate]) -> None:
    """Raise ConfigError if a run that was named for its presence has none."""
    for looker in lookers:
        if not looker.has_presence:
            raise ConfigError(
                f"{looker.trained.run.path} has no presence to take. Train it with "
                "model.presence_head=true, or predict it again: steelseg oof "
                f"{looker.trained.run.path}."
            )


def refuse_other_folder(out: Path) -> None:
    """Raise ConfigError unless `out` is free, an empty folder, or a combination and no more."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out} is not a folder. Choose another --out.")
    names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if not names:
        return
    if "ensemble.json" not in names:
        raise ConfigError(f"{out} holds files and no combined run. Choose another --out.")
    odd = [name for name in names if name not in _OURS and not name.startswith("fold_")]
    if odd:
        raise ConfigError(
            f"{out / odd[0]} is not part of the combined run there. Move it elsewhere, or choose "
            "another --out."
        )
