"""Verdicts on strips: each is accepted with its masks, or rejected with a reason.

Every finding is written to a journal immediately, so an interrupted stage resumes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.data.checks.copies import Candidate
from steelseg.data.formats.images import hash_image, read_image
from steelseg.data.pseudo_labels import KEPT, Verdict, encode_masks
from steelseg.errors import DataError
from steelseg.files.journal import Entry, Journal
from steelseg.inference.forward import batches
from steelseg.progress import progress as show
from steelseg.pseudo.teachers import Teachers, Vote, mean_vote
from steelseg.run.tuned_postprocess import gate_of, mask_maker
from steelseg.scoring.confidence import ConfidenceThresholds, agreement, confidence
from steelseg.scoring.postprocess import MaskSettings, to_uint8

COPY, DISAGREE, UNSURE = "copy", "disagree", "unsure"
"""Verdicts on strips that are not kept."""


@dataclass(frozen=True)
class Finding:
    """The verdict on a strip."""

    verdict: str
    """kept, copy, disagree or unsure."""

    reason: str = ""
    """The class and the value that decided, or the strip that it is a copy of."""

    masks: tuple[str, ...] = ()
    """RLE of each class, "" for an empty mask; empty unless the strip is kept."""


Judge = Callable[[Sequence[Vote]], Finding]
"""Decides the verdict on a strip from its votes."""


def make_judge(config: Config, settings: MaskSettings, thresholds: ConfidenceThresholds) -> Judge:
    """Return a function that keeps a strip if votes agree and every class is confident.

    Args:
        config: Names the classes, the gate and the least agreement.
        settings: From probabilities to masks.
        thresholds: Minimum confidence of each class.
    """
    gate, to_mask = gate_of(config, settings), mask_maker(settings)
    names = config.data.names

    def judge(votes: Sequence[Vote]) -> Finding:
        mean = mean_vote(votes)
        probs_chw = gate(mean.probs_chw, mean.presence_c)
        mask_chw = to_mask(probs_chw)
        agreed_c = agreement([to_mask(gate(v.probs_chw, v.presence_c)) for v in votes], mask_chw)
        if (agreed_c < config.pseudo.agreement).any():
            worst = int(agreed_c.argmin())
            return Finding(DISAGREE, f"{names[worst]}: Dice {agreed_c[worst]:.3f}")
        confidence_c = confidence(to_uint8(probs_chw), mask_chw)
        is_found_c = np.array([mask_hw.any() for mask_hw in mask_chw])
        short_c = thresholds.required(is_found_c) - confidence_c
        if (short_c > 0).any():
            worst = int(short_c.argmax())
            what = "found" if is_found_c[worst] else "absent"
            return Finding(UNSURE, f"{names[worst]} {what}: {confidence_c[worst]:.3f}")
        return Finding(KEPT, masks=encode_masks(mask_chw))

    return judge


def label_strips(
    fold: int,
    folder: Path,
    candidates: Mapping[str, Candidate],
    journal: Journal,
    *,
    channels: int,
    load: Callable[[], Teachers],
    judge: Judge,
) -> dict[str, Finding]:
    """Label the strips of a folder, except copies of labelled ones.

    Args:
        fold: Fold of the networks.
        folder: Folder of the images.
        candidates: Every image, by image_id.
        journal: Earlier findings; new ones are added.
        channels: Input channels of the networks.
        load: Loads the networks; only called if a strip is to be predicted.
        judge: Decides the verdict from the votes.

    Returns:
        The finding of each image, in the order of `candidates`.

    Raises:
        DataError: if an image has changed since the search for copies.
    """
    found: dict[str, Finding] = {}
    for image_id, candidate in candidates.items():
        key = f"{fold}/{image_id}"
        if candidate.copy_of:
            alike = "same file as" if candidate.is_same_file else "looks like"
            found[image_id] = Finding(COPY, f"{alike} {candidate.copy_of}")
        elif journal.has(key) and journal[key].sha256 == candidate.sha256:
            verdict, reason, masks = journal[key].found["pseudo"]
            found[image_id] = Finding(verdict, reason, tuple(masks))
    if waiting := [image_id for image_id in candidates if image_id not in found]:
        teachers = load()
        shown = show(waiting, len(waiting), f"fold {fold} pseudo-labels")
        read = partial(_read_same, folder, candidates, channels=channels)
        for (image_id,), (image_hwc,) in batches(shown, read, batch_size=1):
            found[image_id] = one = judge(teachers.predict(image_hwc))
            content = {"pseudo": [one.verdict, one.reason, one.masks]}
            sha256 = candidates[image_id].sha256
            journal.add(Entry(f"{fold}/{image_id}", sha256, content, []))
    return {image_id: found[image_id] for image_id in candidates}


def _read_same(
    folder: Path, candidates: Mapping[str, Candidate], image_id: str, *, channels: int
) -> NDArray[np.uint8]:
    """Read an image; raise DataError if it has changed since the search for copies."""
    image_hwc = read_image(folder / image_id, channels=channels)
    if hash_image(folder / image_id) != candidates[image_id].sha256:
        raise DataError(
            f"{folder / image_id} changed while it was being labelled. Run the command again."
        )
    return image_hwc


def verdicts(candidates: Mapping[str, Candidate], found: Mapping[str, Finding]) -> list[Verdict]:
    """Return the rows of strips.csv."""
    return [
        Verdict(
            image_id, candidates[image_id].size, candidates[image_id].sha256, f.verdict, f.reason
        )
        for image_id, f in found.items()
    ]
