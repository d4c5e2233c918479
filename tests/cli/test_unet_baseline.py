import csv
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from steelseg.cli.unet_baseline import SETTINGS, SWITCHES, in_baseline_words, load_settings
from steelseg.config.load import load_config
from steelseg.errors import ConfigError
from steelseg.models.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "unet_baseline"

SMALL = """
DATA_ROOT = "input"
MODEL_ARCH = "linknet"
ENCODER = "tu-test_resnet"
ENCODER_WEIGHTS = None
NUM_CLASSES = 2
NUM_FOLDS = 2
NUM_EPOCHS = 2
BATCH_SIZE_TRAIN = BATCH_SIZE_VAL = 2
IMG_HEIGHT, IMG_WIDTH = 64, 128
CROP_HEIGHT, CROP_WIDTH, CROP_STRIDE = 64, 64, 32
MIN_SIZE = 0
NUM_WORKERS = 0
SAVE_BEST_ONLY = False
"""

# A value for each name that is not its default, and what it becomes.
CHANGED = {
    "DATA_ROOT": "strips",
    "MODEL_ARCH": "fpn",
    "ENCODER": "resnet18",
    "ENCODER_WEIGHTS": None,
    "NUM_CLASSES": 3,
    "NUM_FOLDS": 4,
    "NUM_EPOCHS": 7,
    "BATCH_SIZE_TRAIN": 6,
    "BATCH_SIZE_VAL": 5,
    "LEARNING_RATE": 1e-5,
    "OPTIMIZER": "sgd",
    "SCHEDULER": "cosine",
    "LOSS": "dice",
    "PRECROPPED_DIR": "store",
    "IMG_HEIGHT": 512,
    "IMG_WIDTH": None,
    "CROP_HEIGHT": 128,
    "CROP_WIDTH": 384,
    "CROP_STRIDE": 64,
    "THRESHOLD": (0.3, 0.4, 0.5, 0.6),
    "MIN_SIZE": 0,
    "NUM_WORKERS": 1,
    "SAVE_BEST_ONLY": False,
}


def load(tmp_path, text):
    """Read a config.py of this text."""
    path = tmp_path / "config.py"
    path.write_text(text)
    return load_settings(path)


def lines_of(tmp_path, text):
    """Return the lines that refuse a config.py of this text."""
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    return in_baseline_words(str(refused.value)).splitlines()


@pytest.fixture
def place(make_strips, tmp_path, monkeypatch):
    """Return a folder with strips and the scripts, as the current folder."""
    make_strips(tmp_path / "input", height=64, width=128)
    shutil.copytree(SCRIPTS, tmp_path / "unet_baseline")
    set_up(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def set_up(place, text=""):
    """Write the small config.py, followed by `text`."""
    (place / "unet_baseline" / "config.py").write_text(SMALL + text)


@pytest.fixture
def call(place, monkeypatch, capsys):
    """Give a function that runs a Python script as `python SCRIPT WORDS`, without a new process."""

    def run(script, *words):
        path = str(place / "unet_baseline" / script)
        monkeypatch.setattr(sys, "argv", [path, *map(str, words)])
        monkeypatch.syspath_prepend(Path(path).parent)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(path, run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    return run


def bash(place, script, *words, python=sys.executable):
    """Run a shell script from the folder that holds unet_baseline/."""
    return subprocess.run(
        ["bash", f"unet_baseline/{script}", *map(str, words)],
        cwd=place,
        env=os.environ | {"PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )


def outputs(place):
    """Return the one folder that training has made."""
    (folder,) = place.glob("outputs_*")
    return folder


def test_the_defaults_are_the_baselines():
    """configs/baseline.yaml reads crops out of a store; the switches come to the same."""
    recipe = ROOT / "configs" / "baseline.yaml"

    assert load_settings(SCRIPTS / "config.py") == load_config(recipe, ["data.mode=full"])


def test_the_switches_make_the_recommended_mode(tmp_path):
    """Trained on crops out of the store and predicted by crops, as the baseline does."""
    recipe = ROOT / "configs" / "baseline.yaml"

    config = load(tmp_path, "USE_CROPS = USE_PRECROPPED = True")

    assert config == load_config(recipe, ["data.mode=precropped", "inference.crops=true"])


def test_config_py_names_every_setting_with_its_default(tmp_path):
    """The file in unet_baseline/ shows the defaults."""
    names = runpy.run_path(str(SCRIPTS / "config.py"))

    assert {name for name in names if name.isupper()} == {*SETTINGS, *SWITCHES}
    assert load(tmp_path, "") == load_settings(SCRIPTS / "config.py")


def test_every_changed_name_has_a_test():
    """A new name needs a line in CHANGED."""
    assert CHANGED.keys() == SETTINGS.keys()


@pytest.mark.parametrize("word", SETTINGS)
def test_each_name_is_its_setting(tmp_path, word):
    """And changes no other."""
    setting, _ = SETTINGS[word]
    section, _, name = setting.partition(".")
    before = load(tmp_path, "").model_dump(mode="json")

    after = load(tmp_path, f"{word} = {CHANGED[word]!r}").model_dump(mode="json")

    value = list(CHANGED[word]) if isinstance(CHANGED[word], tuple) else CHANGED[word]
    assert after[section][name] == value != before[section][name]
    after[section][name] = before[section][name]
    assert after == before


@pytest.mark.parametrize(
    ("text", "mode", "crops", "tta"),
    [
        ("", "full", False, "none"),
        ("USE_CROPS = True", "crops", True, "none"),
        ("USE_CROPS = USE_PRECROPPED = True", "precropped", True, "none"),
        ("TTA = True", "full", False, "hflip"),
        ("TTA_HORIZONTAL_FLIP = False", "full", False, "none"),
    ],
)
def test_switches_choose_mode_and_flips(tmp_path, text, mode, crops, tta):
    """Four switches of the baseline are three settings, none of which can contradict another."""
    config = load(tmp_path, text)

    assert (config.data.mode, config.inference.crops, config.inference.tta) == (mode, crops, tta)


def test_names_of_ones_own_begin_with_an_underscore(tmp_path):
    """config.py is Python: values may be computed."""
    text = 'from pathlib import Path\n_HOME = Path("data")\nDATA_ROOT = _HOME / "strips"'

    assert load(tmp_path, text).data.root == Path("data/strips")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("NUM_EPOCH = 3", "  NUM_EPOCH: no such setting; did you mean NUM_EPOCHS?"),
        ("ZZ = 3", "  ZZ: no such setting; a name of your own is _ZZ."),
        ("NUM_EPOCHS = 0", "  NUM_EPOCHS: Input should be greater than or equal to 1, got 0"),
        ("TTA = 'no'", "  TTA: expected True or False, got 'no'"),
        (
            "USE_PRECROPPED = True",
            "  USE_PRECROPPED=True needs USE_CROPS=True, because the store serves crops; for "
            "whole strips set USE_PRECROPPED=False.",
        ),
        (
            "TTA, TTA_HORIZONTAL_FLIP = True, False",
            "  TTA=True with TTA_HORIZONTAL_FLIP=False leaves no flip to average; set TTA=False, "
            "or TTA_HORIZONTAL_FLIP=True.",
        ),
        (
            "USE_CROPS, IMG_WIDTH = True, 200",
            "  data: CROP_WIDTH=512 is larger than IMG_WIDTH=200; use at most 200, or "
            "USE_CROPS=False.",
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_its_own_name(tmp_path, text, line):
    """The user knows the names of config.py, not ours."""
    assert lines_of(tmp_path, text) == [f"Wrong settings in {tmp_path / 'config.py'}:", line]


def test_all_wrong_names_come_at_once(tmp_path):
    """Not one a try."""
    assert len(lines_of(tmp_path, "EPOCHS = 1\nTTA = 2\nCROPS = 3")) == 4


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\nENCODER_WEIGHTS = none", ":2 cannot be run: NameError: name 'none' is not defined"),
        ("NUM_EPOCHS = ", " cannot be run: SyntaxError: invalid syntax (config.py, line 1)."),
    ],
)
def test_a_config_that_cannot_run_is_named_with_its_line(tmp_path, text, line):
    """It is the user's file, so no traceback through ours."""
    assert lines_of(tmp_path, text)[0].startswith(f"{tmp_path / 'config.py'}{line}")


def test_messages_of_the_stages_speak_the_baselines_words():
    """Paths and other words stay as they are."""
    said = in_baseline_words(
        "model.encoder_weights=none; train.learning_rate, not /x/min_size; the loss is nan; "
        "Create it with: steelseg precrop CONFIG."
    )

    assert said == (
        "ENCODER_WEIGHTS=None; LEARNING_RATE, not /x/min_size; the loss is nan; "
        "Create it with: bash precrop_setup.sh."
    )


def test_help_imports_nothing_heavy():
    """Wrong usage is said at once, not after torch has come up."""
    code = (
        "import sys, steelseg.cli.unet_baseline; "
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("script", "words", "line"),
    [
        ("train.py", [], "one of the arguments --fold --all_folds is required"),
        ("train.py", ["--fold", 0, "--all_folds"], "not allowed with argument --fold"),
        ("train.py", ["--all_folds", "--checkpoint", "a"], "name it with --fold K"),
        ("inference.py", ["--checkpoints", "a"], "arguments are required: --output_dir"),
        ("precrop_images.py", ["now"], "unrecognized arguments: now"),
        ("test_setup.py", ["now"], "unrecognized arguments: now"),
    ],
)
def test_wrong_usage_exits_with_2(call, script, words, line):
    """And says how the script is used."""
    code, _, err = call(script, *words)

    assert code == 2
    assert err.startswith(f"usage: {script}")
    assert line in err


@pytest.mark.parametrize(
    ("script", "words", "passed"),
    [
        ("train_single_fold.sh", ["1"], "train.py --fold 1"),
        ("train_all_folds.sh", [], "train.py --all_folds"),
        ("precrop_setup.sh", [], "precrop_images.py"),
        ("inference.sh", ["o", "a b", "c"], "inference.py --output_dir o --checkpoints a b c"),
    ],
)
def test_shell_scripts_call_python_from_any_folder(place, script, words, passed):
    """They add nothing to what the Python script is told."""
    ended = bash(place, script, *words, python="echo")

    assert (ended.returncode, ended.stdout) == (0, f"unet_baseline/{passed}\n")


@pytest.mark.parametrize(
    ("script", "words"), [("train_single_fold.sh", []), ("inference.sh", ["only_the_folder"])]
)
def test_a_shell_script_says_what_it_needs(place, script, words):
    """Before Python starts."""
    ended = bash(place, script, *words, python="false")

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"usage: {script} ")


def test_the_baselines_way_from_folds_to_a_submission(place, call):
    """With the names that a baseline user types; training runs in a process of its own."""
    set_up(place, "USE_CROPS = USE_PRECROPPED = True")

    made = call("precrop_images.py")
    trained = bash(place, "train_all_folds.sh")
    folder = outputs(place)
    names = [f"{folder.name}/fold_{fold}/best_model.pth" for fold in (0, 1)]
    found = call("inference.py", "--checkpoints", *names, "--output_dir", folder.name)

    assert made == (0, "precropped_data holds every training strip\n", "")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.endswith(f"done: {folder.name}\n")
    assert found[:2] == (0, f"wrote {folder.name}/submission.csv\n")
    *told, counted = found[2].splitlines()
    assert counted == "2 of 2 images have a defect (class 1: 2, class 2: 2)"
    assert [line.split("; taking ")[0] for line in told] == [
        f"there is no {name}" for name in names
    ]
    with (folder / "submission.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 2 * 2
    assert call("test_precropped.py") == (
        0,
        "ok store: 24 crops of 8 strips out of precropped_data are those cut from the files\n",
        "",
    )


def test_a_trained_fold_is_predicted_and_kept(place, call):
    """The files that users of the baseline expect, next to ours."""
    code, out, _ = call("train.py", "--fold", 0)

    folder = outputs(place)
    assert code == 0
    assert out.endswith(f"done: {folder.name}\n")
    assert (folder / "training_log.txt").exists()
    assert {path.name for path in (folder / "fold_0").iterdir()} == {
        "best_model.safetensors",
        "checkpoint_epoch_1.safetensors",
        "checkpoint_epoch_2.safetensors",
        "history.csv",
        "last",
        "oof_predictions.npy",
        "oof_predictions.zarr",
    }
    oof = np.load(folder / "fold_0" / "oof_predictions.npy")
    assert (oof.shape, oof.dtype) == ((4, 2, 64, 128), np.float32)
    assert 0 <= oof.min() < oof.max() <= 1


def test_training_resumes_from_a_checkpoint(place, call):
    """In the same folder, to the same bits; the name may end in .pth."""
    assert call("train.py", "--fold", 1)[0] == 0
    fold = outputs(place) / "fold_1"
    last, named = (fold / "last" / "epoch_0002.safetensors"), fold / "checkpoint_epoch_1.pth"
    whole = load_checkpoint(last)
    last.unlink()

    code, out, err = call("train.py", "--fold", 1, "--checkpoint", named.relative_to(place))

    assert code == 0, err
    assert f"taking {named.relative_to(place).with_suffix('.safetensors')}" in err
    assert "1 epochs done" in out
    again = load_checkpoint(last)
    assert outputs(place) == fold.parent
    assert all((again.model[name] == tensor).all() for name, tensor in whole.model.items())
    assert not (fold.parent / "fold_0").exists()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("train.py", ["--fold", "0", "--checkpoint", "no.pth"]),
        ("inference.py", ["--checkpoints", "no.pth", "--output_dir", "found"]),
    ],
)
def test_a_missing_checkpoint_is_one_line(place, call, script, words):
    """And no folder is left behind."""
    before = sorted(place.iterdir())

    assert call(script, *words) == (1, "", "error: no.pth: there is no such checkpoint.\n")
    assert sorted(place.iterdir()) == before


def test_a_run_is_not_mixed_with_other_settings(place, trained_run, call):
    """The message tells of config.py and of the script's own option."""
    checkpoint = trained_run / "fold_0" / "last" / "epoch_0001.safetensors"

    code, _, err = call("train.py", "--fold", 0, "--checkpoint", checkpoint)

    assert code == 1
    assert err.endswith("Put config.py back as it was, or leave out --checkpoint.\n")


def test_prediction_takes_what_config_py_says(place, trained_run, call):
    """Data, post-processing and flips are of config.py; the network is of the checkpoint."""
    checkpoint = trained_run / "fold_0" / "best_model.safetensors"
    words = ["--checkpoints", checkpoint, "--output_dir"]
    submissions = {}
    for threshold in (0.0, 1.0):
        set_up(place, f"THRESHOLD = {threshold}\nTTA = True")
        assert call("inference.py", *words, place / str(threshold))[0] == 0
        with (place / str(threshold) / "submission.csv").open(newline="") as file:
            submissions[threshold] = [row["EncodedPixels"] for row in csv.DictReader(file)]

    assert submissions[0.0] == [f"1 {64 * 128}"] * 4
    assert submissions[1.0] == [""] * 4


def test_precrop_says_how_to_use_the_store(place, call):
    """Making it changes no setting."""
    code, out, _ = call("precrop_images.py")

    assert code == 0
    assert out.splitlines() == [
        "precropped_data holds every training strip",
        "to train from it, set USE_CROPS = True and USE_PRECROPPED = True in config.py",
    ]


@pytest.mark.parametrize("switches", ["", "USE_CROPS = True"])
def test_setup_says_a_line_for_each_part(place, call, switches):
    """Data, model, data loading and losses."""
    set_up(place, switches)

    code, out, _ = call("test_setup.py")

    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "ok data",
        "ok model",
        "ok dataset",
        "ok losses",
    ]


def test_setup_continues_after_an_error(place, call):
    """Every check runs, and the exit code reports any failure."""
    set_up(place, 'DATA_ROOT = "nowhere"\nENCODER = "resnet_18"')

    code, out, err = call("test_setup.py")

    assert code == 1
    assert [line.split(":")[0] for line in out.splitlines()] == ["ok losses"]
    assert "error: data: " in err
    assert "error: model: ENCODER=resnet_18" in err
    assert "error: dataset: nowhere/train_images is not a folder." in err


def test_crops_come_back_as_strips(place, call):
    """Three crops a strip of 128 columns."""
    assert call("test_crops.py") == (
        0,
        "ok crops: 24 crops of 8 strips and their masks, stitched, are the strips\n",
        "",
    )


def test_a_missing_store_names_the_command_that_makes_it(place, call):
    """As it is called in this folder."""
    remedy = "Create it with: bash precrop_setup.sh."
    line = f"There is no precropped store in precropped_data. {remedy}\n"
    set_up(place, "USE_CROPS = USE_PRECROPPED = True")

    assert call("test_precropped.py") == (1, "", f"error: store: {line}")
    assert call("train.py", "--fold", 0) == (1, "", f"error: {line}")
    assert list(place.glob("outputs_*")) == []


def test_a_store_with_other_pixels_is_found(place, call):
    """The index does not detect a changed byte."""
    call("precrop_images.py")
    store = place / "precropped_data" / "strips.bin"
    store.write_bytes(bytes([store.read_bytes()[0] ^ 255]) + store.read_bytes()[1:])

    code, out, err = call("test_precropped.py")

    assert (code, out) == (1, "")
    assert "error: store: precropped_data holds other pixels than train_000.jpg." in err


def test_ctrl_c_says_how_to_resume(place, call):
    """By the option that train.py has; here it comes while config.py runs."""
    set_up(place, "raise KeyboardInterrupt")

    code, _, err = call("train.py", "--fold", 0)

    assert code == 130
    assert err == "interrupted; continue the run with --checkpoint FILE\n"
