import shutil

import cv2
import numpy as np
import pytest
import zarr

from steelseg import Predictor
from steelseg.data.checks.check import load_labels
from steelseg.data.folds import read_folds
from steelseg.errors import CheckpointError, DataError
from steelseg.evaluation.oof import oof_run
from steelseg.run.oof_store import read_oof
from steelseg.run.run_folder import RunFolder
from steelseg.scoring.postprocess import to_uint8
from steelseg.training.train import train_run


@pytest.fixture
def run(trained_run, tmp_path):
    """Give a copy of the trained run, to write into."""
    shutil.copytree(trained_run, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def make_oof(run, *overrides, **options):
    oof_run(run.load_config(overrides), run, **options)


def held_out(run, fold):
    config = run.load_config()
    image_ids = list(load_labels(config.data).sizes)
    fold_of = read_folds(run.folds_csv, image_ids=image_ids, num_folds=config.data.num_folds)
    return [image_id for image_id in image_ids if fold_of[image_id] == fold]


def test_every_strip_is_predicted_by_the_fold_that_did_not_see_it(run):
    """In levels of a 255th, as the best model of that fold says it."""
    make_oof(run)

    for fold in (0, 1):
        predictor = Predictor(run.best_model(fold))
        found = list(read_oof(run.oof(fold)))
        assert [image_id for image_id, _ in found] == held_out(run, fold)
        for image_id, levels_chw in found:
            probs_chw = predictor.probs(run.load_config().data.root / "train_images" / image_id)
            assert levels_chw.dtype == np.uint8
            difference = np.abs(levels_chw.astype(int) - to_uint8(probs_chw))
            # A batch of two rounds in another way than one strip alone.
            assert difference.max() <= 1
            assert (difference > 0).mean() < 0.01


def test_each_strip_is_a_chunk_of_its_own(run):
    """Memory does not grow with their number, and one strip is one read."""
    make_oof(run, folds=[0])

    array = zarr.open_array(str(run.oof(0)), mode="r")
    assert array.shape == (4, 2, 32, 96)
    assert array.chunks == (1, 2, 32, 96)
    assert array.dtype == np.uint8
    assert array.compressors


def test_only_the_folds_named_or_trained_are_predicted(run):
    """A run of one fold has out-of-fold strips too."""
    make_oof(run, folds=[1])
    assert not run.oof(0).exists()
    shutil.rmtree(run.oof(1))
    run.best_model(1).unlink()

    make_oof(run)

    assert run.oof(0).exists()
    assert not run.oof(1).exists()


def test_a_second_time_takes_the_place_of_the_first(run):
    """With nothing left beside it."""
    make_oof(run, folds=[0])
    before = [levels.copy() for _, levels in read_oof(run.oof(0))]

    make_oof(run, "inference.tta=both", folds=[0])

    after = [levels for _, levels in read_oof(run.oof(0))]
    assert any((a != b).any() for a, b in zip(after, before, strict=True))
    assert not [p.name for p in run.fold(0).iterdir() if "partial" in p.name]


def test_an_image_that_is_gone_leaves_the_old_store(run, tmp_path):
    """A half-written store would be scored as a whole one."""
    root = tmp_path / "data"
    shutil.copytree(run.load_config().data.root, root)
    make_oof(run, folds=[0])
    (root / "train_images" / held_out(run, 0)[-1]).unlink()

    with pytest.raises(DataError):
        make_oof(run, f"data.root={root}", folds=[0])

    assert len(list(read_oof(run.oof(0)))) == 4


def test_the_npy_form_is_the_store_as_floats(run):
    """The baseline's own file, written strip by strip."""
    make_oof(run, folds=[0], npy=True)

    found = np.load(run.fold(0) / "oof_predictions.npy", mmap_mode="r")
    expected = np.stack([levels for _, levels in read_oof(run.oof(0))]) / np.float32(255)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_strips_of_many_sizes_come_back_at_their_own(make_strips, make_config, tmp_path):
    """They share an array as large as the largest; the rest of it is zero."""
    root = tmp_path / "input"
    make_strips(root, num_train=4)
    sizes = {"small.png": (20, 50), "tall.png": (48, 33)}
    for name, size in sizes.items():
        assert cv2.imwrite(str(root / "train_images" / name), np.full(size, 90, np.uint8))
    config = make_config(root, "data.img_height=null", "data.img_width=null")
    train_run(config, tmp_path / "run")
    run = RunFolder(tmp_path / "run")

    make_oof(run, npy=True)

    found = {i: levels.shape for fold in (0, 1) for i, levels in read_oof(run.oof(fold))}
    expected = load_labels(config.data).sizes
    assert found == {image_id: (2, *size) for image_id, size in expected.items()}
    assert sizes.items() <= dict(expected).items()
    fold = 0 if "small.png" in held_out(run, 0) else 1
    array = np.load(run.fold(fold) / "oof_predictions.npy")
    place = held_out(run, fold).index("small.png")
    assert array[place, :, :20, :50].any()
    assert not array[place, :, 20:].any()
    assert not array[place, :, :, 50:].any()


def test_a_run_without_a_trained_fold_is_refused(run):
    """The message says what to do first."""
    for fold in (0, 1):
        run.best_model(fold).unlink()

    with pytest.raises(CheckpointError, match=r"has no trained fold. Train first: steelseg train"):
        make_oof(run)
    with pytest.raises(CheckpointError, match=r"fold_0.*there is no such checkpoint"):
        make_oof(run, folds=[0])


def test_another_number_of_classes_is_refused(run):
    """The network has as many as it was trained with."""
    with pytest.raises(CheckpointError, match=r"with data.num_classes=2.* say 3"):
        make_oof(run, "data.num_classes=3")


def test_predictions_that_are_not_there_are_asked_for(run):
    """By the command that makes them."""
    with pytest.raises(CheckpointError, match="Create it with: steelseg oof RUN"):
        next(read_oof(run.oof(0)))
