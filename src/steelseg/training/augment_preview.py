"""A preview of the augmentation: a few training samples, original and as the network sees them.

Reads  data.root, the precropped store in mode precropped
Writes the sheet, a PNG

Each sample is drawn as it is, then as the first epochs augment it, with its labels outlined.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.data.augment.geometric import CopyPasteSource
from steelseg.data.augment.steps import find_augmentation
from steelseg.data.checks.check import load_labels
from steelseg.data.crops import Box
from steelseg.data.formats.annotations import Labels
from steelseg.data.samples.dataset import SampleDataset, list_samples
from steelseg.files.atomic import write_bytes
from steelseg.training.fold_data import open_reader
from steelseg.writers.exchange import to_png
from steelseg.writers.overlays import draw_overlay

# Layout of the sheet, in pixels; wider samples are placed one below the other.
_WIDTH = 2100
_GAP = 8
_NARROWEST = 192


def preview_augmentation(config: Config, path: Path, *, samples: int, versions: int) -> None:
    """Draw a sheet of augmented samples.

    Args:
        config: The settings.
        path: The PNG to write.
        samples: Number of samples to show: of each class in turn, and clean ones.
        versions: Number of augmented versions of each.

    Raises:
        ConfigError: if the augmentation is unknown.
        DataError: if the data set cannot be read.
    """
    data, train = config.data, config.train
    labels = load_labels(data)
    reader = open_reader(config, labels)
    listed = list_samples(
        labels, list(labels.sizes), crop=None if data.mode == "full" else data.crop
    )
    chosen = _choose(labels, listed, samples, seed=train.seed)
    copy_paste = CopyPasteSource(labels, list(labels.sizes), reader.read)
    plain, augmented = (
        SampleDataset(
            labels,
            chosen,
            reader,
            augmentation=augmentation,
            seed=train.seed,
            centre_defects=centre_defects,
        )
        for augmentation, centre_defects in (
            (find_augmentation("none"), 0.0),
            (find_augmentation(train.augmentation, copy_paste=copy_paste), train.centre_defects),
        )
    )
    rows = [
        _in_rows(
            [_picture(plain, 0, number, data.names, title="original")]
            + [
                _picture(augmented, epoch, number, data.names, title=f"epoch {epoch}")
                for epoch in range(1, versions + 1)
            ]
        )
        for number in range(len(chosen))
    ]
    write_bytes(path, to_png(_stack(rows)[:, :, ::-1]))


def _choose(
    labels: Labels, samples: Sequence[tuple[str, Box]], count: int, *, seed: int
) -> list[tuple[str, Box]]:
    """Choose samples of each class in turn, and clean ones, at random without repetition."""
    order = np.random.default_rng(seed).permutation(len(samples))
    kinds: list[list[int]] = [[] for _ in range(labels.num_classes + 1)]
    for index in order:
        present = np.flatnonzero(labels.draw(*samples[index]).any(axis=(1, 2)))
        kinds[int(present[-1]) if len(present) else -1].append(int(index))
    deepest = max(map(len, kinds))
    turns = [kind[turn] for turn in range(deepest) for kind in kinds if turn < len(kind)]
    return [samples[index] for index in turns[:count]]


def _picture(
    dataset: SampleDataset, epoch: int, number: int, names: Sequence[str], *, title: str
) -> NDArray[np.uint8]:
    """Draw a sample of one epoch with outlined labels; enlarge a small one to fit the title."""
    images, masks, _ = dataset[[(epoch, number)]]
    image_hwc = images[0].permute(1, 2, 0).numpy()
    zoom = -(-_NARROWEST // image_hwc.shape[1])
    return draw_overlay(image_hwc, masks[0].numpy() > 0, class_names=names, title=title, zoom=zoom)


def _in_rows(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Place pictures side by side, in as many rows as needed."""
    across = max(1, _WIDTH // max(picture.shape[1] + _GAP for picture in pictures))
    rows = [pictures[start : start + across] for start in range(0, len(pictures), across)]
    return _stack([_turn(_stack([_turn(picture) for picture in row])) for row in rows])


def _turn(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Transpose a picture, so that stacking places pictures side by side."""
    return picture.transpose(1, 0, 2)


def _stack(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Place pictures one below the other on white."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(
            picture,
            ((0, _GAP), (0, width - picture.shape[1]), (0, 0)),
            constant_values=255,
        )
        for picture in pictures
    ]
    return np.concatenate(padded)
