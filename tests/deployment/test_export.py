import json
import shutil

import cv2
import numpy as np
import pytest

from steelseg.api import export
from steelseg.cli import main
from steelseg.data.folds import read_folds
from steelseg.deployment.exported import read_export
from steelseg.errors import CheckpointError, ConfigError, ExportError
from steelseg.inference.backends import load_exported
from steelseg.models.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.export

# Of a network that learned nothing, on eight tiny strips.
ANYTHING = ("dice", "speed")


@pytest.fixture
def run(trained_run, tmp_path):
    """Give a run of its own, with its strips."""
    shutil.copytree(trained_run.parent, tmp_path / "own")
    return tmp_path / "own" / "run"


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """Give a run that was exported in all four ways; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(trained_run.parent, folder / "own")
    run = folder / "own" / "run"
    for format in ("onnx", "openvino"):
        export(run, [own(run)], format=format)
        export(run, [own(run)], format=format, int8=True, allow=ANYTHING)
    return run


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


@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8"])
def test_an_export_holds_every_fold_and_how_it_was_checked(name, exported):
    """Whoever runs it elsewhere can see what it came from and how far it is from that."""
    read = read_export(exported / "export" / name)

    assert [fold.fold for fold in read.record.folds] == [0, 1]
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
    assert {path.name for path in (exported / "export").iterdir()} == {
        "onnx-fp32",
        "onnx-int8",
        "openvino-fp32",
        "openvino-int8",
    }


def test_the_order_of_exports_changes_no_byte(exported, run):
    """Here int8 comes first, and fold 1 before fold 0; there fp32 and all folds at once."""
    for format in ("openvino", "onnx"):
        for fold in (1, 0):
            export(run, [own(run)], format=format, int8=True, folds=[fold], allow=ANYTHING)
        export(run, [own(run)], format=format)

    assert contents(run / "export") == contents(exported / "export")


def test_calibration_never_sees_a_strip_that_the_fold_held_out(exported, run):
    """Or int8 would be judged on what it was fitted to: other held-out pixels, same network."""
    fold_of = read_folds(run / "folds.csv", image_ids=read_ids(run), num_folds=2)
    held_out = {image_id for image_id, fold in fold_of.items() if fold == 0}
    name = "openvino-int8"
    read = read_export(exported / "export" / name)
    assert held_out.isdisjoint(read.record.folds[0].calibration)
    assert set(read.record.folds[0].calibration) == fold_of.keys() - held_out
    blacken(run, held_out)

    export(run, [own(run)], format="openvino", int8=True, folds=[0], allow=ANYTHING)

    unseen = contents(run / "export" / name)
    assert unseen == {k: v for k, v in contents(exported / "export" / name).items() if "_0" in k}
    blacken(run, fold_of.keys() - held_out)
    export(run, [own(run)], format="openvino", int8=True, folds=[0], allow=ANYTHING)
    assert contents(run / "export" / name) != unseen


def read_ids(run):
    """image_ids of the strips beside a run."""
    return [path.name for path in (run.parent / "input" / "train_images").iterdir()]


def blacken(run, image_ids):
    """Take the pixels of strips away."""
    for image_id in image_ids:
        path = run.parent / "input" / "train_images" / image_id
        assert cv2.imwrite(str(path), np.zeros((32, 96, 3), np.uint8))


def test_a_failed_check_keeps_nothing_and_says_which(run):
    """The network of before stays, too; a waived check is in the record."""
    broken = run / "fold_0" / "best_model.safetensors"
    # Logits of a trillion: float32 keeps 7 digits of them, so no two runtimes agree.
    checkpoint = load_checkpoint(broken)
    state = dict(checkpoint.model)
    last = [name for name in state if name.endswith("segmentation_head.0.weight")]
    assert last
    export(run, [own(run)], format="onnx", folds=[0])
    before = contents(run / "export")
    for name in last:
        state[name] = state[name] * 1e9
    save_checkpoint(broken, type(checkpoint)(state, {}, checkpoint.state))

    with pytest.raises(
        ExportError, match=r"fold 0, onnx fp32: probabilities differ .*0.0001 is"
    ) as e:
        export(run, [own(run)], format="onnx", folds=[0])

    assert "Nothing was kept; --allow difference waives it." in str(e.value)
    assert contents(run / "export") == before
    assert [path.name for path in (run / "export").iterdir()] == ["onnx-fp32"]
    read = export(run, [own(run)], format="onnx", folds=[0], allow=["difference"])
    assert read.record.folds[0].waived == ("difference",)
    assert contents(run / "export") != before


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

    with pytest.raises(
        CheckpointError, match=rf"{name}.*steelseg export .*run --format onnx\."
    ) as e:
        read_export(folder)

    assert "\n" not in str(e.value)


def test_an_export_that_names_files_elsewhere_is_refused(exported, run):
    """Its names are written into paths."""
    shutil.copytree(exported / "export", run / "export")
    path = run / "export" / "onnx-fp32" / "export.json"
    record = json.loads(path.read_text())
    record["folds"][0]["files"] = {"../../secret": "0" * 64}
    path.write_text(json.dumps(record))

    with pytest.raises(CheckpointError, match=r"export.json is damaged: folds.0.files"):
        read_export(path.parent)


def test_an_export_of_another_checkpoint_is_refused(exported, run):
    """The fold was trained on; predictions of the run and of its export would differ."""
    shutil.copytree(exported / "export", run / "export")
    best = run / "fold_1" / "best_model.safetensors"
    shutil.copyfile(run / "fold_0" / "best_model.safetensors", best)

    with pytest.raises(CheckpointError, match=r"onnx-fp32 was made from another .*fold_1.*Export"):
        read_export(run / "export" / "onnx-fp32")


def test_files_of_one_size_are_as_large_as_the_strips(run):
    """Padded to what the network takes."""
    read = export(
        run, [own(run)], format="openvino", folds=[0], fixed_size=True, strips=2, allow=ANYTHING
    )

    assert (read.record.folds[0].height, read.record.folds[0].width) == (32, 96)
    for setting in ("data.img_width=null", "inference.crops=true"):
        with pytest.raises(ConfigError, match="--fixed-size"):
            export(run, [own(run), setting], format="openvino", folds=[0], fixed_size=True)


def test_the_command_prints_the_figures_and_the_folder(run, capsys):
    """Figures on stdout; a check that fails is a line on stderr and exit code 1."""
    words = ["export", str(run), own(run), "--format", "openvino", "--fold", "0"]

    assert main(words) == 0
    printed = capsys.readouterr()
    assert "original" in printed.out
    assert "fp32" in printed.out
    assert f"wrote {run / 'export' / 'openvino-fp32'}" in printed.out
    (run / "fold_1" / "best_model.safetensors").unlink()
    assert main([*words[:-1], "1"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
