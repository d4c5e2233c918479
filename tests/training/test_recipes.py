"""Techniques that are switched on by settings, seen at work in whole trainings."""

import csv
import shutil

import pytest
import torch

from steelseg.errors import CheckpointError, ConfigError, TrainingError
from steelseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from steelseg.run.run_folder import RunFolder
from steelseg.training.averaging import WeightAverage
from steelseg.training.fold_files import FoldFiles
from steelseg.training.train import train_run
from steelseg.training.trainer import FoldTrainer


@pytest.fixture(scope="module")
def train(tmp_path_factory, make_config, make_strips):
    """Give a function that trains fold 0 by settings, once by each name, and tells of its run."""
    folder = tmp_path_factory.mktemp("recipes")
    make_strips(folder / "input")

    def run(name, *overrides, resume=False):
        """A run that is there already, of the same name, is trained only to go on."""
        if resume or not (folder / name).exists():
            config = make_config(folder / "input", *overrides)
            train_run(config, folder / name, folds=[0], resume=resume)
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

    log = (train.folder / "switched_loss" / "training_log.txt").read_text()
    assert "from epoch 2 on the loss is 5 lovasz" in log
    assert switched[0]["train_loss"] == plain[0]["train_loss"]
    assert float(switched[1]["train_loss"]) > 2 * float(plain[1]["train_loss"])


def test_a_later_loss_that_never_comes_is_refused(make_config, tmp_path):
    with pytest.raises(ConfigError, match=r"later_loss_epoch=3 is after the last of 2 epochs"):
        make_config(tmp_path, "train.epochs=2", "train.later_loss=dice", "train.later_loss_epoch=3")


def test_the_best_epoch_is_chosen_by_the_monitor(train):
    """And named in the history, beside the Dice at the fixed threshold."""
    rows = history_of(train("swept", "train.epochs=3", "train.monitor=best_threshold_dice"))
    plain = history_of(train("plain_monitor", "train.epochs=3"))

    swept = [float(row["val_best_threshold_dice"]) for row in rows]
    best = load_checkpoint(train.folder / "swept" / "fold_0" / "best_model.safetensors")
    assert best.state["epoch"] == 1 + swept.index(max(swept))
    assert [row["val_dice"] for row in rows] == [row["val_dice"] for row in plain]
    assert all(s >= float(row["val_dice"]) for s, row in zip(swept, rows, strict=True))
    assert "val_best_threshold_dice" not in plain[0]
    log = (train.folder / "swept" / "training_log.txt").read_text()
    assert all(f"best threshold Dice {value:.4f}, " in log for value in swept)
    assert f"highest best threshold Dice {max(swept):.4f} in epoch {best.state['epoch']}" in log


def best_of(run):
    return load_checkpoint(run.best_model(0))


def last_of(run, epoch):
    return load_checkpoint(FoldFiles(run.fold(0)).last(epoch))


def assert_same(found, expected):
    """Two state dicts, to the bit."""
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


EMA = "train.ema_decay=0.9"
EVERY_STEP = ("train.epochs=3", "train.save_minutes=1e-9", "train.save_best_only=false")


def epoch_of(run, epoch):
    return load_checkpoint(run.fold(0) / f"checkpoint_epoch_{epoch}.safetensors")


def test_a_run_with_averaged_weights_resumes_to_the_same_bits(train, monkeypatch):
    """Stopped in the second epoch after a step: average, network and best model are the same."""
    settings = (*EVERY_STEP, EMA)
    whole = train("whole_ema", *settings)

    steps = 0

    real = FoldTrainer.save_if_due

    def stop(trainer):
        nonlocal steps
        real(trainer)
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FoldTrainer, "save_if_due", stop)
        with pytest.raises(KeyboardInterrupt):
            train("parted_ema", *settings)
    parted = train("parted_ema", *settings, resume=True)

    for one, other in ((last_of(whole, 3), last_of(parted, 3)), (best_of(whole), best_of(parted))):
        assert_same(one.model, other.model)
        assert_same(one.average, other.average)
    assert best_of(whole).state["dice"] == best_of(parted).state["dice"]


def test_averaged_weights_are_validated_and_kept(train):
    """The best model is the average of its epoch; the network itself trains as without it."""
    run = train("whole_ema", *EVERY_STEP, EMA)
    plain = train("plain_monitor", "train.epochs=3")

    best = best_of(run)
    assert_same(best.model, epoch_of(run, best.state["epoch"]).average)
    assert_same(last_of(run, 3).model, last_of(plain, 3).model)
    assert history_of(run)[0]["val_loss"] != history_of(plain)[0]["val_loss"]


def test_an_average_that_is_not_finite_is_never_saved(train, monkeypatch):
    """The epoch before it is kept, and training resumes from there."""
    real = WeightAverage.update
    steps = 0

    def spoil(average, model, *, decay):
        nonlocal steps
        steps += 1
        if steps == 4:
            next(iter(average.model.parameters())).fill_(float("nan"))
        real(average, model, decay=decay)

    settings = (*EVERY_STEP, EMA)
    with monkeypatch.context() as patch:
        patch.setattr(WeightAverage, "update", spoil)
        with pytest.raises(TrainingError, match="epoch 2"):
            train("spoilt", *settings)

    run = RunFolder(train.folder / "spoilt")
    for tensor in (*best_of(run).model.values(), *last_of(run, 1).average.values()):
        assert tensor.isfinite().all()
    assert_same(
        last_of(train("spoilt", *settings, resume=True), 3).average,
        last_of(train("whole_ema", *settings), 3).average,
    )


def test_a_run_starts_from_the_same_fold_of_another(train):
    """Every weight, so that its first epoch goes on where the other ended."""
    first = train("plain")

    second = train("full_then", f"model.init_from={first.path}", "train.learning_rate=1e-12")

    found, started = best_of(second).model, best_of(first).model
    for name, tensor in found.items():
        if "running" not in name and tensor.is_floating_point():
            torch.testing.assert_close(tensor, started[name])
    log = (second.path / "training_log.txt").read_text()
    assert f"fold 0: starting from {first.best_model(0)}" in log


def test_another_number_of_classes_takes_all_but_the_head(
    train, make_config, make_strips, tmp_path
):
    """Another data set's encoder and decoder; the log names what is new."""
    first = train("plain")
    make_strips(tmp_path / "input", num_train=9, num_classes=3)
    for image in (tmp_path / "input" / "train_images").iterdir():
        image.rename(image.with_name(f"other_{image.name}"))
    csv_text = (tmp_path / "input" / "train.csv").read_text()
    (tmp_path / "input" / "train.csv").write_text(csv_text.replace("train_", "other_train_"))
    config = make_config(
        tmp_path / "input",
        "data.num_classes=3",
        f"model.init_from={first.best_model(0)}",
        "train.learning_rate=1e-12",
    )

    train_run(config, tmp_path / "run", folds=[0])

    run = RunFolder(tmp_path / "run")
    assert "; new: network.segmentation_head" in (run.path / "training_log.txt").read_text()
    weight = next(name for name in best_of(run).model if name.endswith("conv_stem.weight"))
    torch.testing.assert_close(best_of(run).model[weight], best_of(first).model[weight])


def test_a_start_that_has_seen_the_held_out_strips_is_refused(train):
    """Fold 1 of the same folds was trained on what fold 0 holds out."""
    first = train("plain")
    other = first.fold(1) / "best_model.safetensors"
    state = {**best_of(first).state, "fold": 1}
    save_checkpoint(other, Checkpoint(best_of(first).model, {}, state))

    with pytest.raises(ConfigError, match=r"was trained on .* which this fold holds out"):
        train("peeking", f"model.init_from={other}")
    resumable = FoldFiles(first.fold(1)).last(1)
    resumable.parent.mkdir(exist_ok=True)
    shutil.copyfile(other, resumable)
    with pytest.raises(ConfigError, match=r"was trained on .* which this fold holds out"):
        train("peeking_too", f"model.init_from={resumable}")
    assert not (train.folder / "peeking").exists()


def test_initial_weights_of_a_resumable_checkpoint_are_its_averaged_ones(train):
    """They are what that run would have kept."""
    first = train("whole_ema", *EVERY_STEP, EMA)

    start = FoldFiles(first.fold(0)).last(3)
    second = train("from_average", f"model.init_from={start}", "train.learning_rate=1e-12")

    weight = next(name for name in best_of(second).model if name.endswith("conv_stem.weight"))
    torch.testing.assert_close(best_of(second).model[weight], last_of(first, 3).average[weight])


def test_another_encoder_is_no_start(train):
    """It says which, and which of them to use."""
    first = train("plain")

    with pytest.raises(ConfigError, match=r"has model\.encoder=tu-mobilenetv3_small_050"):
        train("other", f"model.init_from={first.path}", "model.encoder=tu-test_resnet")
    with pytest.raises(CheckpointError, match=r"model\.init_from=.*no such run folder or checkpoi"):
        train("nowhere", f"model.init_from={train.folder / 'nothing.safetensors'}")
