"""The prediction stage: predict a folder of images and write submission.csv.

Reads  checkpoints, data.root/test_images and sample_submission.csv, or any folder
Writes OUTPUT_DIR/submission.csv; on request predictions.json, masks/, predictions.jsonl, overlays/

Each strip is encoded as soon as it is predicted, so memory stays flat, and appended to a journal.
An interrupted prediction resumes from the journal; the files are written from it at the end.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelseg.data.folder import DataSet
from steelseg.data.formats.images import hash_image, list_images, read_image
from steelseg.data.formats.mask_csv import JOINED
from steelseg.data.formats.sample_submission import read_sample
from steelseg.errors import ConfigError, DataError
from steelseg.files.journal import JOURNAL, Entry, Journal, open_journal
from steelseg.inference.predictor import Predictor
from steelseg.progress import progress as show
from steelseg.version import __version__
from steelseg.writers.exchange import Record, write_pngs
from steelseg.writers.open_writer import (
    FILE_NAMES,
    OutputFormat,
    TextFormat,
    make_record,
    open_writer,
)
from steelseg.writers.overlays import OverlayWriter

# Strips that go through a network together are predicted again together.
_BLOCK = 128


def predict_folder(
    predictor: Predictor,
    output_dir: Path,
    *,
    images: Path | None = None,
    formats: Sequence[OutputFormat] = (),
    overlays: bool = False,
) -> list[Path]:
    """Predict every image of a folder.

    Args:
        predictor: The trained model.
        output_dir: Where the results go.
        images: The folder; None uses test_images of the data set, in the order of
            sample_submission.csv if there is one.
        formats: coco, png or jsonl, in addition to csv.
        overlays: Also draw each strip with the outlines of its defects.

    Returns:
        The files and folders written.

    Raises:
        ConfigError: if neither the caller nor the settings name a folder.
        DataError: if an image cannot be read, or the sample names a missing one.
    """
    data = predictor.config.data
    # A bundle has no data set; a folder at the default path is not its own.
    has_root = "root" in data.model_fields_set
    if images is None and not has_root:
        raise ConfigError("A bundle has no images. Give --images DIR, or data.root=DIR.")
    data_set = DataSet(data.root)
    sample = data_set.sample_submission if has_root else None
    folder = images or data_set.test_images
    image_ids = _order(folder, sample if images is None else None)
    columns = read_sample(sample).form if sample and sample.exists() else JOINED
    output = _Output(output_dir, predictor.class_names, tuple(formats), overlays)
    identity = {
        **predictor.identity,
        "files": [*output.texts, output.has_pngs, overlays, *columns],
        "version": __version__,
    }
    with open_journal(output_dir / JOURNAL, identity) as journal:
        _predict(predictor, journal, output, folder, image_ids)
        print(_count(journal, image_ids, output.class_names), file=sys.stderr, flush=True)
        for name in output.texts:
            with open_writer(
                name, output_dir, class_names=output.class_names, columns=columns
            ) as add:
                for image_id in image_ids:
                    add(image_id, journal[image_id].found[name])
    return output.places


@dataclass(frozen=True)
class _Output:
    """The files that a prediction writes."""

    folder: Path

    class_names: tuple[str, ...]

    formats: tuple[OutputFormat, ...]
    """Formats in addition to csv."""

    has_overlays: bool

    @property
    def texts(self) -> list[TextFormat]:
        """The text formats, which are written at the end."""
        names: list[TextFormat] = ["csv", "coco", "jsonl"]
        return [name for name in names if name == "csv" or name in self.formats]

    @property
    def has_pngs(self) -> bool:
        """Whether masks are written as PNGs."""
        return "png" in self.formats

    @property
    def places(self) -> list[Path]:
        """The files and folders that are written."""
        names = [FILE_NAMES[name] for name in dict.fromkeys(["csv", *self.formats])]
        return [self.folder / name for name in names + ["overlays"] * self.has_overlays]

    def find(
        self,
        image_id: str,
        image_hwc: NDArray[np.uint8],
        mask_chw: NDArray[np.bool_],
        probs_chw: NDArray[np.float32],
        *,
        sha256: str,
    ) -> Entry:
        """Write the pictures of an image, and return its journal entry."""
        names = self.class_names
        found: dict[str, Record] = {
            text: make_record(text, mask_chw, probs_chw, class_names=names) for text in self.texts
        }
        pictures: list[Path] = []
        if self.has_pngs:
            pictures += write_pngs(self.folder / FILE_NAMES["png"], image_id, mask_chw)
        if self.has_overlays:
            drawer = OverlayWriter(self.folder / "overlays", names)
            pictures.append(drawer.add(image_id, image_hwc, mask_chw))
        files = [str(path.relative_to(self.folder)) for path in pictures]
        return Entry(image_id, sha256, found, files)

    def is_done(self, entry: Entry, image: Path) -> bool:
        """Whether the current version of an image was predicted, and its pictures exist."""
        are_there = all((self.folder / name).is_file() for name in entry.files)
        return are_there and entry.sha256 == hash_image(image)


def _predict(
    predictor: Predictor, journal: Journal, output: _Output, folder: Path, image_ids: list[str]
) -> None:
    """Predict the images that are not in the journal."""
    done = {i for i in image_ids if journal.has(i) and output.is_done(journal[i], folder / i)}
    if done:
        text = f"{len(done)} of {len(image_ids)} images were predicted before; the others follow"
        print(text, file=sys.stderr, flush=True)
    digests: dict[str, str] = {}

    def read(image_id: str) -> NDArray[np.uint8]:
        # An image that changes in between is predicted again, because the digest comes first.
        digests[image_id] = hash_image(folder / image_id)
        return read_image(folder / image_id, channels=predictor.config.data.channels)

    blocks = _blocks(image_ids, done, batch_size=predictor.batch_size)
    waiting = show(chain.from_iterable(blocks), sum(map(len, blocks)), "predict")
    for block in blocks:
        for strip in predictor.stream(islice(waiting, len(block)), read):
            journal.add(output.find(*strip, sha256=digests.pop(strip[0])))


def _count(journal: Journal, image_ids: Sequence[str], class_names: Sequence[str]) -> str:
    """Count the images with each class, as one line of text."""
    present_nc = np.array([[bool(rle) for rle in journal[i].found["csv"]] for i in image_ids])
    by_class = zip(class_names, present_nc.sum(axis=0).tolist(), strict=True)
    named = ", ".join(f"{name}: {count}" for name, count in by_class)
    return f"{present_nc.any(axis=1).sum()} of {len(image_ids)} images have a defect ({named})"


def _blocks(image_ids: list[str], done: set[str], *, batch_size: int) -> list[list[str]]:
    """Split the images that are not done into blocks that are predicted separately.

    The last bits of an image may depend on the other images of its batch. So with batches a block
    has the same images however often the prediction was interrupted.
    """
    if batch_size == 1:
        return [[image_id for image_id in image_ids if image_id not in done]]
    size = -(-_BLOCK // batch_size) * batch_size
    blocks = [image_ids[begin : begin + size] for begin in range(0, len(image_ids), size)]
    return [block for block in blocks if not done.issuperset(block)]


def _order(folder: Path, sample: Path | None) -> list[str]:
    """Return the images of a folder: first in the order of the sample, then the others by name."""
    found = list_images(folder)
    if sample is None or not sample.exists():
        return found
    listed = list(read_sample(sample).lines)
    if missing := sorted(set(listed) - set(found)):
        raise DataError(
            f"{sample} names {missing[0]}, which is not in {folder} ({len(missing)} in total)."
        )
    return listed + sorted(set(found) - set(listed))
