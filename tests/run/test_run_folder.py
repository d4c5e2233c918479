import json
import math

import pytest

from steelseg.errors import CheckpointError
from steelseg.run.run_folder import RunFolder, create_run


def test_settings_come_back_as_they_went_in(tmp_path, make_config):
    """Later stages read them from the run, with a few laid over them."""
    config = make_config(tmp_path / "input", "train.epochs=7")

    run = create_run(tmp_path / "run", config)

    assert run.load_config() == config
    assert run.load_config(("train.epochs=9",)).train.epochs == 9


def test_the_environment_is_written_down(tmp_path, make_config):
    """A number in a table is of little use without the versions that gave it."""
    create_run(tmp_path / "run", make_config(tmp_path / "input"))

    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert environment["packages"]["segmentation-models-pytorch"]


def test_a_folder_without_settings_is_no_run(tmp_path):
    """The message names the folder that was typed."""
    with pytest.raises(CheckpointError, match=f"{tmp_path} is not a run folder"):
        RunFolder(tmp_path).load_config()


def test_an_event_is_a_line_of_json(tmp_path):
    """NaN is no JSON, and a reader in another language would stop there."""
    run = RunFolder(tmp_path)

    run.event("epoch", {"fold": 0, "val_precision": math.nan, "val_dice": 0.5})
    run.event("oof", {"iou": None})

    first, second = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert first["event"] == "epoch"
    assert first["val_precision"] is None
    assert first["val_dice"] == 0.5
    assert second["event"] == "oof"


def test_results_go_to_stdout_and_warnings_to_stderr(tmp_path, capsys):
    """Both stay in training_log.txt, with their times."""
    run = RunFolder(tmp_path)

    run.say("fold 0: done")
    run.warn("class 2 was never found.")

    out, err = capsys.readouterr()
    assert (out, err) == ("fold 0: done\n", "warning: class 2 was never found.\n")
    log = (tmp_path / "training_log.txt").read_text().splitlines()
    assert [line.partition(" ")[2] for line in log] == [
        "fold 0: done",
        "warning: class 2 was never found.",
    ]


def test_only_folds_with_a_best_model_are_trained(tmp_path):
    """A fold that was begun is none to predict with."""
    for fold in (2, 0):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "best_model.safetensors").touch()
    (tmp_path / "fold_1").mkdir()

    assert RunFolder(tmp_path).trained_folds(5) == [0, 2]


def test_a_run_without_a_trained_fold_is_refused(tmp_path):
    """Every stage needs one, and the message says how to get it."""
    (tmp_path / "fold_0").mkdir()

    with pytest.raises(CheckpointError, match=f"{tmp_path} has no trained fold. Train first"):
        RunFolder(tmp_path).trained_folds(5)


@pytest.mark.parametrize("name", ["training_log.txt", "events.jsonl"])
def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path, name):
    """A stranger's run folder could have it written into any file of its user."""
    (tmp_path / "precious").write_text("old")
    (tmp_path / name).symlink_to(tmp_path / "precious")
    run = RunFolder(tmp_path)

    with pytest.raises(OSError, match=name):
        run.event("epoch", {}) if name == "events.jsonl" else run.say("text")

    assert (tmp_path / "precious").read_text() == "old"
