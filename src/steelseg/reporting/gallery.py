"""Pictures of the worst strips of a run: misses, false alarms and lowest Dice.

Each group alternates between the classes, so that a frequent class does not crowd out the others,
and no strip is shown twice. The masks are those that were scored: their pixel counts must equal
those in scores.csv.
"""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats.images import read_image
from steelseg.errors import CheckpointError
from steelseg.run.held_out import HeldOut, ToMask
from steelseg.run.scores_csv import ScoreTable
from steelseg.scoring.metrics import count_pixels, dice
from steelseg.writers.overlays import draw_overlay

_WIDEST = 1200
_QUALITY = 80


@dataclass(frozen=True)
class Case:
    """One class of one strip."""

    image_id: str
    fold: int
    channel: int
    intersection: int
    predicted: int
    truth: int
    dice: float


@dataclass(frozen=True)
class Group:
    """Cases of one kind, the worst first."""

    kind: str
    """misses, false alarms or lowest Dice."""
    total: int
    """Number of pairs of this kind in the run."""
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Picture:
    """A picture to embed."""

    uri: str
    """A data URI of a JPEG."""
    width: int
    height: int


@dataclass(frozen=True)
class Gallery:
    """The groups and their pictures."""

    groups: tuple[Group, ...]
    pictures: Mapping[str, Picture]
    """By image_id."""


def choose(scores: ScoreTable, *, each: int = 4) -> tuple[Group, ...]:
    """Choose the worst pairs of strip and class.

    Args:
        scores: The counts of every strip and class.
        each: Maximum number of cases per kind.

    Returns:
        Misses, the largest defects first; false alarms, the largest masks first; found defects,
        the lowest Dice first. Empty groups are left out.
    """
    counts_nc3 = scores.counts_nc3
    predicted, truth = counts_nc3[..., 1], counts_nc3[..., 2]
    kinds = {
        "misses": ((truth > 0) & (predicted == 0), truth.astype(float)),
        "false alarms": ((truth == 0) & (predicted > 0), predicted.astype(float)),
        "lowest Dice": ((truth > 0) & (predicted > 0), -dice(counts_nc3)),
    }
    image_ids, folds = list(scores.fold_of), list(scores.fold_of.values())
    used: set[int] = set()
    groups = []
    for kind, (is_kind, severity) in kinds.items():
        pairs = _take_turns(is_kind, severity, used, each)
        used |= {strip for strip, _ in pairs}
        cases = tuple(_case(counts_nc3, image_ids[n], folds[n], n, c) for n, c in pairs)
        if cases:
            groups.append(Group(kind, int(is_kind.sum()), cases))
    return tuple(groups)


def _take_turns(
    is_kind: NDArray[np.bool_],
    severity: NDArray[np.float64],
    used: Collection[int],
    each: int,
) -> list[tuple[int, int]]:
    """Return pairs of strip and channel: the worst of each class, then the second, and so on."""
    taken: set[int] = set(used)
    pairs: list[tuple[int, int]] = []
    # A stable sort keeps the order of equal severities.
    queues = [
        [int(n) for n in np.argsort(-worst_n, kind="stable") if kind_n[n]]
        for kind_n, worst_n in zip(is_kind.T, severity.T, strict=True)
    ]
    while any(queues) and len(pairs) < each:
        turn = []
        for channel, queue in enumerate(queues):
            queue[:] = [strip for strip in queue if strip not in taken]
            if queue:
                turn.append((queue[0], channel))
                taken.add(queue[0])
        pairs += sorted(turn, key=lambda pair: -severity[pair])
    return pairs[:each]


def _case(counts_nc3: NDArray[np.int64], image_id: str, fold: int, strip: int, c: int) -> Case:
    """Make the record of one pair."""
    intersection, predicted, truth = counts_nc3[strip, c].tolist()
    value = float(dice(counts_nc3[strip, c]))
    return Case(image_id, fold, c, intersection, predicted, truth, value)


def draw_cases(
    groups: Sequence[Group],
    held_out: HeldOut,
    to_mask: ToMask,
    scores: ScoreTable,
    *,
    folder: Path,
    channels: int,
    class_names: Sequence[str],
    command: str,
) -> dict[str, Picture]:
    """Draw truth and prediction of the chosen strips.

    Args:
        groups: The chosen cases.
        held_out: The predictions.
        to_mask: Function that makes the scored masks.
        scores: Pixel counts that the masks must have.
        folder: Folder of the images.
        channels: 1 for grey, 3 for RGB.
        class_names: Name of each class.
        command: Command that scores again, for the message.

    Returns:
        Truth above prediction, by image_id.

    Raises:
        CheckpointError: if the masks are not the scored ones.
        DataError: if an image cannot be read.
    """
    chosen = {case.image_id for group in groups for case in group.cases}
    counts = dict(zip(scores.fold_of, scores.counts_nc3, strict=True))
    pictures = {}
    for image_id, probs_chw, truth_chw in held_out.read(chosen):
        mask_chw = to_mask(image_id, probs_chw)
        if (count_pixels(mask_chw, truth_chw) != counts[image_id]).any():
            raise CheckpointError(
                "Predictions or settings have changed since the strips were scored. "
                f"Score them again: {command}."
            )
        image = read_image(folder / image_id, channels=channels)
        picture = draw_overlay(image, mask_chw, class_names=class_names, truth_chw=truth_chw)
        pictures[image_id] = _embed(picture)
    if missing := chosen - pictures.keys():
        raise CheckpointError(f"There is no prediction of {min(missing)}. Score again: {command}.")
    return pictures


def _embed(picture: NDArray[np.uint8]) -> Picture:
    """Encode a picture as a data URI, at most 1200 pixels wide."""
    height, width = picture.shape[:2]
    if width > _WIDEST:
        height, width = max(1, round(height * _WIDEST / width)), _WIDEST
        smaller = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        picture = np.asarray(smaller, dtype=np.uint8)
    is_done, jpeg = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert is_done, picture.shape
    content = base64.b64encode(jpeg.tobytes()).decode("ascii")
    return Picture(f"data:image/jpeg;base64,{content}", width, height)
