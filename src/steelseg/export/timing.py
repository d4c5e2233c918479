"""Time several models on the same strips, from image file to run-length encoded rows.

In each round every model is loaded, warmed up and timed in turn, so that only one is in memory and
other load on the machine slows each of them equally. The median of the rounds is reported.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import rle
from steelseg.data.formats.images import read_image
from steelseg.inference.model_source import ResolvedModel
from steelseg.inference.predictor import Predictor
from steelseg.progress import progress as show

# Strips whose probabilities are kept for comparison; 6.6 MB each with 4 classes of 256x1600.
_COMPARED = 8

Answer = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""probs_chw and mask_chw of a strip."""


@dataclass(frozen=True)
class Measured:
    """Figures of one model."""

    strips_per_second: float
    """Throughput of a stream of strips, in the median round."""

    latency_ms: float
    """Median latency of a single strip."""

    latency_95_ms: float
    """95th percentile of the latency."""

    difference: float
    """Largest difference of its probabilities from those of the first model."""

    masks_that_differ: int
    """Number of masks that differ from those of the first model."""

    masks: int
    """Number of masks that were compared."""


@dataclass
class _Tally:
    """Accumulated measurements of one model."""

    rates: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


def measure(
    models: Mapping[str, ResolvedModel], paths: Sequence[Path], *, rounds: int
) -> dict[str, Measured]:
    """Time several models.

    Args:
        models: Models by name; masks of the others are compared with those of the first.
        paths: Image files.
        rounds: Timing rounds of each.

    Returns:
        The figures of each model, by name.
    """
    tallies = {name: _Tally() for name in models}
    turns = [(turn, name) for turn in range(rounds) for name in models]
    for _, name in show(turns, len(turns), "bench"):
        _take_turn(tallies[name], models[name], paths)
    first = next(iter(tallies.values())).answers
    return {name: _measured(tally, first) for name, tally in tallies.items()}


def _take_turn(tally: _Tally, model: ResolvedModel, paths: Sequence[Path]) -> None:
    """Load a model, warm it up, and time it."""
    predictor = Predictor(model)
    tally.answers = _stream(predictor, paths[:_COMPARED])
    begin = time.perf_counter()
    _stream(predictor, paths, keep=False)
    tally.rates.append(len(paths) / (time.perf_counter() - begin))
    for path in paths:
        begin = time.perf_counter()
        _encode(predictor(path))
        tally.latencies_ms.append(1000 * (time.perf_counter() - begin))


def _stream(predictor: Predictor, paths: Sequence[Path], *, keep: bool = True) -> list[Answer]:
    """Predict files as `steelseg predict` does, and discard the rows."""
    channels = predictor.config.data.channels
    strips = predictor.stream(
        map(str, paths), lambda path: read_image(Path(path), channels=channels)
    )
    kept = []
    for _, _, mask_chw, probs_chw in strips:
        _encode(mask_chw)
        if keep:
            kept.append((probs_chw, mask_chw))
    return kept


def _encode(mask_chw: NDArray[np.bool_]) -> list[str]:
    """Encode the rows of a strip."""
    return [rle.encode(mask) for mask in mask_chw]


def _measured(tally: _Tally, first: Sequence[Answer]) -> Measured:
    """Summarise measurements, and compare with the first model."""
    pairs = list(zip(tally.answers, first, strict=True))
    return Measured(
        strips_per_second=median(tally.rates),
        latency_ms=median(tally.latencies_ms),
        latency_95_ms=float(np.percentile(tally.latencies_ms, 95)),
        difference=max(float(np.abs(own[0] - other[0]).max()) for own, other in pairs),
        masks_that_differ=sum(
            int((own[1] != other[1]).any(axis=(1, 2)).sum()) for own, other in pairs
        ),
        masks=sum(len(own[1]) for own, _ in pairs),
    )
