import csv
import math

import numpy as np
import pytest
import torch
from torch import nn

from steelseg.config.load import build_config
from steelseg.errors import TrainingError
from steelseg.models.checkpoint import load_checkpoint
from steelseg.models.losses import build_loss
from steelseg.scoring.metrics import score
from steelseg.signals import StopRequest
from steelseg.training import trainer as trainer_module
from steelseg.training.fold_files import CheckpointMetadata, FoldFiles, Position, Progress
from steelseg.training.learner import (
    Learner,
    make_scaler,
    optimizer_tensors,
    restore_optimizer,
)
from steelseg.training.optimizers import Schedule, build_optimizer
from steelseg.training.resume import restore
from steelseg.training.trainer import FoldTrainer, _is_better
from steelseg.training.validation import ValidationResult

CPU = torch.device("cpu")
BCE = build_loss("bce_with_logits", pos_weight=())


class Scaled(nn.Module):
    """A network without batch normalization: one convolution of pixels scaled to [0, 1]."""

    def __init__(self, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(1, classes, 3, padding=1)

    def forward(self, images_nchw):
        return self.conv(images_nchw.float() / 255)


def make_learner(optimizer="adam", learning_rate=0.05, schedule="none"):
    torch.manual_seed(0)
    model = Scaled()
    chosen = build_optimizer(
        model.parameters(), name=optimizer, learning_rate=learning_rate, weight_decay=0
    )
    schedule = Schedule(chosen, name=schedule, steps=1, patience=0)
    return Learner(model, chosen, schedule, make_scaler(CPU, None), CPU)


class ReadyBatches:
    """Batches in a list, as both the order and the loader of a `FoldTrainer`."""

    def __init__(self, batches):
        self.batches = batches
        self.epoch, self.begin = 1, 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        yield from self.batches[self.begin :]


def make_batches(sizes, seed=0):
    """Batches of random pixels, each with its own masks of two classes."""
    draw = torch.Generator().manual_seed(seed)
    batches = []
    for size in sizes:
        images = torch.randint(0, 256, (size, 1, 6, 8), generator=draw, dtype=torch.uint8)
        masks = torch.cat([images > 128, images < 30], dim=1).to(torch.uint8)
        batches.append((images, masks, None))
    return batches


def make_trainer(learner, batches, *, kind=FoldTrainer, folder="unused", progress=None, **train):
    train = {"loss": "bce_with_logits", "save_minutes": 0, "gradient_clip": 0} | train
    config = build_config({"data": {"num_classes": 2}, "train": train})
    ready = ReadyBatches(batches)
    return kind(
        learner,
        progress or Progress(),
        FoldFiles(folder),
        CheckpointMetadata(3, config, ""),
        order=ready,
        loader=ready,
        validation=None,
    )


def train_epoch(learner, batches, **train):
    """Train on every batch once; give the mean loss."""
    return make_trainer(learner, batches, **train).train_epoch(1)


def weights(learner):
    return nn.utils.parameters_to_vector(learner.model.parameters()).detach().clone()


def test_the_loss_falls_over_epochs():
    """A threshold on brightness is what one convolution can learn."""
    learner, batches = make_learner(), make_batches([4, 4])

    losses = [train_epoch(learner, batches) for _ in range(20)]

    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_continues_from_any_step(accumulate):
    """Mean loss and weights are those of an uninterrupted epoch."""
    batches = make_batches([2, 3, 2, 4, 1])
    whole, parted = make_learner(), make_learner()
    expected = train_epoch(whole, batches, accumulate=accumulate)

    first = make_trainer(parted, batches[:2], accumulate=accumulate)
    first.train_epoch(1)
    second = make_trainer(parted, batches, accumulate=accumulate, progress=first.progress)
    found = second.train_epoch(1)

    assert found == expected
    assert second.progress.position == Position(5, second.progress.position.loss_sum, 12)
    assert torch.equal(weights(parted), weights(whole))


def test_two_batches_of_two_step_as_one_of_four():
    """Accumulation is for memory; without batch statistics the step is the same."""
    ((images, masks, _),) = make_batches([4])
    halves = [(images[:2], masks[:2], None), (images[2:], masks[2:], None)]
    whole, accumulated = make_learner("sgd"), make_learner("sgd")

    whole_loss = train_epoch(whole, [(images, masks, None)])
    accumulated_loss = train_epoch(accumulated, halves, accumulate=2)

    torch.testing.assert_close(weights(accumulated), weights(whole))
    assert accumulated_loss == pytest.approx(whole_loss)


def test_the_last_group_is_averaged_over_the_batches_it_has():
    """Three batches at accumulate=2 are a step of two and a step of one, at full strength."""
    batches = make_batches([2, 2, 2])
    expected, found = make_learner("sgd"), make_learner("sgd")

    train_epoch(expected, batches[:2], accumulate=2)
    train_epoch(expected, batches[2:], accumulate=1)
    train_epoch(found, batches, accumulate=2)

    torch.testing.assert_close(weights(found), weights(expected))


def test_the_mean_loss_is_over_samples():
    """A last batch of one sample counts once, not as much as a batch of three."""
    batches = make_batches([3, 1])
    losses = [BCE(make_learner().model(i), m.float(), None).item() for i, m, _ in batches]

    found = train_epoch(make_learner("sgd", learning_rate=1e-12), batches)

    assert found == pytest.approx((3 * losses[0] + losses[1]) / 4, rel=1e-5)


def test_clipping_bounds_the_step():
    """With plain momentum-free first steps the step is rate times gradient, at most rate x clip."""
    learner = make_learner("sgd", learning_rate=1.0)
    before = weights(learner)

    train_epoch(learner, make_batches([4]), gradient_clip=1e-3)

    # Nesterov's first step is 1 + momentum times the gradient.
    assert (weights(learner) - before).norm() == pytest.approx(1.9e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_before_the_step():
    """The weights of the step before are what a checkpoint can still keep."""
    learner, batches = make_learner(), make_batches([2, 2, 2])
    batches[1] = (batches[1][0].float() * math.nan, *batches[1][1:])

    train_epoch(learner, batches[:1])
    expected = weights(learner)
    learner = make_learner()
    with pytest.raises(TrainingError, match="step 2 of 3: the loss is nan"):
        train_epoch(learner, batches)

    torch.testing.assert_close(weights(learner), expected, rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    """A finite loss can have an infinite gradient, which would spoil every weight."""
    learner = make_learner()
    before = weights(learner)

    def root_of_zero(logits, masks, valid):
        return (logits - logits.detach()).abs().sum().sqrt()

    trainer = make_trainer(learner, make_batches([2]), gradient_clip=1.0)
    trainer.loss = root_of_zero
    with pytest.raises(TrainingError, match="step 1: the gradient is"):
        trainer.train_epoch(1)

    assert torch.equal(weights(learner), before)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_an_optimizer_that_was_saved_continues_with_the_same_bits(optimizer):
    """Momentum and step counts are half of what training has learned."""
    batches = make_batches([2, 2])
    straight = make_learner(optimizer)
    train_epoch(straight, batches)
    resumed = make_learner(optimizer)
    resumed.model.load_state_dict(straight.model.state_dict())
    tensors = {k: v.clone() for k, v in optimizer_tensors(straight.optimizer).items()}
    groups = straight.optimizer.state_dict()["param_groups"]
    restore_optimizer(resumed.optimizer, tensors.items(), groups)

    train_epoch(straight, batches)
    train_epoch(resumed, batches)

    assert torch.equal(weights(resumed), weights(straight))


def make_scores(percent):
    """Scores whose Dice is a whole percentage: that many of 100 pairs are correctly empty."""
    counts_nc3 = np.zeros((100, 1, 3), dtype=np.int64)
    counts_nc3[percent:, 0, 1] = 1
    return score(counts_nc3)


class Scripted(FoldTrainer):
    """A trainer whose validation gives chosen Dices; `broken` names epochs with a NaN image."""

    def backward(self, batch, step, loss):
        images, masks, valid = batch
        if self.progress.epoch + 1 in self.broken and step == 2:
            images = images * math.nan
        return super().backward((images, masks, valid), step, loss)

    def validate(self):
        return ValidationResult(0.5, make_scores(next(self.dices)), {})


def run(folder, dices, *, learner=None, progress=None, broken=(), **train):
    """Train one epoch for each Dice; `broken` names epochs whose second batch is NaN."""
    learner = learner or make_learner(learning_rate=0.01, schedule="reduce_on_plateau")
    progress = progress or Progress()
    trainer = make_trainer(
        learner,
        make_batches([2, 2]),
        kind=Scripted,
        folder=folder,
        progress=progress,
        epochs=progress.epoch + len(dices),
        **train,
    )
    trainer.dices, trainer.broken = iter(dices), broken
    for _ in trainer.train(StopRequest()):
        pass
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
    other = make_learner(learning_rate=0.01, schedule="reduce_on_plateau")
    progress = restore(other, load_checkpoint(kept[2]))
    assert (progress.epoch, progress.best_epoch, len(progress.history)) == (3, 3, 3)
    assert torch.equal(weights(other), weights(learner))


def test_an_epoch_that_is_done_is_kept(tmp_path, monkeypatch):
    """A disk that is full when it is kept leaves nothing that says that the epoch is done."""
    real = trainer_module.save_resumable

    def full(path, *rest):
        if path.name == "checkpoint_epoch_2.safetensors":
            raise OSError("no space left on device")
        real(path, *rest)

    monkeypatch.setattr(trainer_module, "save_resumable", full)
    with pytest.raises(OSError, match="no space"):
        run(tmp_path, [50, 60, 70], save_best_only=False)

    newest = load_checkpoint(FoldFiles(tmp_path).resumable()[0])
    assert newest.state["epoch"] == 1


def test_training_stops_when_nothing_gets_better(tmp_path):
    """Two epochs without a better Dice, counted from the best one."""
    _, progress = run(tmp_path, [50, 60, 60, 60, 90], early_stopping=2)

    assert progress.epoch == 4
    for early_stopping, is_done in ((2, True), (0, False)):
        trainer = make_trainer(
            make_learner(), [], progress=progress, epochs=5, early_stopping=early_stopping
        )
        assert trainer.is_done is is_done


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
    learner = make_learner(learning_rate=0.01, schedule="reduce_on_plateau")
    progress = restore(learner, load_checkpoint(path))

    run(tmp_path / "killed", [40, 60], learner=learner, progress=progress)

    assert torch.equal(weights(learner), weights(straight))
    without_time = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in part.history]
        for part in (progress, expected)
    ]
    np.testing.assert_equal(*without_time)
    assert (progress.best_dice, progress.best_epoch) == (0.6, 4)
