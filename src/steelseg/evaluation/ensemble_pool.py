"""What a combined run is chosen from, and what is written of the choice.

Axes: c classes, k candidates.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from steelseg.config import Config
from steelseg.evaluation.blend import Weights
from steelseg.evaluation.candidates import Candidate, TrainedRun
from steelseg.evaluation.ensemble_file import Combination, Combined
from steelseg.evaluation.judged_blends import Choose
from steelseg.evaluation.view_choice import choose_views
from steelseg.evaluation.weighing import Weigh, Weighing, build_weigh
from steelseg.inference.tta import VIEWS
from steelseg.run_folder import RunFolder


@dataclass(frozen=True)
class EnsemblePlan:
    """How runs are combined."""

    weights: Weighing = "equal"

    per_class: bool = False
    """Weights of each class by itself."""

    choose_tta: tuple[str, ...] = ()
    """Sets of views to choose from, of `tta.VIEWS`; empty takes each run's own."""

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
        return tuple(sorted(self.choose_tta, key=lambda tta: len(VIEWS[tta])))


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
