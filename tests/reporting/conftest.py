"""Runs whose predictions no network made: they take no time and are wrong where a test wants."""

import csv

import numpy as np
import pytest

from steelseg.data.folds import write_folds
from steelseg.run.oof_store import new_store
from steelseg.run.run_folder import create_run


@pytest.fixture
def predicted_run(tmp_path, make_config, make_strips):
    """Give a function that makes settings and a run with predictions of twelve strips.

    Class 1 is found, two pixels aside, and once where it is not; no other class ever is.
    """

    def make(*overrides, num_classes=2, folds=2, root=None):
        root = root or tmp_path / "input"
        truth = make_strips(root, num_train=12, num_classes=num_classes)
        config = make_config(root, f"data.num_classes={num_classes}", *overrides)
        run = create_run(tmp_path / "run", config)
        fold_of = {image_id: place % 2 for place, image_id in enumerate(sorted(truth))}
        write_folds(run.folds_csv, fold_of, dict.fromkeys(truth, ()))
        for fold in range(folds):
            write_history(run.fold(fold))
            predict(run.oof(fold), {k: truth[k] for k in sorted(truth)[fold::2]})
        return config, run

    return make


def predict(path, truth):
    """Write out-of-fold predictions of a fold."""
    shapes = {image_id: mask_chw.shape for image_id, mask_chw in truth.items()}
    with new_store(
        path,
        image_ids=list(truth),
        sizes=[shape[1:] for shape in shapes.values()],
        num_classes=next(iter(shapes.values()))[0],
        model_sha256=path.parent.name,
    ) as array:
        for place, mask_chw in enumerate(truth.values()):
            probs_chw = np.zeros(mask_chw.shape, dtype=np.uint8)
            probs_chw[0] = np.roll(mask_chw[0], 2, axis=1) * 200
            if place == 0 and not mask_chw[0].any():
                probs_chw[0, :4, :8] = 150
            array[place] = probs_chw


def write_history(folder):
    """Write history.csv of three epochs, the second the best; one figure is undefined."""
    names = "epoch learning_rate train_loss val_loss val_dice val_dice_positive val_pairs"
    rows = [
        (1, 0.001, 0.9, 0.8, 0.5, "", 16, 4, 60),
        (2, 0.001, 0.5, 0.6, 0.9, 0.5, 16, 4, 60),
        (3, 0.0001, 0.4, 0.7, 0.8, 0.6, 16, 4, 60),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "history.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*names.split(), "val_positives", "seconds"], *rows])
