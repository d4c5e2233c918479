import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import steelseg
from steelseg.cli.main import guard, main
from steelseg.data.formats.mask_csv import SEPARATE

HEAVY = ("torch", "numpy", "pydantic", "cv2", "timm", "zarr", "optuna")
# Modules of the standard library that argparse does not need: they would double the time of --help.
SLOW = ("dataclasses", "inspect", "pathlib", "typing", "importlib.metadata")


@pytest.fixture
def root(make_strips, tmp_path):
    """Give eight training strips and two test strips."""
    make_strips(tmp_path / "input")
    return tmp_path / "input"


@pytest.fixture
def settings(make_config, root, tmp_path):
    """Give a settings file for the strips."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(make_config(root).model_dump(mode="json")))
    return str(path)


def call(*words, capsys):
    """Run a command; return its exit code, stdout and stderr."""
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def read_rows(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return tuple(header), rows


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"]])
def test_help_imports_nothing_heavy(words):
    """It stays fast: commands import what they need when they run."""
    code = (
        "import argparse, sys\n"
        "argparse.ArgumentParser().format_help()\n"
        "needed = set(sys.modules)\n"
        "from steelseg.cli.main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        f"    heavy = ({{*sys.modules}} - needed) & {{*{HEAVY + SLOW}}}\n"
        "    sys.exit(str(heavy) if heavy or end.code else 0)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )

    assert ended.stderr == ""
    assert ended.returncode == 0
    assert "steelseg" in ended.stdout


def test_the_version_is_that_of_the_package(capsys):
    """Bug reports start with it."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"steelseg {steelseg.__version__}\n"


def test_the_package_runs_as_a_module():
    """`python -m steelseg` is the command, with its name, output and exit code."""
    command = [sys.executable, "-m", "steelseg"]
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    wrong = subprocess.run([*command, "nothing"], capture_output=True, text=True, check=False)

    assert version.stdout == f"steelseg {steelseg.__version__}\n"
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("usage: steelseg ")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fly"],
        ["check"],
        ["check", "a.yaml", "--frobnicate"],
        ["train", "a.yaml", "--fold", "first"],
        ["predict", "run", "--format", "gif"],
        ["check", "a.yaml", "epochs=3"],
    ],
)
def test_wrong_usage_exits_with_2(words, capsys):
    """The usage is printed."""
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    assert "usage: steelseg" in capsys.readouterr().err


def test_a_command_without_settings_takes_none(tmp_path, capsys):
    """A setting that nothing reads is a mistake of the user."""
    code, _, err = call("synth", tmp_path / "new", "train.epochs=3", capsys=capsys)

    assert code == 2
    assert err == "error: steelseg synth takes no settings: train.epochs=3\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["check", "no.yaml"], "no.yaml cannot be read: No such file or directory."),
        (["oof", "no_run"], "no_run is not a run folder: it has no config.yaml."),
        (["predict"], "Give either a run folder or --checkpoints."),
        (["predict", "a", "--checkpoints", "b"], "Give either a run folder or --checkpoints."),
        (["predict", "--checkpoints", "b"], "--checkpoints needs --output-dir DIR."),
        (
            ["predict", "--checkpoints", "b", "--output-dir", "c"],
            "b: there is no such checkpoint.",
        ),
        (
            ["train", "a.yaml", "--checkpoint", "b"],
            "--checkpoint resumes a single fold: name it with --fold K.",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exits_with_1(words, line, tmp_path, monkeypatch, capsys):
    """A user error shows no traceback."""
    monkeypatch.chdir(tmp_path)

    assert call(*words, capsys=capsys) == (1, "", f"error: {line}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_a_disk_refuses_is_one_line(number, tmp_path, capsys):
    """It names the file and the reason; any other system error keeps its traceback."""

    def fail():
        raise OSError(number, os.strerror(number), str(tmp_path / "a"))

    assert guard(fail) == 1
    line = f"error: {tmp_path / 'a'}: {os.strerror(number)}."
    if number == errno.ENOSPC:
        line += " Free some space and run the command again; continue training with --resume."
    assert capsys.readouterr().err == line + "\n"


def test_a_lack_of_memory_says_what_to_lower(capsys):
    """From torch on a processor, from numpy, and from the system."""
    import mmap

    import numpy as np
    import torch

    for allocate in (
        lambda: torch.empty(2**60),
        lambda: np.empty(2**50),
        lambda: mmap.mmap(-1, 2**60),
    ):
        assert guard(allocate) == 1
        line = capsys.readouterr().err
        assert line.startswith("error: There is not enough memory. To train, lower train.")
        assert line.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Failed to allocate memory for requested buffer of size 1073741824",
        "std::bad_alloc",
    ],
)
def test_a_lack_of_memory_that_a_library_reports_says_so_too(capsys, words):
    """Torch, its GPU libraries and the exported networks each report it differently."""

    def fail():
        raise RuntimeError(words)

    assert guard(fail) == 1
    assert "inference.ensemble=sequential" in capsys.readouterr().err


def test_a_bug_of_ours_keeps_its_traceback():
    """A RuntimeError about anything else is not the user's."""

    def fail():
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        guard(fail)


def test_a_run_folder_in_a_file_is_refused(settings, tmp_path, capsys):
    """The user chooses another --out."""
    (tmp_path / "file").write_text("")

    code, _, err = call("train", settings, "--out", tmp_path / "file" / "run", capsys=capsys)

    assert code == 1
    assert err.splitlines()[-1] == f"error: {tmp_path / 'file' / 'run'}: Not a directory."


def test_an_unknown_setting_is_refused_with_the_nearest_name(settings, capsys):
    """All mistakes are reported at once, one per line."""
    code, out, err = call("check", settings, "data.crop_widht=3", "train.epochs=0", capsys=capsys)

    assert (code, out) == (1, "")
    assert err.splitlines()[0] == "error: Wrong settings on the command line:"
    assert "  data.crop_widht: no such setting; did you mean data.crop_width?" in err
    assert "  train.epochs: Input should be greater than or equal to 1, got 0" in err


def test_check_counts_images_and_masks(settings, capsys):
    """Eight strips, every fourth of them clean."""
    code, out, err = call("check", settings, capsys=capsys)

    assert (code, err) == (0, "")
    assert out == (
        "ok: 8 training images, 2 of them clean; masks of class 1 to 2: 4, 6; 2 test images\n"
    )


def test_check_remarks_on_near_duplicates(settings, root, capsys):
    """They are not a fault: real data sets have some, and training keeps them in one fold."""
    folder = root / "train_images"
    shutil.copy(folder / "train_001.jpg", folder / "copy.jpg")

    code, out, err = call("check", settings, capsys=capsys)

    assert (code, err) == (0, "")
    remark, ok = out.splitlines()
    assert remark.startswith(
        "remark: copy.jpg and train_001.jpg look alike, but class 1 differs: 0"
    )
    assert ok.endswith("; 2 look alike, in 1 group")
    assert call("check", settings, "data.group_duplicates=false", capsys=capsys)[1].count("\n") == 1


def test_check_lists_every_fault_and_writes_nothing(settings, root, capsys):
    """As file:row: reason, on stdout, so that it can be piped."""
    with (root / "train.csv").open("a") as file:
        file.write("train_000.jpg,1,5 0\ntrain_000.jpg,9,1 1\nno.jpg,1,1 1\n")
    (root / "train_images" / "train_007.jpg").write_bytes(b"")
    before = sorted(root.rglob("*"))

    code, out, err = call("check", settings, capsys=capsys)

    rows = len((root / "train.csv").read_text().splitlines())
    assert code == 1
    assert {line.split(": ")[0] for line in out.splitlines()} >= {
        f"{root / 'train.csv'}:{rows - 2}",
        f"{root / 'train.csv'}:{rows - 1}",
        f"{root / 'train.csv'}:{rows}",
        f"{root / 'train_images' / 'train_007.jpg'}",
    }
    assert err == f"error: {len(out.splitlines())} faults\n"
    assert sorted(root.rglob("*")) == before


def test_check_keeps_a_manifest_of_a_good_set(settings, root, tmp_path, capsys):
    """It is written the first time and compared later; none is written for a set with a fault."""
    words = ["check", settings, "--hash", tmp_path / "m"]
    whole = (root / "train_images" / "train_007.jpg").read_bytes()
    (root / "train_images" / "train_007.jpg").write_bytes(b"")
    assert call(*words, capsys=capsys)[0] == 1
    assert not (tmp_path / "m").exists()
    (root / "train_images" / "train_007.jpg").write_bytes(whole)

    assert call(*words, capsys=capsys)[1].startswith(f"wrote {tmp_path / 'm'}\nok: 8 training")
    assert call(*words, capsys=capsys)[1].startswith("ok: every file matches ")
    (root / "test_images" / "test_001.jpg").write_bytes(whole)
    code, out, err = call(*words, capsys=capsys)

    assert (code, err) == (1, "error: 1 faults\n")
    assert out.startswith(f"{root / 'test_images' / 'test_001.jpg'}: the file has changed: its ")


def test_settings_can_be_anywhere_on_the_command_line(settings, root, tmp_path, capsys):
    """Before the file, and after an option that takes several words."""
    (tmp_path / "moved").mkdir()
    root.rename(tmp_path / "moved" / "input")
    words = ["train.loss=dice", settings, "--fold", "1", f"data.root={tmp_path / 'moved/input'}"]

    code, *_ = call("train", *words, "--out", tmp_path / "run", capsys=capsys)

    assert code == 0
    config = steelseg.load_config(tmp_path / "run" / "config.yaml")
    assert config.train.loss == "dice"
    assert not (tmp_path / "run" / "fold_0").exists()
    assert (tmp_path / "run" / "fold_1" / "best_model.safetensors").exists()


@pytest.mark.parametrize("mode", ["full", "crops", "precropped"])
def test_run_goes_from_labels_to_a_submission(settings, tmp_path, capsys, mode):
    """In every mode: a row for each test image and class, with the sample's header."""
    code, out, _ = call(
        "run",
        settings,
        f"data.mode={mode}",
        f"data.precropped_dir={tmp_path / 'store'}",
        "--out",
        tmp_path / "run",
        capsys=capsys,
    )

    header, rows = read_rows(tmp_path / "run" / "submission.csv")
    assert code == 0
    assert header == SEPARATE
    assert [row[:2] for row in rows] == [
        [f"test_{n:03d}.jpg", class_id] for n in (0, 1) for class_id in ("1", "2")
    ]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["oof"]["pairs"] == 16
    assert (tmp_path / "store" / "index.json").exists() == (mode == "precropped")
    assert out.splitlines()[-1] == f"done: {tmp_path / 'run'}"
    commands = [line.split()[2] for line in out.splitlines() if line.startswith("$ steelseg")]
    precrop = ["precrop"] if mode == "precropped" else []
    assert commands == ["check", *precrop, "train", "oof", "tune", "evaluate", "predict", "report"]


def test_the_stages_alone_write_what_run_writes(settings, tmp_path, capsys):
    """They exchange files in the run folder, so each can be rerun alone."""
    call("run", settings, "--fold", 0, "--out", tmp_path / "whole", capsys=capsys)

    run = tmp_path / "staged"
    codes = [
        call(*words, capsys=capsys)[0]
        for words in (
            ["train", settings, "--fold", 0, "--out", run],
            ["train", run, "--fold", 0, "--resume"],
            ["oof", run, "--fold", 0],
            ["tune", run],
            ["evaluate", run],
            ["predict", run, "--fold", 0],
            ["report", run],
        )
    ]

    assert codes == [0] * 7
    for name in ("submission.csv", "postprocess.json", "metrics.json", "folds.csv"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_run_resumes_and_does_not_overwrite(settings, tmp_path, capsys):
    """A second run into the folder is refused unless it is meant."""
    words = ["run", settings, "--fold", 0, "--out", tmp_path / "run"]
    call(*words, capsys=capsys)
    before = (tmp_path / "run" / "submission.csv").read_bytes()

    code, _, err = call(*words, capsys=capsys)
    assert code == 1
    assert "already contains a fold. Use --resume, or another --out." in err
    assert call(*words, "--resume", capsys=capsys)[0] == 0
    assert (tmp_path / "run" / "submission.csv").read_bytes() == before


def test_a_run_without_test_images_says_how_to_predict(settings, root, tmp_path, capsys):
    """Many data sets have none."""
    shutil.rmtree(root / "test_images")
    (root / "sample_submission.csv").unlink()

    code, out, _ = call("run", settings, "--fold", 0, "--out", tmp_path / "run", capsys=capsys)

    assert code == 0
    assert f"steelseg predict {tmp_path / 'run'} --images FOLDER" in out


def test_checkpoints_predict_what_their_run_predicts(trained_run, tmp_path, capsys):
    """Whatever folder the files were copied to."""
    names = {f"{k}.st": trained_run / f"fold_{k}" / "best_model.safetensors" for k in (0, 1)}
    files = [shutil.copy(source, tmp_path / name) for name, source in names.items()]

    first = call("predict", trained_run, "--output-dir", tmp_path / "a", capsys=capsys)
    words = ["predict", "--checkpoints", *files, "--output-dir", tmp_path / "b"]
    second = call(*words, capsys=capsys)

    found = "2 of 2 images have a defect (class 1: 2, class 2: 2)\n"
    assert first[:2] == (0, f"wrote {tmp_path / 'a' / 'submission.csv'}\n")
    assert f"warning: {trained_run} is not tuned, so masks use threshold 0.5" in first[2]
    assert first[2].endswith(found)
    assert second == (0, f"wrote {tmp_path / 'b' / 'submission.csv'}\n", found)
    submissions = [(tmp_path / x / "submission.csv").read_bytes() for x in ("a", "b")]
    assert submissions[0] == submissions[1]


def test_predict_writes_what_is_asked_for(trained_run, tmp_path, capsys):
    """A folder of images, other formats and pictures, in one call."""
    images = trained_run.parent / "input" / "train_images"
    words = ["--images", images, "--format", "coco", "--format", "png", "--overlays"]

    code, out, _ = call(
        "predict", trained_run, *words, "--output-dir", tmp_path / "found", capsys=capsys
    )

    assert code == 0
    assert out.splitlines() == [
        f"wrote {tmp_path / 'found' / name}"
        for name in ("submission.csv", "predictions.json", "masks", "overlays")
    ]
    assert len(read_rows(tmp_path / "found" / "submission.csv")[1]) == 16


def test_precrop_says_where_the_store_is(settings, tmp_path, capsys):
    """It is a setting, not a flag."""
    code, out, _ = call(
        "precrop", settings, f"data.precropped_dir={tmp_path / 'store'}", capsys=capsys
    )

    assert (code, out) == (0, f"{tmp_path / 'store'} holds every training strip\n")
    assert (tmp_path / "store" / "strips.bin").stat().st_size == 8 * 32 * 96


def test_synth_makes_a_data_set_that_passes_check(tmp_path, settings, capsys):
    """The generated strips pass the same checks as real ones."""
    words = ["--num-train", 16, "--num-test", 1, "--height", 64, "--width", 160]

    assert call("synth", tmp_path / "demo", *words, capsys=capsys)[0] == 0
    size = ["data.img_height=64", "data.img_width=160", "data.num_classes=4"]
    code, out, _ = call("check", settings, f"data.root={tmp_path / 'demo'}", *size, capsys=capsys)

    assert code == 0
    assert out.startswith("ok: 16 training images")


def test_the_program_is_installed(tmp_path):
    """As `steelseg`, next to Python; its exit code is that of the command."""
    program = shutil.which("steelseg", path=str(Path(sys.executable).parent))
    assert program

    ended = subprocess.run(
        [program, "synth", tmp_path / "new", "--width", "1"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert re.fullmatch(r"error: width=1 is too small .*\n", ended.stderr)


def test_folds_are_of_a_run_and_not_of_checkpoints(capsys):
    """An option without effect is refused, because it would mislead."""
    words = ["predict", "--checkpoints", "a.safetensors", "--fold", "0", "--output-dir", "found"]

    assert main(words) == 1
    assert "--fold chooses among the folds of a run" in capsys.readouterr().err


def test_a_bundle_predicts_what_its_run_predicts(trained_run, tmp_path, capsys):
    """From any folder, given the images."""
    root = trained_run.parent / "input"
    strips, threshold = root / "test_images", "postprocess.threshold=0.45"
    folder = tmp_path / "bundle"
    code, out, _ = call("bundle", trained_run, threshold, "--out", folder, capsys=capsys)
    assert (code, out) == (0, f"wrote {folder}\n")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    for words in (
        (folder, "--images", strips, "--output-dir", tmp_path / "a"),
        (folder, f"data.root={root}", "--output-dir", tmp_path / "b"),
        (trained_run, threshold, "--output-dir", tmp_path / "c"),
    ):
        assert call("predict", *words, capsys=capsys)[0] == 0
    written = [read_rows(tmp_path / name / "submission.csv")[1] for name in "abc"]
    assert any(rle for *_, rle in written[0])
    assert written[1] == written[2]
    assert sorted(rle for *_, rle in written[0]) == sorted(rle for *_, rle in written[1])
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_predicting_a_bundle_needs_is_one_line(trained_run, tmp_path, capsys):
    """It holds no images and takes no results; damage is reported in one line."""
    folder = tmp_path / "bundle"
    call("bundle", trained_run, "--out", folder, capsys=capsys)
    elsewhere = ("--output-dir", tmp_path / "out")

    code, _, err = call("predict", folder, *elsewhere, capsys=capsys)
    assert (code, err) == (
        1,
        "error: A bundle has no images. Give --images DIR, or data.root=DIR.\n",
    )
    for words in ((), ("--output-dir", folder / "found")):
        code, _, err = call("predict", folder, *words, capsys=capsys)
        assert code == 1
        assert "is a bundle, which must not be changed" in err
    (folder / "models" / "fold_0.safetensors").write_bytes(b"x")
    code, _, err = call("predict", folder, *elsewhere, capsys=capsys)
    assert code == 1
    assert re.fullmatch(r"error: .*fold_0.safetensors is damaged: it has 1 bytes.*\n", err)
    assert not (tmp_path / "out").exists()
