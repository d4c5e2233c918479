"""Where out-of-fold predictions are kept: one zarr array a fold.

Probabilities are uint8 (probability times 255, rounded half up), one compressed chunk a strip,
written strip by strip: memory does not grow with their number. Images of many sizes share one
array, padded with zeros to the largest; their own sizes are in its attributes, and so are the
SHA-256 of the model that predicted them, its flips and crops and, of a network with a presence
head, the presence of each class on each strip. What is kept is before any gate.

No torch: what reads predictions needs none.
"""

import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from steelseg.atomic import replacing, sync_folder
from steelseg.data.annotations import Labels, read_labels
from steelseg.errors import CheckpointError
from steelseg.evaluation.gate import GateMode, open_gate, soften
from steelseg.run_folder import RunFolder


def views_in_words(tta: str, crop: tuple[int, int, int] | None) -> str:
    """The flips and the crops (height, width, stride) that predictions are made with."""
    crops = "no crops" if crop is None else "crops of {}x{}, stride {}".format(*crop)
    return f"inference.tta={tta}, {crops}"


@contextmanager
def new_store(
    path: Path,
    *,
    image_ids: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    num_classes: int,
    model_sha256: str,
    views: str = "",
) -> Iterator[Any]:
    """Open an array beside `path` that takes its place when the block ends well.

    Args:
        path: Folder of the zarr array.
        image_ids: The strips, in the order of the array.
        sizes: Height and width of each.
        num_classes: Classes C.
        model_sha256: Of the model that predicts.
        views: Its flips and crops, as `views_in_words` has them; "" where members have theirs.

    Yields:
        The array, shape (N, C, H, W), uint8, zero.
    """
    height, width = (max(side) for side in zip(*sizes, strict=True))
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield zarr.create_array(
            store=str(partial),
            shape=(len(image_ids), num_classes, height, width),
            chunks=(1, num_classes, height, width),
            dtype="uint8",
            attributes={
                "image_ids": list(image_ids),
                "sizes": [list(size) for size in sizes],
                "model_sha256": model_sha256,
                "views": views,
            },
        )
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_oof(
    path: Path, *, only: Container[str] | None = None
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Read out-of-fold probabilities, strip by strip.

    Args:
        path: Folder of the zarr array.
        only: The image_ids to read; None reads all.

    Yields:
        image_id and probs_chw, shape (C, H, W), uint8: probability times 255.

    Raises:
        CheckpointError: if there are none.
    """
    array = _open(path)
    pairs = zip(array.attrs["image_ids"], array.attrs["sizes"], strict=True)
    for place, (image_id, (height, width)) in enumerate(pairs):
        if only is None or image_id in only:
            yield image_id, np.asarray(array[place])[:, :height, :width]


def oof_origin(path: Path) -> str:
    """What made out-of-fold predictions: the SHA-256 of the model, its flips and crops."""
    attrs = _open(path).attrs
    return f"{attrs['model_sha256']} {attrs.get('views', '')}"


def _open(path: Path) -> Any:
    """Open the array, or raise CheckpointError."""
    if not path.exists():
        raise CheckpointError(f"There is no {path}. Make it: steelseg oof RUN.")
    return zarr.open_array(str(path), mode="r")


def write_npy(path: Path) -> Path:
    """Write the baseline's oof_predictions.npy beside `path`, strip by strip.

    Returns:
        The file: float32, shape (N, C, H, W), probabilities in [0, 1]; padding is 0.
    """
    array = _open(path)
    npy = path.with_name("oof_predictions.npy")
    with replacing(npy, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(array.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for place in range(array.shape[0]):
            file.write((np.asarray(array[place]) / np.float32(255)).astype("<f4").data)
    return npy


@dataclass(frozen=True)
class HeldOut:
    """The out-of-fold predictions of a run beside the truth; iterate to read them."""

    labels: Labels
    """The truth of every strip that was predicted."""

    fold_of: Mapping[str, int]
    """Fold of each strip, in the order of reading."""

    models: Mapping[int, str]
    """SHA-256 of the model of each fold."""

    paths: tuple[Path, ...]
    """The arrays."""

    presence: Mapping[str, NDArray[np.float32]]
    """presence_c of each strip; empty arrays of a network without a presence head."""

    views: Mapping[int, str]
    """Flips and crops that each fold was predicted with; "" where that is not known."""

    is_soft: bool = False
    """Whether probabilities are read behind a soft gate."""

    def __len__(self) -> int:
        return len(self.fold_of)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
        """Yield image_id, probs_chw (uint8) and truth_chw of each strip."""
        return self.read()

    def read(
        self, only: Container[str] | None = None
    ) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
        """Yield what iterating does, of some image_ids alone; None is all."""
        gate = soften if self.is_soft else open_gate
        for path in self.paths:
            for image_id, probs_chw in read_oof(path, only=only):
                gated_chw = gate(probs_chw, self.presence[image_id])
                yield image_id, gated_chw, self.labels.draw(image_id)

    @property
    def present(self) -> dict[str, tuple[int, ...]]:
        """Class ids that each strip shows."""
        return {image_id: self.labels.present(image_id) for image_id in self.fold_of}


def open_held_out(
    run: RunFolder,
    *,
    train_csv: Path,
    num_classes: int,
    num_folds: int,
    folds: Sequence[int] | None = None,
    gate: GateMode = "none",
) -> HeldOut:
    """Open the predictions of a run.

    Args:
        run: The run.
        train_csv: The labels.
        num_classes: Classes C.
        num_folds: Folds of the run.
        folds: Which to open; None opens all that there are.
        gate: soft gives probabilities behind it; any but none needs a presence head.

    Raises:
        CheckpointError: if there are none, or they lack the presence that a gate needs.
        DataError: if train.csv has a fault.
    """
    chosen = folds or [fold for fold in range(num_folds) if run.oof(fold).exists()]
    if not chosen:
        raise CheckpointError(
            f"{run.path} has no out-of-fold predictions. Make them: steelseg oof {run.path}."
        )
    sizes: dict[str, tuple[int, int]] = {}
    fold_of: dict[str, int] = {}
    models: dict[int, str] = {}
    presence: dict[str, NDArray[np.float32]] = {}
    views: dict[int, str] = {}
    for fold in chosen:
        attrs = _open(run.oof(fold)).attrs
        sizes |= {i: (s[0], s[1]) for i, s in zip(attrs["image_ids"], attrs["sizes"], strict=True)}
        fold_of |= dict.fromkeys(attrs["image_ids"], fold)
        models[fold] = attrs["model_sha256"]
        views[fold] = attrs.get("views", "")
        presence |= _presence(attrs)
    if gate != "none" and any(len(presence_c) != num_classes for presence_c in presence.values()):
        raise CheckpointError(
            f"{run.path} has out-of-fold predictions without presence, which inference.gate={gate} "
            f"needs. Make them again: steelseg oof {run.path}."
        )
    labels = read_labels(train_csv, sizes, num_classes=num_classes)
    paths = tuple(run.oof(fold) for fold in chosen)
    return HeldOut(labels, fold_of, models, paths, presence, views, is_soft=gate == "soft")


def _presence(attrs: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """presence_c of each strip, by image_id."""
    image_ids = attrs["image_ids"]
    rows = attrs.get("presence", [[]] * len(image_ids))
    return {i: np.array(row, np.float32) for i, row in zip(image_ids, rows, strict=True)}
