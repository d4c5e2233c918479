"""Pseudo-labelled strips as additional training samples.

A fold uses only the pseudo-labels of its own number, and only if the networks that made them were
not trained on its held-out strips. Pseudo-labelled strips are named with a prefix that no file name
can have, so that they stay apart from labelled strips of the same name.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.data.checks.copies import find_copies
from steelseg.data.crops import Box
from steelseg.data.folder import DataSet
from steelseg.data.folds import read_fold_numbers, seen_in_training
from steelseg.data.formats.annotations import Labels
from steelseg.data.pseudo_labels import PseudoLabels, read_pseudo_labels
from steelseg.data.samples.dataset import CropReader, FolderReader
from steelseg.errors import ConfigError, DataError

_MARK = "pseudo/"


@dataclass(frozen=True)
class PseudoSamples:
    """The pseudo-labelled strips of a fold."""

    labels: Labels
    """Masks and sizes, by marked name."""

    source: FolderReader
    """Reads the pixels; it takes names without the mark."""

    sha256: str
    """Digest of masks, verdicts and images."""


@dataclass(frozen=True)
class MarkedCrops:
    """Reads crops of labelled strips, and of pseudo-labelled ones by their marked names."""

    labelled: CropReader
    pseudo: FolderReader

    @property
    def channels(self) -> int:
        """Channels of every crop, 1 or 3."""
        return self.labelled.channels

    def read(self, image_id: str, box: Box) -> NDArray[np.uint8]:
        """Read one crop, shape (h, w, channels)."""
        if image_id.startswith(_MARK):
            return self.pseudo.read(image_id.removeprefix(_MARK), box)
        return self.labelled.read(image_id, box)


def load_pseudo_samples(
    config: Config, labels: Labels, fold: int, *, held_out: Collection[str]
) -> PseudoSamples | None:
    """Read the pseudo-labelled strips of a fold.

    Args:
        config: The settings.
        labels: The labelled strips.
        fold: The fold to be trained.
        held_out: Its held-out strips.

    Returns:
        The samples; None without train.pseudo_labels.

    Raises:
        ConfigError: if the networks that made the labels were trained on a held-out strip, or have
            other classes.
        DataError: if the labels are missing or damaged, no strip was accepted, or an image has
            changed or been labelled in the meantime.
    """
    folder = config.train.pseudo_labels
    if folder is None:
        return None
    pseudo = read_pseudo_labels(folder, fold)
    if pseudo.class_names != config.data.names:
        raise ConfigError(
            f"train.pseudo_labels={folder} has the classes {', '.join(pseudo.class_names)}, but "
            f"the settings say {', '.join(config.data.names)}. Use a run with the same classes."
        )
    if not pseudo.labels.sizes:
        raise DataError(
            f"train.pseudo_labels={folder} has no strip for fold {fold}. Recreate the labels with "
            "a lower pseudo.agreement and pseudo.confidence."
        )
    _refuse_other_sizes(config, pseudo.labels, folder)
    _refuse_leak(folder, pseudo, fold, held_out)
    _refuse_labelled(config, labels, folder, pseudo)
    marked = Labels(
        pseudo.labels.num_classes,
        {_MARK + image_id: size for image_id, size in pseudo.labels.sizes.items()},
        {(_MARK + image_id, k): runs for (image_id, k), runs in pseudo.labels.runs.items()},
    )
    return PseudoSamples(marked, FolderReader(pseudo.images, config.data.channels), pseudo.sha256)


def _refuse_other_sizes(config: Config, labels: Labels, folder: Path) -> None:
    """Raise DataError if the size of a strip differs from the settings."""
    expected = config.data.img_height, config.data.img_width
    for image_id, size in labels.sizes.items():
        if any(side not in (None, actual) for side, actual in zip(expected, size, strict=True)):
            raise DataError(
                f"train.pseudo_labels={folder}: {image_id} is {size[0]}x{size[1]}, which "
                "data.img_height and data.img_width do not allow; null allows any."
            )


def _refuse_leak(folder: Path, pseudo: PseudoLabels, fold: int, held_out: Collection[str]) -> None:
    """Raise ConfigError if the networks were trained on held-out strips."""
    if seen := seen_in_training(pseudo.folds_csv, trained_fold=fold, image_ids=held_out):
        raise ConfigError(
            f"train.pseudo_labels={folder}: the networks of fold {fold} were trained on {seen[0]} "
            f"({len(seen)} in total), which this fold holds out, so its score would be optimistic. "
            "Use a run with the same folds: same train.csv, data.num_folds and data.fold_seed "
            "(null: train.seed)."
        )


def _refuse_labelled(config: Config, labels: Labels, folder: Path, pseudo: PseudoLabels) -> None:
    """Raise DataError if a pseudo-labelled strip is a copy of a strip that is labelled now.

    Copies of strips that were already labelled then were excluded.
    """
    added = sorted(labels.sizes.keys() - read_fold_numbers(pseudo.folds_csv).keys())
    if not added:
        return
    copies = find_copies(
        pseudo.images,
        list(pseudo.labels.sizes),
        known_folder=DataSet(config.data.root).train_images,
        known_ids=added,
        channels=config.data.channels,
    )
    if found := {image_id: one.copy_of for image_id, one in copies.items() if one.copy_of}:
        first = min(found)
        raise DataError(
            f"train.pseudo_labels={folder} contains {first}, which is a copy of the labelled strip "
            f"{found[first]} ({len(found)} in total). Recreate the labels with: steelseg "
            "pseudo RUN --images DIR."
        )


def join_labels(labels: Labels, pseudo: PseudoSamples) -> Labels:
    """Return the labels of labelled and pseudo-labelled strips together."""
    return Labels(
        labels.num_classes,
        {**labels.sizes, **pseudo.labels.sizes},
        {**labels.runs, **pseudo.labels.runs},
    )


def with_pseudo_labels(data: str, pseudo: PseudoSamples | None) -> str:
    """Add the digest of pseudo-labels to the fingerprint of the data."""
    if pseudo is None:
        return data
    return hashlib.sha256(f"{data} pseudo {pseudo.sha256}".encode()).hexdigest()
