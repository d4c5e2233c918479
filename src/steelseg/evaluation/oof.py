"""The out-of-fold stage: every strip predicted by the model that did not train on it.

Reads  RUN/folds.csv, RUN/fold_K/best_model.safetensors, data.root
Writes RUN/fold_K/oof_predictions.zarr, RUN/metrics.json

Probabilities are uint8 (probability times 255, rounded half up), one compressed chunk a
strip, written strip by strip: memory does not grow with their number. Images of many sizes
share one array, padded with zeros to the largest; their own sizes are in its attributes.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from steelseg.atomic import replacing, sync_folder, write_text
from steelseg.config import Config
from steelseg.data.annotations import Labels
from steelseg.data.check import load_labels
from steelseg.data.folds import read_folds
from steelseg.data.images import read_image
from steelseg.errors import CheckpointError
from steelseg.evaluation.metrics import (
    all_empty,
    count_pixels,
    flatten,
    never_found,
    score,
    table,
)
from steelseg.evaluation.postprocess import to_uint8
from steelseg.inference.ensemble import Ensemble
from steelseg.inference.forward import batches
from steelseg.inference.overlays import OverlayWriter
from steelseg.inference.settings import forward_plan, mask_maker
from steelseg.models.precision import pick_device
from steelseg.progress import progress as show
from steelseg.run_folder import RunFolder


def oof_run(
    config: Config,
    run: RunFolder,
    *,
    folds: Sequence[int] | None = None,
    npy: bool = False,
    overlays: bool = False,
) -> dict[str, Any]:
    """Predict the held-out strips of each fold and score them.

    Args:
        config: The settings.
        run: A run with trained folds.
        folds: Which folds; None takes every trained one.
        npy: Also write the baseline's oof_predictions.npy, float32, 4 bytes a pixel and class.
        overlays: Also draw truth and prediction of every strip.

    Returns:
        What metrics.json holds.

    Raises:
        CheckpointError: if a fold has no best model.
        DataError: if the data set has changed.
    """
    folds = list(folds) if folds else run.trained_folds(config.data.num_folds)
    if not folds:
        raise CheckpointError(
            f"{run.path} has no trained fold. Train first: steelseg train CONFIG."
        )
    labels = load_labels(config.data)
    fold_of = read_folds(
        run.folds_csv, image_ids=list(labels.sizes), num_folds=config.data.num_folds
    )
    counts: list[NDArray[np.int64]] = []
    for fold in folds:
        image_ids = [image_id for image_id in labels.sizes if fold_of[image_id] == fold]
        counts.append(
            _predict_fold(config, run, labels, image_ids, fold, npy=npy, overlays=overlays)
        )
    return _report(config, run, folds, counts)


def _predict_fold(
    config: Config,
    run: RunFolder,
    labels: Labels,
    image_ids: Sequence[str],
    fold: int,
    *,
    npy: bool,
    overlays: bool,
) -> NDArray[np.int64]:
    """Predict, store and count one fold; gives counts of shape (N, C, 3)."""
    device, data = pick_device(), config.data
    ensemble = Ensemble([run.best_model(fold)], sequential=False, device=device)
    ensemble.must_fit(config)
    strips = batches(
        show(image_ids, len(image_ids), f"fold {fold} OOF"),
        lambda image_id: read_image(data.root / "train_images" / image_id, channels=data.channels),
        batch_size=config.train.batch_size_val,
    )
    to_mask = mask_maker(config)
    writer = OverlayWriter(run.path / "overlays_oof", data.names) if overlays else None
    counts = []
    with _new_store(run.oof(fold), labels, image_ids) as array:
        results = ensemble.predict(strips, forward_plan(config))
        for place, (image_id, image_hwc, probs_chw) in enumerate(results):
            stored_chw = to_uint8(probs_chw)
            height, width = stored_chw.shape[1:]
            array[place, :, :height, :width] = stored_chw
            truth_chw, mask_chw = labels.draw(image_id), to_mask(stored_chw)
            counts.append(count_pixels(mask_chw, truth_chw))
            if writer is not None:
                writer.add(image_id, image_hwc, mask_chw, truth_chw)
    run.say(f"fold {fold}: wrote {run.oof(fold)}")
    if npy:
        run.say(f"fold {fold}: wrote {write_npy(run.oof(fold))}")
    return np.stack(counts)


@contextmanager
def _new_store(path: Path, labels: Labels, image_ids: Sequence[str]) -> Iterator[Any]:
    """Open a zarr array beside `path` that takes its place when the block ends well."""
    sizes = [labels.sizes[image_id] for image_id in image_ids]
    height, width = (max(side) for side in zip(*sizes, strict=True))
    shape = (len(image_ids), labels.num_classes, height, width)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield zarr.create_array(
            store=str(partial),
            shape=shape,
            chunks=(1, *shape[1:]),
            dtype="uint8",
            attributes={"image_ids": list(image_ids), "sizes": [list(size) for size in sizes]},
        )
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_oof(path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Read out-of-fold probabilities, strip by strip.

    Yields:
        image_id and probs_chw, shape (C, H, W), uint8: probability times 255.

    Raises:
        CheckpointError: if there are none.
    """
    if not path.exists():
        raise CheckpointError(f"There is no {path}. Make it: steelseg oof RUN.")
    array = zarr.open_array(str(path), mode="r")
    image_ids: Any = array.attrs["image_ids"]
    sizes: Any = array.attrs["sizes"]
    for place, (image_id, (height, width)) in enumerate(zip(image_ids, sizes, strict=True)):
        yield image_id, np.asarray(array[place])[:, :height, :width]


def write_npy(path: Path) -> Path:
    """Write the baseline's oof_predictions.npy beside `path`, strip by strip.

    Returns:
        The file: float32, shape (N, C, H, W), probabilities in [0, 1]; padding is 0.
    """
    array = zarr.open_array(str(path), mode="r")
    npy = path.with_name("oof_predictions.npy")
    with replacing(npy, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(array.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for place in range(array.shape[0]):
            file.write((np.asarray(array[place]) / np.float32(255)).astype("<f4").data)
    return npy


def _report(
    config: Config, run: RunFolder, folds: Sequence[int], counts: Sequence[NDArray[np.int64]]
) -> dict[str, Any]:
    """Write metrics.json and print the table beside what an empty submission scores."""
    pooled = np.concatenate(counts)
    scores, empty = score(pooled), all_empty(pooled)
    metrics: dict[str, Any] = {
        "oof": _plain(flatten(scores, prefix="")),
        "all_empty": _plain(flatten(empty, prefix="")),
        "folds": {
            str(fold): _plain(flatten(score(part), prefix=""))
            for fold, part in zip(folds, counts, strict=True)
        },
    }
    write_text(run.metrics_json, json.dumps(metrics, indent=1) + "\n")
    run.say(
        f"out-of-fold, {len(pooled)} strips of folds {', '.join(map(str, folds))}:\n"
        + table(scores, config.data.names)
        + f"\nDice {scores.overall.dice:.4f}; all-empty masks would score {empty.overall.dice:.4f}"
    )
    if lost := never_found(scores):
        names = ", ".join(config.data.names[class_id - 1] for class_id in lost)
        run.warn(f"out-of-fold, no strip with {names} was found. Dice hides this.")
    run.event("oof", metrics["oof"])
    return metrics


def _plain(row: dict[str, float]) -> dict[str, float | None]:
    """Figures for JSON: what is not defined becomes null."""
    return {name: None if value != value else value for name, value in row.items()}
