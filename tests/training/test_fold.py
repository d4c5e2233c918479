import csv
import math

import numpy as np
import pytest
import torch
from torch import nn

from steelseg.errors import TrainingError
from steelseg.models.checkpoint import load_checkpoint
from steelseg.models.losses import build_loss
from steelseg.scoring.metrics import score
from steelseg.signals import StopNote
from steelseg.training import fold
from steelseg.training.fold import (
    FoldFiles,
    Origin,
    Progress,
    _is_better,
    is_done,
    run_epochs,
    save_resumable,
)
from steelseg.training.loop import Learner, make_scaler, train_epoch
from steelseg.training.optimizers import Schedule, build_optimizer
from steelseg.training.resume import resume

CPU = torch.device("cpu")
ORIGIN = Origin(fold=3, config={}, data="")


def make_learner():
    torch.manual_seed(0)
    model = nn.Conv2d(1, 1, 3, padding=1)
    optimizer = build_optimizer(model.parameters(), name="adam", learning_rate=0.01, weight_decay=0)
    schedule = Schedule(optimizer, name="reduce_on_plateau", steps=1, patience=0)
    return Learner(model, optimizer, schedule, make_scaler(CPU, None), CPU)


def make_scores(percent):
    """Scores whose Dice is a whole percentage: that many of 100 pairs are rightly empty."""
    counts_nc3 = np.zeros((100, 1, 3), dtype=np.int64)
    counts_nc3[percent:, 0, 1] = 1
    return score(counts_nc3)


def run(folder, dices, *, learner=None, progress=None, broken=(), **settings):
    """Run one epoch for each Dice; `broken` names epochs whose second batch is NaN."""
    learner, progress = learner or make_learner(), progress or Progress()
    expected = iter(dices)

    def train(epoch, position, after_step):
        torch.manual_seed(epoch)
        images = torch.rand(2, 1, 4, 4)
        masks = (images > 0.5).to(torch.uint8)
        second = images * math.nan if epoch in broken else images
        return train_epoch(
            learner,
            [(images, masks, None), (second, masks, None)],
            build_loss("dice", pos_weight=()),
            num_batches=2,
            accumulate=1,
            gradient_clip=1,
            position=position,
            before_batch=lambda _: None,
            after_step=after_step,
        )

    chosen = {"early_stopping": 0, "save_best_only": True, "save_minutes": 0} | settings
    run_epochs(
        learner,
        progress,
        FoldFiles(folder),
        ORIGIN,
        epochs=progress.epoch + len(dices),
        train=train,
        validate=lambda _: (0.5, make_scores(next(expected)), {}),
        note=StopNote(),
        report=lambda _row, _scores: None,
        **chosen,
    )
    return learner, progress


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_best_model_is_of_the_epoch_with_the_best_dice(tmp_path):
    """The first of equals: a later one is no better."""
    _, progress = run(tmp_path, [50, 70, 70, 60])

    state = load_checkpoint(tmp_path / "best_model.safetensors").state
    assert (state["epoch"], state["dice"], state["fold"]) == (2, 0.7, 3)
    assert (progress.best_epoch, progress.best_dice, progress.epoch) == (2, 0.7, 4)


def test_among_epochs_of_equal_presence_the_loss_decides():
    """A classifier orders few strips perfectly long before it is sure of them."""
    progress = Progress(best_dice=1.0, best_epoch=1, history=[{"val_presence": 1, "val_loss": 0.4}])

    for presence, loss, is_better in ((1.0, 0.3, True), (1.0, 0.4, False), (0.9, 0.1, False)):
        row = {"val_presence": presence, "val_dice": 0.5, "val_loss": loss}
        assert _is_better(row, progress) is is_better


def test_the_best_model_of_a_hopeless_fold_is_its_first(tmp_path):
    """A Dice of 0 is still a model, and later stages need one."""
    run(tmp_path, [0, 0])

    assert load_checkpoint(tmp_path / "best_model.safetensors").state["epoch"] == 1


def test_two_generations_are_kept_in_last(tmp_path):
    """One more than the newest, for the day when that one is damaged."""
    run(tmp_path, [50, 60, 70])

    assert names(tmp_path) == [
        "best_model.safetensors",
        "history.csv",
        "last/epoch_0002.safetensors",
        "last/epoch_0003.safetensors",
    ]


def test_a_long_epoch_is_saved_in_between(tmp_path):
    """save_minutes passes at once here; the last one stays beside the end of the epoch."""
    run(tmp_path, [50], save_minutes=1e-9)

    assert names(tmp_path / "last") == [
        "epoch_0000_step_000002.safetensors",
        "epoch_0001.safetensors",
    ]
    state = load_checkpoint(tmp_path / "last" / "epoch_0000_step_000002.safetensors").state
    assert (state["epoch"], state["position"]["step"], state["dice"]) == (0, 2, None)


def test_every_epoch_is_kept_on_request(tmp_path):
    """save_best_only=false is the baseline's word for it; each of them can be gone on from."""
    learner, _ = run(tmp_path, [50, 60, 70], save_best_only=False)

    kept = [tmp_path / f"checkpoint_epoch_{epoch}.safetensors" for epoch in (1, 2, 3)]
    assert [load_checkpoint(path).state["epoch"] for path in kept] == [1, 2, 3]
    other = make_learner()
    progress = resume(other, load_checkpoint(kept[2]))
    assert (progress.epoch, progress.best_epoch, len(progress.history)) == (3, 3, 3)
    assert torch.equal(other.model.weight, learner.model.weight)


def test_an_epoch_that_is_done_is_kept(tmp_path, monkeypatch):
    """A disk that is full when it is kept leaves nothing that says that the epoch is done."""
    real = fold.save_resumable

    def full(path, *rest):
        if path.name == "checkpoint_epoch_2.safetensors":
            raise OSError("no space left on device")
        real(path, *rest)

    monkeypatch.setattr(fold, "save_resumable", full)
    with pytest.raises(OSError, match="no space"):
        run(tmp_path, [50, 60, 70], save_best_only=False)

    newest = load_checkpoint(FoldFiles(tmp_path).generations()[0])
    assert newest.state["epoch"] == 1


def test_training_stops_when_nothing_gets_better(tmp_path):
    """Two epochs without a better Dice, counted from the best one."""
    _, progress = run(tmp_path, [50, 60, 60, 60, 90], early_stopping=2)

    assert progress.epoch == 4
    assert is_done(progress, epochs=5, early_stopping=2)
    assert not is_done(progress, epochs=5, early_stopping=0)


def test_the_rate_falls_on_a_plateau_and_is_in_the_history(tmp_path):
    """A row holds the rate that its epoch was trained with."""
    _, progress = run(tmp_path, [50, 50, 50])

    assert [row["learning_rate"] for row in progress.history] == [0.01, 0.01, 0.005]


def test_the_history_is_a_row_an_epoch(tmp_path):
    """Loss, rate, time and every figure, overall and of each class; undefined ones are empty."""
    run(tmp_path, [50, 60])

    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert list(rows[0])[:5] == ["epoch", "learning_rate", "train_loss", "val_loss", "val_dice"]
    assert list(rows[0])[-2:] == ["train_seconds", "seconds"]
    assert {"val_iou", "val_image_recall_1", "val_false_alarm_rate_1"} < set(rows[0])
    assert rows[1]["val_dice"] == "0.6"
    assert rows[1]["val_dice_positive"] == ""


def test_a_nan_loss_stops_the_fold_and_keeps_what_was_good(tmp_path):
    """The message says where, and the checkpoint of the epoch before is untouched."""
    run(tmp_path / "whole", [50, 60])

    with pytest.raises(TrainingError) as caught:
        run(tmp_path / "broken", [50, 60, 70], broken=(3,))

    text = str(caught.value)
    assert text.startswith("fold 3, epoch 3, step 2 of 2: the loss is nan. Training stopped; ")
    assert f"{tmp_path / 'broken' / 'last' / 'epoch_0002.safetensors'} are kept" in text
    assert "train.learning_rate" in text
    assert names(tmp_path / "broken") == names(tmp_path / "whole")
    kept = load_checkpoint(tmp_path / "broken" / "last" / "epoch_0002.safetensors")
    expected = load_checkpoint(tmp_path / "whole" / "last" / "epoch_0002.safetensors")
    assert all(torch.equal(kept.model[name], expected.model[name]) for name in expected.model)


def test_a_nan_in_the_first_epoch_says_that_nothing_is_kept(tmp_path):
    """There is no checkpoint to name."""
    with pytest.raises(TrainingError, match=r"epoch 1, step 2.*no epoch was finished yet"):
        run(tmp_path, [50], broken=(1,))

    assert names(tmp_path) == []


def test_a_resumed_fold_makes_the_same_steps(tmp_path):
    """Weights, optimizer, rate, history and best score go on as if nothing had happened."""
    straight, expected = run(tmp_path / "straight", [50, 50, 40, 60])
    run(tmp_path / "killed", [50, 50])
    path = tmp_path / "killed" / "last" / "epoch_0002.safetensors"
    learner = make_learner()
    progress = resume(learner, load_checkpoint(path))

    run(tmp_path / "killed", [40, 60], learner=learner, progress=progress)

    assert torch.equal(learner.model.weight, straight.model.weight)
    without_time = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in part.history]
        for part in (progress, expected)
    ]
    np.testing.assert_equal(*without_time)
    assert (progress.best_dice, progress.best_epoch) == (0.6, 4)


def test_generations_are_in_order_beyond_a_thousand_epochs(tmp_path):
    """Names are sorted as text."""
    learner, progress = make_learner(), Progress(history=[{"val_dice": 0.5}])
    files = FoldFiles(tmp_path)
    for epoch in (9, 999, 1000):
        save_resumable(files.last(epoch), learner, progress, ORIGIN)

    assert files.generations() == [files.last(epoch) for epoch in (1000, 999, 9)]
