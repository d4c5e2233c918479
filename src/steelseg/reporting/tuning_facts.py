"""What tuning wrote about a run, as plain records for the page; errors as in `facts`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steelseg.errors import CheckpointError
from steelseg.evaluation.postprocess import MaskSettings
from steelseg.evaluation.tuned import given, read_tuned
from steelseg.reporting.facts import whole
from steelseg.run_folder import RunFolder

_KINDS = ("untuned", "cross_fitted", "naive")
_SHARES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)


@dataclass(frozen=True)
class Chosen:
    """What was tuned for one class."""

    name: str
    channel: int
    settings: Mapping[str, float]
    """Chosen on all strips, by the names of `MaskSettings`."""
    over_parts: Mapping[str, tuple[float, float]]
    """Lowest and highest of what was chosen for each part on the others."""
    landscape: Mapping[str, Any]
    operating_points: Sequence[Mapping[str, Any]]
    scores: Mapping[str, Mapping[str, Any]]
    """Outcome by kind: untuned, cross_fitted, naive."""

    @property
    def milestones(self) -> list[Mapping[str, Any]]:
        """The operating points that first find a round share of the strips, and the last."""
        first = {
            share: next(
                (p for p in self.operating_points if p["found"] >= share * p["positives"]), None
            )
            for share in _SHARES
        }
        reached = [*first.values(), *self.operating_points[-1:]]
        return [p for n, p in enumerate(reached) if p is not None and p not in reached[:n]]


@dataclass(frozen=True)
class Tuning:
    """What postprocess.json holds."""

    objective: Mapping[str, Any]
    """The settings of section tune."""
    strips: int
    parts: int
    scores: Mapping[str, Mapping[str, Any]]
    """Outcome over all classes by kind: untuned, cross_fitted, naive."""
    classes: tuple[Chosen, ...]

    @property
    def rows(self) -> list[tuple[str, int | None, Mapping[str, Mapping[str, Any]]]]:
        """Name, channel and outcomes of everything, then of each class."""
        return [("all", None, self.scores), *((c.name, c.channel, c.scores) for c in self.classes)]

    @property
    def optimism(self) -> float:
        """By how much a score on the strips that were tuned on flatters."""
        return float(self.scores["naive"]["dice"] - self.scores["cross_fitted"]["dice"])


def read_tuning(run: RunFolder, names: Sequence[str]) -> Tuning:
    """Read postprocess.json.

    Raises:
        CheckpointError: if it is not there.
        DataError: if it is damaged or of other classes.
    """
    tuned = read_tuned(run.postprocess_json)
    command = f"steelseg tune {run.path}"
    if tuned is None:
        raise CheckpointError(f"There is no {run.postprocess_json}. Make it: {command}.")
    with whole(run.postprocess_json, command):
        scores, classes = tuned.report["scores"], tuned.report["classes"]
        if len(tuned.settings.threshold) != len(names):
            raise ValueError("other classes")
        return Tuning(
            objective=tuned.report["tune"],
            strips=len(tuned.part_of),
            parts=len(tuned.parts),
            scores={kind: scores[kind] for kind in _KINDS},
            classes=tuple(
                Chosen(
                    name,
                    c,
                    settings=_of_class(tuned.settings, c),
                    over_parts=_spread([_of_class(part, c) for part in tuned.parts]),
                    landscape=classes[c]["landscape"],
                    operating_points=classes[c]["operating_points"],
                    scores={kind: scores[kind]["classes"][c] for kind in _KINDS},
                )
                for c, name in enumerate(names)
            ),
        )


def _of_class(settings: MaskSettings, channel: int) -> dict[str, float]:
    """The settings of one class."""
    return {name: values[channel] for name, values in given(settings).items()}


def _spread(parts: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Lowest and highest of each setting."""
    return {name: (min(p[name] for p in parts), max(p[name] for p in parts)) for name in parts[0]}
