import json
import shutil

import cv2
import numpy as np
import pytest

from steelseg.api import export
from steelseg.cli.main import main
from steelseg.data.folds import read_folds
from steelseg.errors import CheckpointError, ConfigError, ExportError
from steelseg.export.exported import read_export
from steelseg.inference.load_exported import load_exported
from steelseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from steelseg.training.train import train_run

pytestmark = pytest.mark.export

# Of a network that learned nothing, on eight tiny strips.
ANYTHING = ("dice", "speed")


@pytest.fixture(scope="module")
def trained(make_strips, make_config, tmp_path_factory):
    """Give a run of two folds whose network is the quickest to export, beside its strips."""
    folder = tmp_path_factory.mktemp("trained")
    make_strips(folder / "input")
    train_run(make_config(folder / "input", "model.encoder=tu-test_resnet"), folder / "run")
    return folder


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Give the run with two exports; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("exported") / "own"
    shutil.copytree(trained, folder)
    run = folder / "run"
    export(run, [own(run)], format="onnx")
    export(run, [own(run)], format="openvino", int8=True, folds=[0], allow=ANYTHING)
    return run


@pytest.fixture
def run(exported, tmp_path):
    """Give that run and its strips to a test that changes them."""
    shutil.copytree(exported.parent, tmp_path / "own")
    return tmp_path / "own" / "run"


def own(run):
    """The setting that names the strips beside a run."""
    return f"data.root={run.parent / 'input'}"


def contents(folder):
    """Every network file below a folder, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("fold_*")
        if path.is_file()
    }


@pytest.mark.parametrize(("name", "folds"), [("onnx-fp32", [0, 1]), ("openvino-int8", [0])])
def test_an_export_holds_its_folds_and_how_they_were_checked(name, folds, exported):
    """Whoever runs it elsewhere can see what it came from and how far it is from that."""
    read = read_export(exported / "export" / name)

    assert [fold.fold for fold in read.record.folds] == folds
    for fold in read.record.folds:
        checkpoint = load_checkpoint(exported / f"fold_{fold.fold}" / "best_model.safetensors")
        assert fold.checkpoint_sha256 == checkpoint.sha256
        assert (fold.multiple, fold.height, fold.width) == (32, None, None)
        assert fold.strips == 4
        assert fold.figures["original"].difference == 0
        assert 0 < fold.figures["fp32"].difference <= 1e-4
        assert fold.figures["fp32"].dice == fold.figures["original"].dice
        assert ("int8" in fold.figures) is (read.record.precision == "int8")
        load_exported(read.path(fold), multiple=fold.multiple, amp=False)


def test_the_order_of_exports_changes_no_byte(exported, run):
    """Here int8 comes first, and fold 1 before fold 0; there fp32 and all folds at once."""
    shutil.rmtree(run / "export")

    export(run, [own(run)], format="onnx", int8=True, folds=[0], allow=ANYTHING)
    for fold in (1, 0):
        export(run, [own(run)], format="onnx", folds=[fold])

    assert contents(run / "export" / "onnx-fp32") == contents(exported / "export" / "onnx-fp32")
    assert read_export(run / "export" / "onnx-int8").record.folds[0].calibration


def test_calibration_never_sees_a_strip_that_the_fold_held_out(exported, run):
    """Or int8 would be judged on what it was fitted to: other held-out pixels, same network."""
    fold_of = read_folds(run / "folds.csv", image_ids=read_ids(run), num_folds=2)
    held_out = {image_id for image_id, fold in fold_of.items() if fold == 0}
    seen = set(read_export(exported / "export" / "openvino-int8").record.folds[0].calibration)
    before = contents(exported / "export" / "openvino-int8")

    def export_anew():
        export(run, [own(run)], format="openvino", int8=True, folds=[0], allow=ANYTHING)
        return contents(run / "export" / "openvino-int8")

    assert seen == fold_of.keys() - held_out
    blacken(run, held_out)
    assert export_anew() == before
    blacken(run, seen)
    assert export_anew() != before


def read_ids(run):
    """image_ids of the strips beside a run."""
    return [path.name for path in (run.parent / "input" / "train_images").iterdir()]


def blacken(run, image_ids):
    """Take the pixels of strips away."""
    for image_id in image_ids:
        path = run.parent / "input" / "train_images" / image_id
        assert cv2.imwrite(str(path), np.zeros((32, 96, 3), np.uint8))


def test_a_failed_check_keeps_nothing_and_says_which(run):
    """The export of before stays, too; a waived check is in the record."""
    best = run / "fold_0" / "best_model.safetensors"
    checkpoint = load_checkpoint(best)
    # Sums of such weights overflow: no runtime gives a number, so none can be shown to agree.
    huge = {k: v * 1e12 if "encoder" not in k else v for k, v in checkpoint.model.items()}
    save_checkpoint(best, Checkpoint(huge, {}, checkpoint.state))
    before = contents(run / "export")

    refusal = (
        r"\Afold 0, onnx fp32: probabilities differ by up to 1 from the original's, "
        r"0\.0001 is allowed\. "
        r"Nothing was kept; --allow difference waives it\.\Z"
    )
    with pytest.raises(ExportError, match=refusal):
        export(run, [own(run)], format="onnx", folds=[0])

    assert contents(run / "export") == before
    assert sorted(path.name for path in (run / "export").iterdir()) == [
        "onnx-fp32",
        "openvino-int8",
    ]
    read = export(run, [own(run)], format="onnx", folds=[0], allow=["difference"])
    assert [fold.waived for fold in read.record.folds] == [("difference",), ()]


@pytest.mark.parametrize("name", ["fold_0.onnx", "export.json"])
@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_missing_or_damaged_file_is_refused(name, fault, exported, tmp_path):
    """In one line with the command that makes the export again."""
    folder = tmp_path / "run" / "export" / "onnx-fp32"
    shutil.copytree(exported / "export" / "onnx-fp32", folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 128
    if fault == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)

    command = r"steelseg export \S*run --format onnx\."
    with pytest.raises(CheckpointError, match=rf"\A[^\n]*{name}[^\n]*{command}\Z"):
        read_export(folder)


def test_an_export_that_names_files_elsewhere_is_refused(run):
    """Its names are written into paths."""
    path = run / "export" / "onnx-fp32" / "export.json"
    record = json.loads(path.read_text())
    record["folds"][0]["files"] = {"../../secret": "0" * 64}
    path.write_text(json.dumps(record))

    with pytest.raises(CheckpointError, match=r"export.json is damaged: folds.0.files"):
        read_export(path.parent)


def test_an_export_of_another_checkpoint_is_refused(run):
    """The fold was trained on; predictions of the run and of its export would differ."""
    best = run / "fold_1" / "best_model.safetensors"
    shutil.copyfile(run / "fold_0" / "best_model.safetensors", best)

    with pytest.raises(CheckpointError, match=r"onnx-fp32 was made from another .*fold_1.*Export"):
        read_export(run / "export" / "onnx-fp32")


@pytest.mark.parametrize("setting", ["data.img_width=null", "inference.crops=true"])
def test_a_fixed_size_needs_strips_of_one_size(setting, run):
    """Else a file would refuse what it is sent, after all the work of making it."""
    with pytest.raises(ConfigError, match="--fixed-size"):
        export(run, [own(run), setting], format="openvino", folds=[0], fixed_size=True)


def test_the_command_prints_the_figures_and_the_folder(run, capsys):
    """Figures on stdout; what cannot be done is a line on stderr and exit code 1."""
    words = ["export", str(run), own(run), "--format", "openvino", "--fixed-size", "--fold", "0"]

    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "original" in printed
    assert "fp32" in printed
    assert f"wrote {run / 'export' / 'openvino-fp32'}" in printed
    fold = read_export(run / "export" / "openvino-fp32").record.folds[0]
    assert (fold.height, fold.width) == (32, 96)
    (run / "fold_1" / "best_model.safetensors").unlink()
    assert main([*words[:-1], "1"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
