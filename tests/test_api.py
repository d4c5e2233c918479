import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

import steelseg
from steelseg import api
from steelseg.api import check, compare, evaluate, oof, precrop, predict, run, synth, train
from steelseg.cli.main import build_parser
from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.files.journal import Journal
from steelseg.prediction.predict import predict_folder


@pytest.fixture
def config(make_strips, make_config, tmp_path):
    """Give settings for eight training strips and two test strips."""
    make_strips(tmp_path / "input")
    return make_config(tmp_path / "input", f"data.precropped_dir={tmp_path / 'store'}")


OTHERS = ["Config", "Predictor", "__version__", "load_config"]
# What is added to or removed from `__all__` is a change for users: see CHANGELOG.md.
STAGES = [name for name in steelseg.__all__ if name not in OTHERS]


def in_a_new_process(code):
    """Run code in a fresh interpreter; return its output."""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize("module", ["steelseg", "steelseg.api", "steelseg.cli.main"])
def test_importing_loads_no_torch(module):
    """Names and stages are loaded when first used."""
    heavy = "[name for name in ('torch', 'numpy', 'pydantic') if name in sys.modules]"

    assert in_a_new_process(f"import sys, {module}; print({heavy})") == "[]"


def test_every_public_name_exists():
    """Names are found when they are first used, so a wrong one would go unnoticed until then."""
    assert steelseg.__all__ == sorted(steelseg.__all__)
    assert set(OTHERS) < set(steelseg.__all__)
    for name in steelseg.__all__:
        assert getattr(steelseg, name) is not None
    with pytest.raises(AttributeError, match="module 'steelseg' has no attribute 'forecast'"):
        _ = steelseg.forecast


def test_every_function_of_the_api_is_public():
    """`from steelseg import NAME` and `steelseg.api.NAME` are the same."""
    functions = {
        name: function
        for name, function in inspect.getmembers(api, inspect.isfunction)
        if function.__module__ == api.__name__ and not name.startswith("_")
    }

    assert sorted(functions) == STAGES
    assert all(getattr(steelseg, name) is function for name, function in functions.items())


@pytest.mark.parametrize("name", STAGES)
def test_a_public_function_is_documented_and_typed(name):
    """Every argument has a type, and a line under Args."""
    function = getattr(api, name)
    signature = inspect.signature(function)

    assert signature.return_annotation is not inspect.Signature.empty
    for argument, parameter in signature.parameters.items():
        assert parameter.annotation is not inspect.Parameter.empty
        assert f"    {argument}: " in inspect.getdoc(function)


def test_every_command_is_a_function():
    """Whatever the command line does, Python can do."""
    names = {"augment-preview": "preview_augmentation"}
    (commands,) = (a.choices for a in build_parser()._actions if a.dest == "command")

    assert sorted(names.get(command, command) for command in commands) == STAGES


def test_all_names_are_shown():
    """By completion in a notebook, and to `from steelseg import *`, before any of them is used."""
    shown = "import steelseg; print(*sorted(dir(steelseg)))"
    star = "from steelseg import *; print(watch.__module__, predict.__module__)"

    assert in_a_new_process(shown).split() == sorted(steelseg.__all__)
    assert in_a_new_process(star) == "steelseg.api steelseg.api"


def names_of_folders_too():
    """List the public names that are also folders of the package."""
    folders = {path.name for path in Path(steelseg.__file__).parent.iterdir() if path.is_dir()}
    return sorted(folders & {*steelseg.__all__})


def test_a_few_functions_share_their_name_with_a_folder():
    """The next test is about them."""
    assert names_of_folders_too() == ["export", "pseudo", "run", "search", "watch"]


@pytest.mark.parametrize("name", names_of_folders_too())
@pytest.mark.parametrize(
    "before",
    [
        "import steelseg.{name}",
        "from steelseg.{name} import __doc__",
        "from steelseg import {name}; import steelseg.{name}",
        "from importlib import import_module; import_module('steelseg.{name}')",
    ],
)
def test_a_folder_of_the_same_name_does_not_hide_a_function(name, before):
    """Importing `steelseg.run` would make `steelseg.run` the folder otherwise."""
    code = (
        before.format(name=name) + f"; import steelseg; from steelseg import {name}; "
        f"from steelseg.{name} import __name__ as folder; "
        f"print({name} is steelseg.{name}, {name}.__module__, folder)"
    )

    assert in_a_new_process(code) == f"True steelseg.api steelseg.{name}"


def test_a_few_lines_train_and_predict(config, tmp_path):
    """From settings to a mask, without a command line."""
    path = steelseg.train(config, tmp_path / "run", folds=[0])
    mask_chw = steelseg.Predictor(path)(config.data.root / "test_images" / "test_000.jpg")

    assert path == tmp_path / "run"
    assert mask_chw.shape == (2, 32, 96)


def test_run_goes_to_a_folder_of_its_own_by_default(config, tmp_path, monkeypatch):
    """Named by date and time, so that runs are sorted."""
    monkeypatch.chdir(tmp_path)

    path = run(config, folds=[1], overlays=True)

    assert re.fullmatch(r"outputs/\d{8}_\d{6}", str(path))
    assert (path / "submission.csv").exists()
    assert len(list((path / "overlays").iterdir())) == 2
    assert len(list((path / "overlays_oof").iterdir())) == 4
    assert not (path / "fold_0").exists()


def test_a_run_that_was_killed_while_predicting_resumes_there(config, tmp_path, capsys):
    """Only the remaining strips are predicted; the submission is the same as without a stop."""
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


def test_evaluate_returns_what_it_writes(trained_run, tmp_path):
    """As a dictionary, for notebooks."""
    shutil.copytree(trained_run, tmp_path / "run")
    oof(tmp_path / "run", folds=[0])

    metrics = evaluate(tmp_path / "run", ["postprocess.threshold=0.4"])

    written = (tmp_path / "run" / "metrics.json").read_text()
    assert json.loads(json.dumps(metrics)) == json.loads(written)


def test_two_runs_are_compared(trained_run, tmp_path):
    """A run is not better than itself; one without scores cannot be compared."""
    for name in ("a", "b"):
        shutil.copytree(trained_run, tmp_path / name)
        oof(tmp_path / name, folds=[0])
    evaluate(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"b.*steelseg evaluate"):
        compare(tmp_path / "a", tmp_path / "b")
    evaluate(tmp_path / "b")

    found = compare(tmp_path / "a", str(tmp_path / "b"))

    assert (found.strips, found.left_out) == (4, 0)
    assert all(difference.a == difference.b for difference in found.differences[:1])


def test_predict_needs_a_place_for_the_results_of_checkpoints(trained_run, tmp_path):
    """A run folder holds its own predictions; a list of checkpoints has no folder."""
    checkpoint = trained_run / "fold_0" / "best_model.safetensors"
    for source in ([checkpoint], checkpoint, str(checkpoint)):
        with pytest.raises(ConfigError, match="needs --output-dir"):
            predict(source)
    with pytest.raises(ConfigError, match="--fold chooses among the folds of a run"):
        predict([checkpoint], output_dir=tmp_path / "found", folds=[0])

    written = predict([checkpoint], output_dir=str(tmp_path / "found"), formats=["jsonl"])

    assert sorted(file.name for file in written) == ["predictions.jsonl", "submission.csv"]


def test_synth_makes_a_data_set_without_faults(make_config, tmp_path):
    """It is for trying everything else."""
    root = synth(
        str(tmp_path / "input"), num_train=8, num_test=2, height=32, width=96, min_per_class=2
    )

    assert check(make_config(root, "data.num_classes=4")).faults == ()


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
    """It matches the data, so nothing is decoded again."""
    stored = make_config(
        config.data.root, "data.mode=precropped", f"data.precropped_dir={tmp_path / 'store'}"
    )
    run(stored, tmp_path / "run", folds=[0])
    before = (tmp_path / "store" / "index.json").stat().st_mtime_ns

    run(stored, tmp_path / "run", folds=[0], resume=True)

    assert (tmp_path / "store" / "index.json").stat().st_mtime_ns == before
