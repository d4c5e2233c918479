import json
import re
import shutil
import subprocess
import sys
from unittest import mock

import pytest

import steelseg
from steelseg.api import check, evaluate, oof, precrop, run, train
from steelseg.errors import ConfigError, DataError
from steelseg.files.journal import Journal
from steelseg.prediction.predict import predict_folder


@pytest.fixture
def config(make_strips, make_config, tmp_path):
    """Give settings for eight training strips and two test strips."""
    make_strips(tmp_path / "input")
    return make_config(tmp_path / "input", f"data.precropped_dir={tmp_path / 'store'}")


def test_importing_the_package_costs_nothing():
    """Names are loaded when first used."""
    code = "import sys, steelseg; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there():
    """And no other is made up."""
    for name in steelseg.__all__:
        assert getattr(steelseg, name) is not None
    with pytest.raises(AttributeError, match="module 'steelseg' has no attribute 'predict'"):
        _ = steelseg.predict


def test_run_is_the_function_whatever_was_imported_before():
    """The folder run/ has the name of a public function."""
    code = (
        "import steelseg.run.run_folder, steelseg.api; from steelseg import run; "
        "assert run is steelseg.api.run; assert steelseg.run is run"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_few_lines_train_and_predict(config, tmp_path):
    """From settings to a mask, without a command line."""
    path = steelseg.train(config, tmp_path / "run", folds=[0])
    mask_chw = steelseg.Predictor(path)(config.data.root / "test_images" / "test_000.jpg")

    assert path == tmp_path / "run"
    assert mask_chw.shape == (2, 32, 96)


def test_run_goes_to_a_folder_of_its_own_by_default(config, tmp_path, monkeypatch):
    """Named by date and time, so that runs stand in order."""
    monkeypatch.chdir(tmp_path)

    path = run(config, folds=[1], overlays=True)

    assert re.fullmatch(r"outputs/\d{8}_\d{6}", str(path))
    assert (path / "submission.csv").exists()
    assert len(list((path / "overlays").iterdir())) == 2
    assert len(list((path / "overlays_oof").iterdir())) == 4
    assert not (path / "fold_0").exists()


def test_a_run_that_was_killed_while_it_predicted_goes_on_there(config, tmp_path, capsys):
    """Its last strips are predicted, not all; the submission is that of a whole prediction."""
    add = Journal.add

    def add_once(journal, entry):
        if entry.image_id == "test_001.jpg":
            raise KeyboardInterrupt
        add(journal, entry)

    with mock.patch.object(Journal, "add", add_once), pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", folds=[0])
    assert not (tmp_path / "run" / "submission.csv").exists()
    run(config, tmp_path / "run", folds=[0], resume=True)
    predict_folder(steelseg.Predictor(tmp_path / "run", folds=[0]), tmp_path / "whole")

    assert "1 of 2 images were predicted before" in capsys.readouterr().err
    found, expected = (tmp_path / name / "submission.csv" for name in ("run", "whole"))
    assert found.read_bytes() == expected.read_bytes()


def test_evaluate_gives_what_it_writes(trained_run, tmp_path):
    """As a dictionary, for notebooks."""
    shutil.copytree(trained_run, tmp_path / "run")
    oof(tmp_path / "run", folds=[0])

    metrics = evaluate(tmp_path / "run", ["postprocess.threshold=0.4"])

    written = (tmp_path / "run" / "metrics.json").read_text()
    assert json.loads(json.dumps(metrics)) == json.loads(written)


def test_data_with_a_fault_stops_every_stage(config, tmp_path):
    """Before anything is written."""
    with (config.data.root / "train.csv").open("a") as file:
        file.write("train_000.jpg,1,5 0\n")

    assert len(check(config).faults) == 1
    for stage in (
        lambda: precrop(config),
        lambda: train(config, tmp_path / "run"),
        lambda: run(config, tmp_path / "run"),
    ):
        with pytest.raises(DataError, match=r"train.csv:\d+: "):
            stage()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["input"]


def test_a_fold_that_does_not_exist_stops_a_run_at_once(config, tmp_path):
    """Before the strips are decoded for an hour."""
    with pytest.raises(ConfigError, match=r"--fold 2: data.num_folds=2 makes folds 0 to 1"):
        run(config, tmp_path / "run", folds=[2])

    assert not (tmp_path / "run").exists()


def test_a_store_is_made_once_for_a_run_that_resumes(make_config, config, tmp_path):
    """It is held against the data, so there is no need to decode everything again."""
    stored = make_config(
        config.data.root, "data.mode=precropped", f"data.precropped_dir={tmp_path / 'store'}"
    )
    run(stored, tmp_path / "run", folds=[0])
    before = (tmp_path / "store" / "index.json").stat().st_mtime_ns

    run(stored, tmp_path / "run", folds=[0], resume=True)

    assert (tmp_path / "store" / "index.json").stat().st_mtime_ns == before
