"""Runs of a version that had settings which were removed or renamed since."""

import shutil

import pytest
import yaml

from steelseg import Predictor
from steelseg.api import bundle
from steelseg.errors import CheckpointError, ConfigError
from steelseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from steelseg.reporting.facts import read_histories
from steelseg.run.bundle_manifest import MANIFEST, read_manifest, sealed_text
from steelseg.run.run_folder import RunFolder
from steelseg.training.fold_files import FoldFiles
from steelseg.training.train import train_run


def aged(settings, **train):
    """Settings as commit 0c2f354 stored them."""
    old = {name: dict(section) for name, section in settings.items()}
    if "tune" in old:
        old["tune"]["parts"] = old["tune"].pop("inner_folds")
    old["train"] |= {"layer_decay": 1.0, "freeze_encoder_epochs": 0, "swa_rate": 0.2, **train}
    return old


def age(run, **train):
    """Make the settings of a run, and inside its checkpoints, those of commit 0c2f354."""
    settings = aged(yaml.safe_load(run.config_yaml.read_text()), **train)
    run.config_yaml.write_text(yaml.safe_dump(settings))
    for path in run.path.rglob("*.safetensors"):
        was = load_checkpoint(path)
        state = {**was.state, "config": aged(was.state["config"], **train)}
        save_checkpoint(path, Checkpoint(was.model, was.optimizer, state, average=was.average))


@pytest.fixture
def run(trained_run, tmp_path):
    """Give a copy of a trained run."""
    shutil.copytree(trained_run, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_run_of_an_older_version_trains_on(run):
    """Over more epochs than it had."""
    age(run)

    config = run.load_config(("train.epochs=3",), to_train=True)
    train_run(config, run.path, folds=[0], resume=True)

    assert load_checkpoint(FoldFiles(run.fold(0)).last(3)).state["epoch"] == 3


@pytest.mark.parametrize("train", [{}, {"average": "soup"}, {"layer_decay": 0.7}])
def test_its_predictions_stay_the_same(trained_run, run, train, tmp_path):
    """From the run folder, from a checkpoint and from a bundle of that version."""
    strip = sorted((trained_run.parent / "input" / "test_images").iterdir())[0]
    expected = Predictor(trained_run).probs(strip)
    one = Predictor(RunFolder(trained_run).best_model(0)).probs(strip)
    folder = bundle(trained_run, out=tmp_path / "bundle")
    manifest = read_manifest(folder).model_dump(mode="json")
    old = sealed_text(manifest | {"config": aged(manifest["config"], **train)})

    age(run, **train)
    (folder / MANIFEST).write_text(old)

    assert (Predictor(run.path).probs(strip) == expected).all()
    assert (Predictor(run.best_model(0)).probs(strip) == one).all()
    assert (Predictor(folder).probs(strip) == expected).all()


def test_a_fold_with_a_former_monitor_resumes(trained_run, make_config, tmp_path):
    """As swept_dice, its value of train.monitor and its column of history.csv were stored."""
    config = make_config(
        trained_run.parent / "input", "train.monitor=best_threshold_dice", "train.epochs=2"
    )
    for name in ("old", "new"):
        train_run(config, tmp_path / name, folds=[0])
    run, new = RunFolder(tmp_path / "old"), RunFolder(tmp_path / "new")
    age(run, monitor="swept_dice")
    for path in run.path.rglob("*.safetensors"):
        was = load_checkpoint(path)
        rows = [
            {name.replace("best_threshold", "swept"): value for name, value in row.items()}
            for row in was.state.get("history", ())
        ]
        state = {**was.state, **({"history": rows} if rows else {})}
        save_checkpoint(path, Checkpoint(was.model, was.optimizer, state, average=was.average))
    history = run.fold(0) / "history.csv"
    history.write_text(history.read_text().replace("best_threshold", "swept"))
    assert read_histories(run, 2)[0].best == read_histories(new, 2)[0].best

    for one in (run, new):
        train_run(
            one.load_config(("train.epochs=3",), to_train=True), one.path, folds=[0], resume=True
        )

    old, today = (load_checkpoint(FoldFiles(one.fold(0)).last(3)).state for one in (run, new))
    assert old["best_dice"] == today["best_dice"]
    assert [list(row) for row in old["history"]] == [list(row) for row in today["history"]]
    assert (
        history.read_text().splitlines()[0]
        == ((new.fold(0) / "history.csv").read_text().splitlines()[0])
    )


def test_training_with_a_removed_setting_does_not_go_on(run, trained_run):
    """Neither by the settings of the run folder nor by those inside a checkpoint."""
    config = RunFolder(trained_run).load_config(("train.epochs=3",))
    settings = run.config_yaml.read_text()
    age(run, average="soup")

    with pytest.raises(ConfigError, match=r"config\.yaml was trained with train\.average=soup, "):
        train_run(config, run.path, folds=[0], resume=True)
    run.config_yaml.write_text(settings)
    with pytest.raises(CheckpointError, match=r"train\.average=soup, .* at commit 0c2f354\."):
        train_run(config, run.path, folds=[0], resume=True)
