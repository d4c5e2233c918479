"""Labelling strips that nobody has labelled, with real networks of a real run."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest

from steelseg.api import oof, pseudo
from steelseg.cli.main import main
from steelseg.data.folds import read_fold_numbers
from steelseg.data.formats.images import read_image
from steelseg.data.pseudo_labels import KEPT, read_pseudo_labels, read_verdicts
from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.inference.predictor import Predictor
from steelseg.run.run_folder import RunFolder

# Keeps whatever a network of one epoch says, and draws masks where it is least unsure.
KEEP_ALL = ("pseudo.agreement=0", "pseudo.confidence=0", "postprocess.threshold=0.51")


@pytest.fixture(scope="module")
def more(tmp_path_factory, make_strips):
    """Give a folder of four strips that nobody has labelled."""
    root = tmp_path_factory.mktemp("more")
    make_strips(root, num_train=1, num_test=4, seed=7)
    return root / "test_images"


@pytest.fixture
def run(trained_run, tmp_path):
    """Give a copy of the trained run, to write into."""
    return shutil.copytree(trained_run, tmp_path / "run")


def verdicts_of(out, fold=0):
    return {one.image_id: one.verdict for one in read_verdicts(out / f"fold_{fold}" / "strips.csv")}


def test_each_fold_has_the_word_of_its_own_networks(run, more):
    """The same masks as prediction with flips by that fold alone; those of the folds differ."""
    out = pseudo(run, KEEP_ALL, images=more)

    texts = [(out / f"fold_{fold}" / "train.csv").read_text() for fold in (0, 1)]
    assert texts[0] != texts[1]
    for fold in (0, 1):
        labels = read_pseudo_labels(out, fold).labels
        alone = Predictor(run, ["inference.tta=both", KEEP_ALL[2]], folds=[fold])
        assert sorted(labels.sizes) == sorted(path.name for path in more.iterdir())
        for image_id in labels.sizes:
            np.testing.assert_array_equal(labels.draw(image_id), alone(more / image_id))
    assert read_fold_numbers(out / "folds.csv") == read_fold_numbers(run / "folds.csv")


def test_the_command_prints_a_line_a_fold(run, more, capsys):
    """And the folder, as the last one; a mistake is one line."""
    assert main(["pseudo", str(run), "--images", str(more), *KEEP_ALL]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" strips kept")[0] for line in lines[:2]] == [
        "fold 0: 4 of 4",
        "fold 1: 4 of 4",
    ]
    assert lines[2] == f"wrote {run / 'pseudo'}"
    both = ["pseudo.precision=0.9", "pseudo.confidence=0.5"]
    assert main(["pseudo", str(run), "--images", str(more), *both]) == 1
    assert "set one of them to null" in capsys.readouterr().err


def test_a_strip_that_duplicates_a_labelled_one_enters_no_fold(run, more, tmp_path, capsys):
    """Neither the same file nor one that was flipped and recompressed."""
    root = RunFolder(run).load_config().data.root
    strips = shutil.copytree(more, tmp_path / "strips")
    shutil.copy(root / "train_images" / "train_001.jpg", strips / "same.jpg")
    flipped = read_image(root / "train_images" / "train_002.jpg", channels=1)[:, ::-1]
    assert cv2.imwrite(str(strips / "flipped.jpg"), flipped, [cv2.IMWRITE_JPEG_QUALITY, 90])

    out = pseudo(run, KEEP_ALL, images=strips)

    for fold in (0, 1):
        found = verdicts_of(out, fold)
        assert {name for name, word in found.items() if word == "copy"} == {
            "same.jpg",
            "flipped.jpg",
        }
        assert "same.jpg" not in read_pseudo_labels(out, fold).labels.sizes
    assert "2 of 6 images are copies of labelled strips" in capsys.readouterr().err


def test_the_labelled_strips_themselves_are_refused(run):
    """With what to name instead."""
    root = RunFolder(run).load_config().data.root

    with pytest.raises(DataError, match=r"copy of a labelled strip.*Name a folder"):
        pseudo(run, images=root / "train_images")
    assert not (run / "pseudo").exists()


def test_every_strip_is_told_with_its_reason(run, more):
    """An agreement and a confidence that nothing reaches keep nothing; the line says so."""
    settings = (*KEEP_ALL[1:], "pseudo.agreement=1")
    out = pseudo(run, settings, images=more, out=run / "agreed")
    with (out / "fold_0" / "strips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["verdict"] for row in rows} <= {KEPT, "disagree"}
    assert all(("Dice" in row["reason"]) == (row["verdict"] == "disagree") for row in rows)

    out = pseudo(run, ("pseudo.agreement=0", "pseudo.confidence=1"), images=more)
    assert set(verdicts_of(out).values()) == {"unsure"}
    report = json.loads((out / "index.json").read_text())["folds"]["0"]
    assert (report["strips"], report["kept"], report["unsure"]) == (4, 0, 4)
    assert "no strip was kept" in (run / "training_log.txt").read_text()


def test_a_class_that_is_never_found_is_warned_of(run, more):
    """Its strips are kept as clean and would teach to miss it."""
    nothing = (*KEEP_ALL[:2], "postprocess.threshold=[0.51, 1]")
    out = pseudo(run, nothing, images=more)

    assert set(verdicts_of(out).values()) == {KEPT}
    log = (run / "training_log.txt").read_text()
    assert "class 2. A network that never finds a class labels its strips as clean" in log


def test_precision_chooses_on_the_held_out_strips_of_other_folds(run, more):
    """What it keeps of them is right as often as was asked for, or nothing is kept."""
    oof(run)
    out = pseudo(run, ("pseudo.precision=0.6", *KEEP_ALL[::2]), images=more)

    index = json.loads((out / "index.json").read_text())
    for report in index["folds"].values():
        for held, found in zip(
            report["on_held_out"], report["least_sureness"]["found"], strict=True
        ):
            assert held["masks"] + held["absences"] == 4
            assert (found is None) == (held["masks_trusted"] == 0)
            assert found is None or held["precision"] >= 0.6


def test_precision_needs_predictions(run, more):
    """With the command that makes them, or of another fold than the one that is labelled."""
    with pytest.raises(CheckpointError, match="steelseg oof"):
        pseudo(run, ("pseudo.precision=0.6",), images=more)
    oof(run, folds=[0])
    with pytest.raises(ConfigError, match=r"pseudo\.precision=0\.6.*another fold"):
        pseudo(run, ("pseudo.precision=0.6",), images=more)


def test_other_runs_have_a_vote(run, more, trained_run):
    """The same networks once more change no mask; a run with other folds is refused."""
    alone = pseudo(run, KEEP_ALL, images=more, out=run / "alone")
    both = pseudo(run, KEEP_ALL, images=more, out=run / "both", teachers=[trained_run])

    for name in ("fold_0/train.csv", "fold_1/train.csv"):
        assert (alone / name).read_text() == (both / name).read_text()
    assert len(json.loads((both / "index.json").read_text())["teachers"]) == 2
    other = shutil.copytree(trained_run, run.parent / "other")
    text = (other / "folds.csv").read_text()
    (other / "folds.csv").write_text(text.replace(",0,", ",9,").replace(",1,", ",0,", 4))
    with pytest.raises(ConfigError, match=r"have different folds, so networks"):
        pseudo(run, KEEP_ALL, images=more, teachers=[other])
    with pytest.raises(ConfigError, match="named twice"):
        pseudo(run, KEEP_ALL, images=more, teachers=[run])


def test_a_network_in_the_folder_of_another_fold_is_refused(run, more):
    """It has seen what that fold holds out."""
    shutil.copy(run / "fold_1" / "best_model.safetensors", run / "fold_0")

    with pytest.raises(CheckpointError, match="belongs to fold 1"):
        pseudo(run, KEEP_ALL, images=more)


def test_a_folder_of_something_else_is_not_replaced(run, more):
    """Only pseudo-labels are."""
    with pytest.raises(ConfigError, match="contains files that are not pseudo-labels"):
        pseudo(run, KEEP_ALL, images=more, out=run / "fold_0")
    pseudo(run, KEEP_ALL, images=more)
    pseudo(run, KEEP_ALL, images=more)


def test_labelling_goes_on_where_it_was(run, more, monkeypatch):
    """A kill leaves no folder, and what was found is not asked again."""
    from steelseg.pseudo.teachers import Teachers

    whole = pseudo(run, KEEP_ALL, images=more, out=run / "whole")
    ask, asked = Teachers.predict, []

    def ask_thrice(self, image_hwc):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(1)
        return ask(self, image_hwc)

    monkeypatch.setattr(Teachers, "predict", ask_thrice)
    with pytest.raises(KeyboardInterrupt):
        pseudo(run, KEEP_ALL, images=more)
    assert not (run / "pseudo").exists()

    monkeypatch.setattr(Teachers, "predict", lambda *args: asked.append(1) or ask(*args))
    out = pseudo(run, KEEP_ALL, images=more)

    assert len(asked) == 8
    for name in ("index.json", "fold_0/train.csv", "fold_0/strips.csv", "fold_1/train.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert not (run / "pseudo.journal").exists()


def test_strips_of_another_size_are_refused(run, more, tmp_path):
    """They could not be trained on."""
    strips = shutil.copytree(more, tmp_path / "strips")
    assert cv2.imwrite(str(strips / "small.png"), np.zeros((16, 96), np.uint8))

    with pytest.raises(DataError, match=r"small\.png: the image is 16x96, but strips are 32x96"):
        pseudo(run, KEEP_ALL, images=strips)
