import csv
import json
import os
import shutil
import signal
import threading

import numpy as np
import pytest
import torch

from steelseg.data.checks.check import load_labels
from steelseg.data.folds import assign_folds, read_folds, read_groups
from steelseg.data.samples.precropped_store import build_store
from steelseg.errors import CheckpointError, ConfigError, DataError, Stopped, TrainingError
from steelseg.models.checkpoint import load_checkpoint
from steelseg.run.run_folder import RunFolder
from steelseg.signals import defer_signals
from steelseg.training.fold_files import FoldFiles
from steelseg.training.train import choose_folds, ensure_folds, train_run

KILLER = '''
"""Flips at random; raises in the middle of an epoch when a test asks for it."""
import os
import signal
import threading

import numpy as np

calls_left = signal_in = None


def flip(image, mask):
    global calls_left, signal_in
    if signal_in is not None:
        signal_in -= 1
        if signal_in == 0:
            os.kill(os.getpid(), signal.SIGTERM)
    if calls_left is not None:
        calls_left -= 1
        if calls_left < 0:
            raise KeyboardInterrupt
    if np.random.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return {"image": image, "mask": mask}


def floats(image, mask):
    return {"image": image / 255.0, "mask": mask}
'''


@pytest.fixture
def killer(tmp_path, monkeypatch):
    """Give a user's module with an augmentation that can be told to be interrupted."""
    (tmp_path / "killer_augmentation.py").write_text(KILLER)
    monkeypatch.syspath_prepend(tmp_path)
    import killer_augmentation

    yield killer_augmentation
    killer_augmentation.calls_left = killer_augmentation.signal_in = None


@pytest.fixture
def root(make_strips, tmp_path):
    """Give eight training strips."""
    make_strips(tmp_path / "input")
    return tmp_path / "input"


def read_history(path):
    """Read history.csv without its times."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def assert_same_fold(one, other, epoch):
    """Hold best model, resumable checkpoint and history of two folds against each other."""
    for name in ("best_model.safetensors", f"last/epoch_{epoch:04d}.safetensors"):
        first, second = load_checkpoint(one / name), load_checkpoint(other / name)
        assert first.model.keys() == second.model.keys()
        assert first.optimizer.keys() == second.optimizer.keys()
        for part in ("model", "optimizer"):
            tensors = getattr(second, part)
            for key, tensor in getattr(first, part).items():
                assert torch.equal(tensor, tensors[key]), key
        assert first.state["epoch"] == second.state["epoch"]
        assert first.state["dice"] == second.state["dice"]
    assert read_history(one / "history.csv") == read_history(other / "history.csv")


@pytest.mark.parametrize("scheduler", ["reduce_on_plateau", "cosine", "one_cycle"])
def test_a_killed_training_resumes_to_the_same_bits(root, tmp_path, make_config, killer, scheduler):
    """Killed in the middle of the second epoch, it ends as if it had not been."""
    config = make_config(
        root,
        f"train.scheduler={scheduler}",
        "train.epochs=3",
        "train.patience=0",
        "train.augmentation=killer_augmentation:flip",
    )
    train_run(config, tmp_path / "straight", folds=[1])
    killer.calls_left = 6
    with pytest.raises(KeyboardInterrupt):
        train_run(config, tmp_path / "killed", folds=[1])
    killer.calls_left = None
    assert len(read_history(tmp_path / "killed" / "fold_1" / "history.csv")) == 1

    train_run(config, tmp_path / "killed", folds=[1], resume=True)

    assert_same_fold(tmp_path / "straight" / "fold_1", tmp_path / "killed" / "fold_1", 3)


@pytest.mark.parametrize(("signal_in", "passes"), [(1, 1), (3, 1), (7, 1), (2, 2), (7, 2)])
def test_a_stopped_training_saves_within_the_epoch(
    root, tmp_path, make_config, killer, signal_in, passes
):
    """SIGTERM after some samples: the step is finished and saved; the end stays the same."""
    config = make_config(
        root,
        "train.scheduler=one_cycle",
        "train.epochs=2",
        f"train.passes={passes}",
        "train.augmentation=killer_augmentation:flip",
    )
    train_run(config, tmp_path / "straight", folds=[1])
    killer.signal_in = signal_in
    with pytest.raises(Stopped) as caught:
        train_run(config, tmp_path / "stopped", folds=[1])
    assert caught.value.signum == signal.SIGTERM
    newest = FoldFiles(tmp_path / "stopped" / "fold_1").resumable()[0]
    assert "_step_" in newest.name

    train_run(config, tmp_path / "stopped", folds=[1], resume=True)

    assert_same_fold(tmp_path / "straight" / "fold_1", tmp_path / "stopped" / "fold_1", 2)


def test_a_second_signal_stops_at_once():
    """Who asks twice does not want to wait; outside the block signals are as before."""
    before = signal.getsignal(signal.SIGINT)

    def ask_twice():
        with defer_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signum == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second signal was recorded too")

    with pytest.raises(Stopped):
        ask_twice()

    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_was_never_checked_stops_at_the_end():
    """One that comes while the last epoch is saved must not be lost: the next stage takes hours."""
    with pytest.raises(Stopped) as caught, defer_signals():
        os.kill(os.getpid(), signal.SIGTERM)

    assert caught.value.signum == signal.SIGTERM


@pytest.mark.parametrize("mode", ["full", "crops"])
def test_the_number_of_workers_changes_nothing(root, tmp_path, make_config, mode):
    """Samples are drawn from (seed, epoch, index), whichever process makes them."""
    for workers in (0, 2):
        config = make_config(
            root,
            f"data.mode={mode}",
            f"train.num_workers={workers}",
            "train.augmentation=light",
            "train.epochs=2",
        )
        train_run(config, tmp_path / str(workers), folds=[0])

    assert_same_fold(tmp_path / "0" / "fold_0", tmp_path / "2" / "fold_0", 2)


def test_the_store_trains_as_the_images_do(root, tmp_path, make_config):
    """The mode is crops, only faster."""
    crops = make_config(root, "data.mode=crops")
    store = make_config(root, "data.mode=precropped", f"data.precropped_dir={tmp_path / 'store'}")
    image_ids = list(load_labels(crops.data).sizes)
    build_store(tmp_path / "store", root=root, image_ids=image_ids, channels=1)

    train_run(crops, tmp_path / "crops", folds=[0])
    train_run(store, tmp_path / "precropped", folds=[0])

    assert_same_fold(tmp_path / "crops" / "fold_0", tmp_path / "precropped" / "fold_0", 1)


def test_a_run_folder_holds_what_later_stages_need(trained_run, make_config):
    """Settings, folds, checkpoints and history of each fold, a log for people and programs."""
    names = {str(p.relative_to(trained_run)) for p in trained_run.rglob("*") if p.is_file()}

    assert {
        "config.yaml",
        "environment.json",
        "folds.csv",
        "training_log.txt",
        "events.jsonl",
        "fold_0/best_model.safetensors",
        "fold_0/history.csv",
        "fold_0/last/epoch_0001.safetensors",
        "fold_1/best_model.safetensors",
    } <= names
    assert not [name for name in names if "partial" in name]
    root = trained_run.parent / "input"
    assert RunFolder(trained_run).load_config() == make_config(root)


def test_events_are_json(trained_run):
    """A line for each epoch, for programs that draw curves."""
    lines = (trained_run / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]

    epochs = [event for event in events if event["event"] == "epoch"]
    assert [(event["fold"], event["epoch"]) for event in epochs] == [(0, 1), (1, 1)]
    assert all(0 <= event["val_dice"] <= 1 for event in epochs)


def test_the_log_tells_of_each_epoch(trained_run):
    """Losses and Dice, and the table of all classes."""
    text = (trained_run / "training_log.txt").read_text()

    assert "fold 0 epoch 1/1: train loss " in text
    assert "false alarms" in text
    assert f"wrote {trained_run / 'fold_1' / 'best_model.safetensors'}" in text


def test_two_passes_are_two_epochs_without_validation_between(root, tmp_path, make_config):
    """The same samples in the same order, changed alike, at the same rates."""
    settings = ("train.scheduler=one_cycle", "train.augmentation=[flips, shift_scale]")
    often = make_config(root, *settings, "train.epochs=4", "train.sampling=balanced")
    seldom = make_config(
        root, *settings, "train.epochs=2", "train.passes=2", "train.sampling=balanced"
    )
    train_run(often, tmp_path / "often", folds=[0])
    train_run(seldom, tmp_path / "seldom", folds=[0])

    first, second = (
        load_checkpoint(tmp_path / name / "fold_0" / "last" / f"epoch_{epochs:04d}.safetensors")
        for name, epochs in (("often", 4), ("seldom", 2))
    )
    assert all(torch.equal(tensor, second.model[name]) for name, tensor in first.model.items())
    rows = [
        read_history(tmp_path / name / "fold_0" / "history.csv") for name in ("often", "seldom")
    ]
    assert [row["val_dice"] for row in rows[0][1::2]] == [row["val_dice"] for row in rows[1]]


def test_an_accumulated_training_resumes_too(root, tmp_path, make_config):
    """The schedule counts optimizer steps, of which the last of an epoch may be a short one."""
    config = make_config(root, "train.accumulate=3", "train.epochs=2", "train.scheduler=one_cycle")
    train_run(config, tmp_path / "run", folds=[0])

    state = load_checkpoint(tmp_path / "run" / "fold_0" / "last" / "epoch_0002.safetensors").state
    assert state["schedule"]["last_epoch"] == 2


def test_a_fold_that_is_done_is_left_alone(root, tmp_path, make_config, capsys):
    """--resume on a whole run trains nothing and says so."""
    train_run(make_config(root), tmp_path / "run", folds=[0])
    before = (tmp_path / "run" / "fold_0" / "best_model.safetensors").stat().st_mtime_ns

    train_run(make_config(root), tmp_path / "run", folds=[0], resume=True)

    assert "fold 0: already done, highest Dice" in capsys.readouterr().out
    assert (tmp_path / "run" / "fold_0" / "best_model.safetensors").stat().st_mtime_ns == before


def test_a_trained_fold_is_not_overwritten(trained_run, make_config):
    """A second `steelseg train` without --resume would cost a day of training."""
    config = RunFolder(trained_run).load_config()

    with pytest.raises(ConfigError, match=r"fold_0 already contains a fold\. Use --resume"):
        train_run(config, trained_run)


def test_copies_of_a_strip_are_held_out_together(root, tmp_path, make_config):
    """Unless the settings say otherwise; folds.csv keeps the groups."""
    for number in range(4):
        shutil.copy(
            root / "train_images" / "train_000.jpg", root / "train_images" / f"copy_{number}.jpg"
        )
    copies = ["copy_0.jpg", "copy_1.jpg", "copy_2.jpg", "copy_3.jpg", "train_000.jpg"]

    train_run(make_config(root), tmp_path / "grouped", folds=[0])
    train_run(make_config(root, "data.group_duplicates=false"), tmp_path / "plain", folds=[0])

    grouped, plain = (tmp_path / name / "folds.csv" for name in ("grouped", "plain"))
    assert read_groups(grouped) == dict.fromkeys(copies, "copy_0.jpg")
    assert read_groups(plain) == {}
    labels = load_labels(make_config(root).data)
    image_ids = list(labels.sizes)
    fold_of = read_folds(grouped, image_ids=image_ids, num_folds=2)
    assert len({fold_of[image_id] for image_id in copies}) == 1
    present = {image_id: labels.class_ids(image_id) for image_id in image_ids}
    assert read_folds(plain, image_ids=image_ids, num_folds=2) == assign_folds(
        present, num_folds=2, seed=42
    )


def test_runs_of_two_seeds_can_share_their_folds(root, tmp_path, make_config):
    """So that they can be compared strip by strip, and averaged."""

    def deal(*settings):
        run = RunFolder(tmp_path)
        run.folds_csv.unlink(missing_ok=True)
        ensure_folds(make_config(root, *settings), run)
        return run.folds_csv.read_text()

    assert deal("train.seed=1") != deal("train.seed=2")
    assert deal("train.seed=1", "data.fold_seed=2") == deal("train.seed=2")


def test_other_folds_can_be_added_to_a_run(root, tmp_path, make_config):
    """folds.csv is read back, so that no strip is held out twice or never."""
    train_run(make_config(root), tmp_path / "run", folds=[0])
    before = (tmp_path / "run" / "folds.csv").read_text()
    rows = list(csv.DictReader(before.splitlines()))
    swapped = before.replace(",0,", ",x,").replace(",1,", ",0,").replace(",x,", ",1,")
    (tmp_path / "run" / "folds.csv").write_text(swapped)

    train_run(make_config(root), tmp_path / "run", folds=[1])

    assert (tmp_path / "run" / "folds.csv").read_text() == swapped
    assert sorted(row["fold"] for row in rows) == ["0"] * 4 + ["1"] * 4


@pytest.mark.parametrize(
    "override", ["train.learning_rate=0.1", "data.num_folds=4", "model.arch=unet"]
)
def test_a_run_does_not_mix_two_settings(trained_run, make_config, override):
    """Half of a fold under each would be no training at all."""
    config = RunFolder(trained_run).load_config((override,))

    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        train_run(config, trained_run, resume=True)


def test_settings_that_do_not_change_the_training_may_change(root, tmp_path, make_config):
    """Another machine has other cores and keeps its data elsewhere."""
    train_run(make_config(root), tmp_path / "run", folds=[0])
    root.rename(tmp_path / "moved")
    config = make_config(tmp_path / "moved", "train.num_workers=1", "train.batch_size_val=3")

    train_run(config, tmp_path / "run", folds=[0], resume=True)


def test_a_checkpoint_of_other_settings_is_refused(root, tmp_path, make_config):
    """Named with the first setting that differs."""
    train_run(make_config(root), tmp_path / "run", folds=[0])
    checkpoint = tmp_path / "run" / "fold_0" / "last" / "epoch_0001.safetensors"
    config = make_config(root, "train.loss=dice")

    with pytest.raises(CheckpointError, match=r"train.loss=bce_dice_pos_weight, not dice"):
        train_run(config, tmp_path / "new", folds=[0], checkpoint=checkpoint)


def test_a_checkpoint_of_another_fold_is_refused(trained_run, tmp_path, make_config):
    """It has seen the strips that this fold holds out."""
    config = RunFolder(trained_run).load_config()
    checkpoint = trained_run / "fold_0" / "last" / "epoch_0001.safetensors"

    with pytest.raises(CheckpointError, match="belongs to fold 0, not to fold 1"):
        train_run(config, tmp_path / "new", folds=[1], checkpoint=checkpoint)


def test_a_kept_epoch_can_be_gone_on_from(root, tmp_path, make_config):
    """checkpoint_epoch_1 of one folder goes on in another, to the same bits."""
    config = make_config(root, "train.epochs=2", "train.save_best_only=false")
    train_run(config, tmp_path / "straight", folds=[0])
    first = tmp_path / "straight" / "fold_0" / "checkpoint_epoch_1.safetensors"

    train_run(config, tmp_path / "other", folds=[0], checkpoint=first)

    kept = "checkpoint_epoch_2.safetensors"
    found = load_checkpoint(tmp_path / "other" / "fold_0" / kept)
    expected = load_checkpoint(tmp_path / "straight" / "fold_0" / kept)
    assert all(torch.equal(found.model[name], expected.model[name]) for name in expected.model)
    best = [tmp_path / name / "fold_0" / "best_model.safetensors" for name in ("straight", "other")]
    assert load_checkpoint(best[0]).sha256 == load_checkpoint(best[1]).sha256


def test_more_epochs_may_be_asked_for(root, tmp_path, make_config):
    """Where the schedule does not depend on their number; the run folder remembers."""
    longer = make_config(root, "train.epochs=2")
    train_run(longer, tmp_path / "straight", folds=[0])
    train_run(make_config(root), tmp_path / "run", folds=[0])

    train_run(longer, tmp_path / "run", folds=[0], resume=True)

    assert_same_fold(tmp_path / "run" / "fold_0", tmp_path / "straight" / "fold_0", 2)
    assert RunFolder(tmp_path / "run").load_config() == longer


def test_a_schedule_over_all_epochs_cannot_be_stretched(root, tmp_path, make_config):
    """Its first half is already history."""
    cosine = "train.scheduler=cosine"
    train_run(make_config(root, cosine), tmp_path / "run", folds=[0])

    with pytest.raises(ConfigError, match=r"already contains a run with train.epochs=1, not 2"):
        train_run(make_config(root, cosine, "train.epochs=2"), tmp_path / "run", resume=True)


def test_a_damaged_newest_checkpoint_falls_back_with_a_warning(root, tmp_path, make_config, capsys):
    """One epoch is trained again, to the same weights."""
    config = make_config(root, "train.epochs=2")
    train_run(config, tmp_path / "run", folds=[0])
    shutil.copytree(tmp_path / "run", tmp_path / "expected")
    newest = tmp_path / "run" / "fold_0" / "last" / "epoch_0002.safetensors"
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)

    train_run(config, tmp_path / "run", folds=[0], resume=True)

    assert f"warning: {newest} is damaged" in capsys.readouterr().err
    assert_same_fold(tmp_path / "run" / "fold_0", tmp_path / "expected" / "fold_0", 2)


def test_a_fold_without_a_whole_checkpoint_is_not_trained_over(root, tmp_path, make_config):
    """Its best model may be all that is left."""
    train_run(make_config(root), tmp_path / "run", folds=[0])
    shutil.rmtree(tmp_path / "run" / "fold_0" / "last")

    with pytest.raises(CheckpointError, match="last/ has no checkpoint to resume from"):
        train_run(make_config(root), tmp_path / "run", folds=[0], resume=True)


def test_data_with_a_fault_leaves_no_run_folder(root, tmp_path, make_config):
    """Training refuses what `steelseg check` refuses, before anything is written."""
    with (root / "train.csv").open("a") as file:
        file.write("train_000.jpg,1,5 0\n")

    with pytest.raises(DataError, match=r"train.csv:\d+: "):
        train_run(make_config(root), tmp_path / "run")

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.encoder=tu-mobilenetv3_smal_050", "did you mean tu-mobilenetv3_small_050"),
        ("train.augmentation=no_such:module", "cannot be imported"),
        ("data.num_folds=9", "there are 8 images"),
        ("model.encoder_weights=no/such.safetensors", "there is no such file"),
        ("model.init_from=no/such.safetensors", "there is no such run folder or checkpoint"),
        ("train.hard_negatives=no_such_run", "hard_negatives=no_such_run is not a run folder"),
    ],
)
def test_settings_that_cannot_train_leave_no_run_folder(
    root, tmp_path, make_config, override, reason
):
    """Mended settings could not use a folder that holds the broken ones."""
    with pytest.raises((ConfigError, CheckpointError), match=reason):
        train_run(make_config(root, override), tmp_path / "run")

    assert not (tmp_path / "run").exists()


def test_a_missing_store_leaves_no_run_folder(root, tmp_path, make_config):
    """The line says how to make it."""
    config = make_config(root, "data.mode=precropped", f"data.precropped_dir={tmp_path / 'no'}")

    with pytest.raises(DataError, match=r"There is no precropped store.*steelseg precrop"):
        train_run(config, tmp_path / "run")

    assert not (tmp_path / "run").exists()


# Torch takes 5 s to end a worker whose error stopped the training, so one is enough.
@pytest.mark.parametrize("workers", [0, 1])
def test_an_augmentation_that_returns_floats_is_one_line(
    root, tmp_path, make_config, killer, workers
):
    """From a worker process too, whose traceback says nothing to a user."""
    config = make_config(
        root, "train.augmentation=killer_augmentation:floats", f"train.num_workers={workers}"
    )

    with pytest.raises(ConfigError) as caught:
        train_run(config, tmp_path / "run")

    assert str(caught.value).startswith("train.augmentation=killer_augmentation:floats returned")
    assert "\n" not in str(caught.value)


def test_a_training_that_explodes_names_its_place(root, tmp_path, make_config):
    """Fold, epoch and step; the threads that load have ended before anyone hears of it."""
    config = make_config(
        root,
        "train.learning_rate=1e30",
        "train.optimizer=sgd",
        "train.gradient_clip=0",
        "train.num_workers=2",
    )

    with pytest.raises(TrainingError, match="fold 0, epoch 1, step 2 of 2: the loss is") as caught:
        train_run(config, tmp_path / "run")

    assert caught.tb
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_images_of_many_sizes_train_together(make_strips, tmp_path, make_config):
    """img_height=null: a batch is padded, and padding is no part of the loss."""
    root = tmp_path / "input"
    make_strips(root, num_train=5)
    (root / "train_images" / "train_004.jpg").unlink()
    lines = (root / "train.csv").read_text().splitlines()
    (root / "train.csv").write_text("\n".join(x for x in lines if "train_004" not in x) + "\n")
    make_strips(tmp_path / "small", num_train=4, height=20, width=50)
    for number in range(4):
        source = tmp_path / "small" / "train_images" / f"train_{number:03d}.jpg"
        shutil.copy(source, root / "train_images" / f"small_{number}.jpg")
    config = make_config(root, "data.img_height=null", "data.img_width=null")

    train_run(config, tmp_path / "run", folds=[0])

    history = read_history(tmp_path / "run" / "fold_0" / "history.csv")
    assert np.isfinite(float(history[0]["train_loss"]))


@pytest.mark.parametrize(
    ("folds", "expected"), [(None, [0, 1, 2]), ([], [0, 1, 2]), ([2, 0, 2], [0, 2])]
)
def test_folds_are_all_or_those_named(folds, expected):
    """In order and once, whatever was typed."""
    assert choose_folds(folds, 3) == expected


@pytest.mark.parametrize("fold", [-1, 3])
def test_a_fold_that_does_not_exist_is_refused(fold):
    """Folds count from 0."""
    with pytest.raises(ConfigError, match=f"--fold {fold}: data.num_folds=3 makes folds 0 to 2"):
        choose_folds([fold], 3)


def test_what_is_told_of_each_epoch_can_end_the_training(root, tmp_path, make_config):
    """Once the epoch is saved; a fold that resumes tells of the epochs before, and goes on."""
    config, told = make_config(root, "train.epochs=3"), []

    def until_the_second(fold, row):
        told.append((fold, int(row["epoch"])))
        if row["epoch"] == 2:
            raise LookupError

    with pytest.raises(LookupError):
        train_run(config, tmp_path / "run", folds=[1], after_epoch=until_the_second)
    assert told == [(1, 1), (1, 2)]
    assert len(read_history(tmp_path / "run" / "fold_1" / "history.csv")) == 2
    told.clear()
    train_run(
        *(config, tmp_path / "run"),
        folds=[1],
        resume=True,
        after_epoch=lambda fold, row: told.append((fold, int(row["epoch"]))),
    )

    assert told == [(1, 1), (1, 2), (1, 3)]
