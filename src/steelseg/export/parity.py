"""Several networks on the same strips: are they one model, and which is the fastest.

Every batch goes through all networks in turns, so that what else the machine does slows each
alike. Masks are made as prediction makes them. The first network is the one that the others are
held against.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steelseg.inference.forward import Batch, ForwardPlan, Network, predict_batch
from steelseg.scoring.gate import Gate, open_gate
from steelseg.scoring.metrics import count_pixels, score


@dataclass(frozen=True)
class Compared:
    """How one network did."""

    difference: float
    """Largest difference of its probabilities from the first network's."""

    pairs_that_differ: int
    """Pairs of strip and class whose mask is not the first network's."""

    pairs: int
    """All pairs."""

    dice: float
    """Mean over all pairs, as in the competition."""

    dice_per_class: tuple[float, ...]
    """The same of each class."""

    strips_per_second: float
    """Of the median batch, decoding and post-processing left out."""


def compare(
    networks: Mapping[str, Network],
    strips: Iterable[Batch],
    *,
    truth: Callable[[str], NDArray[np.bool_]],
    gate: Gate = open_gate,
    to_mask: Callable[[NDArray[Any]], NDArray[np.bool_]],
    plan: ForwardPlan,
) -> dict[str, Compared]:
    """Send strips through several networks.

    Args:
        networks: The networks by name, on the CPU; the first is the original.
        strips: Batches, as `forward.batches` gives them; read once, one held at a time.
        truth: From image_id to mask_chw.
        gate: What presence does to probabilities before they become masks.
        to_mask: From probs_chw to mask_chw.
        plan: Flips and crops. Precision is each network's own.

    Returns:
        How each network did, by name.
    """
    plan = ForwardPlan(tta=plan.tta, crop=plan.crop)
    tallies = {name: _Tally() for name in networks}
    for number, (image_ids, images_nhwc) in enumerate(strips):
        if number == 0:
            # The first pass allocates and, in some runtimes, compiles for this size.
            for network in networks.values():
                predict_batch(network, images_nhwc, plan, torch.device("cpu"))
        answers = {
            name: tallies[name].run(network, images_nhwc, plan)
            for name, network in networks.items()
        }
        for place, image_id in enumerate(image_ids):
            truth_chw = truth(image_id)
            of_one = {name: [part[place] for part in parts] for name, parts in answers.items()}
            original = next(iter(of_one.values()))
            mask_chw = to_mask(gate(*original))
            for name, answer in of_one.items():
                tallies[name].add(
                    to_mask(gate(*answer)),
                    mask_chw,
                    truth_chw,
                    difference=_largest_difference(answer, original),
                )
    return {name: tally.result() for name, tally in tallies.items()}


def _largest_difference(
    answer: Sequence[NDArray[np.float32]], original: Sequence[NDArray[np.float32]]
) -> float:
    """Of any probability, of a pixel or of presence."""
    return max(
        float(np.abs(part - other).max(initial=0))
        for part, other in zip(answer, original, strict=True)
    )


class _Tally:
    """What is added up for one network."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.counts: list[NDArray[np.int64]] = []
        self.difference = 0.0
        self.differing = 0

    def run(
        self, network: Network, images_nhwc: NDArray[np.uint8], plan: ForwardPlan
    ) -> list[NDArray[np.float32]]:
        """Predict a batch and note the seconds a strip; gives probs_nchw and presence_nc."""
        begin = time.perf_counter()
        answer = predict_batch(network, images_nhwc, plan, torch.device("cpu"))
        self.seconds.append((time.perf_counter() - begin) / len(images_nhwc))
        return [part.numpy() for part in answer]

    def add(
        self,
        mask_chw: NDArray[np.bool_],
        original_chw: NDArray[np.bool_],
        truth_chw: NDArray[np.bool_],
        *,
        difference: float,
    ) -> None:
        """Count one strip; a probability that is not a number differs most."""
        self.difference = max(self.difference, 1.0 if math.isnan(difference) else difference)
        self.differing += int((mask_chw != original_chw).any(axis=(1, 2)).sum())
        self.counts.append(count_pixels(mask_chw, truth_chw))

    def result(self) -> Compared:
        """Compute the figures."""
        scores = score(np.stack(self.counts))
        return Compared(
            difference=self.difference,
            pairs_that_differ=self.differing,
            pairs=scores.overall.pairs,
            dice=scores.overall.dice,
            dice_per_class=tuple(figures.dice for figures in scores.per_class),
            strips_per_second=1 / median(self.seconds),
        )
