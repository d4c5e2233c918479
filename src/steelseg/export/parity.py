"""Compare an exported network with its original on the same strips: outputs, Dice and speed.

Every batch goes through all networks in turn, so that other load on the machine slows each of them
equally. Masks are made as prediction makes them. The first network is the original.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steelseg.export.exported import Check, Figures, Precision
from steelseg.inference.forward import Batch, ForwardPlan, Network, predict_batch
from steelseg.scoring.gate import Gate, open_gate
from steelseg.scoring.metrics import count_pixels, score, text_table

LARGEST_DIFFERENCE = 1e-4
"""Largest allowed difference in probability between fp32 and the original."""

LARGEST_DROP = 0.002
"""Largest allowed drop in mean Dice from the original to int8."""


def compare(
    networks: Mapping[str, Network],
    strips: Iterable[Batch],
    *,
    truth: Callable[[str], NDArray[np.bool_]],
    gate: Gate = open_gate,
    to_mask: Callable[[NDArray[Any]], NDArray[np.bool_]],
    plan: ForwardPlan,
) -> dict[str, Figures]:
    """Predict strips with several networks and compare them with the first.

    Args:
        networks: The networks by name, on the CPU; the first is the original.
        strips: Batches, as `forward.batches` returns them; read once, one held at a time.
        truth: From image_id to mask_chw.
        gate: Applied to probabilities and presence before they become masks.
        to_mask: From probs_chw to mask_chw.
        plan: Flips and crops. Precision is each network's own.

    Returns:
        The figures of each network, by name.
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
    """Return the largest difference of any probability, of a pixel or of presence."""
    return max(
        float(np.abs(part - other).max(initial=0))
        for part, other in zip(answer, original, strict=True)
    )


class _Tally:
    """Accumulated counts of one network."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.counts: list[NDArray[np.int64]] = []
        self.difference = 0.0
        self.differing = 0

    def run(
        self, network: Network, images_nhwc: NDArray[np.uint8], plan: ForwardPlan
    ) -> list[NDArray[np.float32]]:
        """Predict a batch and record the seconds per strip; return probs_nchw and presence_nc."""
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
        """Count one strip; a probability that is not a number counts as a difference of 1."""
        self.difference = max(self.difference, 1.0 if math.isnan(difference) else difference)
        self.differing += int((mask_chw != original_chw).any(axis=(1, 2)).sum())
        self.counts.append(count_pixels(mask_chw, truth_chw))

    def result(self) -> Figures:
        """Compute the figures."""
        scores = score(np.stack(self.counts))
        return Figures(
            difference=self.difference,
            pairs_that_differ=self.differing,
            pairs=scores.overall.pairs,
            dice=scores.overall.dice,
            dice_per_class=tuple(figures.dice for figures in scores.per_class),
            strips_per_second=1 / median(self.seconds),
        )


def failures(figures: Mapping[str, Figures], *, precision: Precision) -> dict[Check, str]:
    """Check the figures of an export against the limits.

    Args:
        figures: Figures of "original", of "fp32" in the same format and, if it was made, of "int8".
        precision: Which of them is to be kept.

    Returns:
        The reason of each check that failed, as a part of a sentence.
    """
    original, full = figures["original"], figures["fp32"]
    failed: dict[Check, str] = {}
    if precision == "fp32":
        if full.difference > LARGEST_DIFFERENCE:
            failed["difference"] = (
                f"probabilities differ by up to {full.difference:.2g} from the original's, "
                f"{LARGEST_DIFFERENCE:g} is allowed"
            )
        return failed
    int8 = figures["int8"]
    if original.dice - int8.dice > LARGEST_DROP:
        failed["dice"] = (
            f"Dice is {int8.dice:.4f}, {original.dice - int8.dice:.4f} below the original's "
            f"{original.dice:.4f}, {LARGEST_DROP:g} is allowed"
        )
    if int8.strips_per_second <= full.strips_per_second:
        failed["speed"] = (
            f"{int8.strips_per_second:.2f} strips/s are not more than the "
            f"{full.strips_per_second:.2f} of fp32 in the same format"
        )
    return failed


def describe(figures: Mapping[str, Figures]) -> str:
    """Draw the figures as a text table, one line for each network."""
    classes = len(next(iter(figures.values())).dice_per_class)
    header = ("", "difference", "other masks", "Dice", *map(str, range(1, classes + 1)), "strips/s")
    rows = [
        (
            name,
            f"{each.difference:.1e}",
            f"{each.pairs_that_differ}/{each.pairs}",
            f"{each.dice:.4f}",
            *(f"{dice:.4f}" for dice in each.dice_per_class),
            f"{each.strips_per_second:.2f}",
        )
        for name, each in figures.items()
    ]
    return text_table([header, *rows])
