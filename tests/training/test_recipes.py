"""Techniques that are switched on by settings, seen at work in whole trainings."""

import csv

import pytest

from steelseg.models.checkpoint import load_checkpoint
from steelseg.run_folder import RunFolder
from steelseg.training.train import train_run


@pytest.fixture(scope="module")
def train(tmp_path_factory, make_config, make_strips):
    """Give a function that trains fold 0 by settings, and tells of its run."""
    folder = tmp_path_factory.mktemp("recipes")
    make_strips(folder / "input")

    def run(name, *overrides, go_on=False):
        config = make_config(folder / "input", *overrides)
        train_run(config, folder / name, folds=[0], go_on=go_on)
        return RunFolder(folder / name)

    run.folder = folder
    return run


def history_of(run):
    """Rows of history.csv."""
    with (run.fold(0) / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_later_loss_takes_over_at_its_epoch(train):
    """The first epoch is the plain run's; the second is not."""
    plain = history_of(train("plain_loss", "train.epochs=2"))
    later = ("train.epochs=2", "train.later_loss=5 lovasz", "train.later_loss_epoch=2")
    switched = history_of(train("switched_loss", *later))

    assert switched[0]["train_loss"] == plain[0]["train_loss"]
    assert float(switched[1]["train_loss"]) > 2 * float(plain[1]["train_loss"])


def test_the_best_epoch_is_chosen_by_the_monitor(train):
    """And named in the history, beside the Dice at the fixed threshold."""
    rows = history_of(train("swept", "train.epochs=3", "train.monitor=swept_dice"))
    plain = history_of(train("plain_monitor", "train.epochs=3"))

    swept = [float(row["val_swept_dice"]) for row in rows]
    best = load_checkpoint(train.folder / "swept" / "fold_0" / "best_model.safetensors")
    assert best.state["epoch"] == 1 + swept.index(max(swept))
    assert [row["val_dice"] for row in rows] == [row["val_dice"] for row in plain]
    assert all(s >= float(row["val_dice"]) for s, row in zip(swept, rows, strict=True))
    assert "val_swept_dice" not in plain[0]
