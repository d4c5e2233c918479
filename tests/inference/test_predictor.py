import cv2
import numpy as np
import pytest
import torch

from steelseg import Predictor
from steelseg.data.formats.images import list_images, read_image
from steelseg.errors import CheckpointError, ConfigError, DataError


@pytest.fixture(scope="module")
def predictor(trained_run):
    """Give the mean of both folds."""
    return Predictor(trained_run)


@pytest.fixture(scope="module")
def strip(trained_run):
    """Give a strip the run has not seen."""
    return trained_run.parent / "input" / "test_images" / "test_000.jpg"


def test_a_strip_gives_a_mask_of_each_class(predictor, strip):
    """At its own size, and with something on it: a mask of nothing would prove little."""
    mask_chw = predictor(strip)

    assert mask_chw.shape == (2, 32, 96)
    assert mask_chw.dtype == bool
    assert predictor.class_names == ("class 1", "class 2")


def test_masks_are_probabilities_over_the_threshold(trained_run, strip):
    """At the run's threshold, or at another."""
    probs_chw = Predictor(trained_run).probs(strip)
    threshold = float(np.median(probs_chw))

    found = Predictor(trained_run, [f"postprocess.threshold={threshold}"])(strip)

    np.testing.assert_array_equal(found, probs_chw >= threshold)
    assert 0 <= probs_chw.min() < probs_chw.max() <= 1


def test_pixels_give_what_their_file_gives(predictor, strip):
    """Grey with or without its axis, and three equal channels."""
    grey_hwc = read_image(strip, channels=1)
    expected = predictor.probs(strip)

    for image in (grey_hwc, grey_hwc[..., 0], np.repeat(grey_hwc, 3, axis=2)):
        np.testing.assert_array_equal(predictor.probs(image), expected)
    np.testing.assert_array_equal(predictor.probs(str(strip)), expected)


def test_a_view_of_pixels_is_as_good_as_a_copy(predictor, strip):
    """Cameras turn their pictures by a view, and PIL gives arrays that cannot be written."""
    grey_hwc = read_image(strip, channels=1)
    expected = predictor.probs(grey_hwc[:, ::-1].copy())
    locked = grey_hwc[:, ::-1].copy()
    locked.flags.writeable = False

    np.testing.assert_array_equal(predictor.probs(grey_hwc[:, ::-1]), expected)
    np.testing.assert_array_equal(predictor.probs(locked), expected)


def test_colours_become_grey_as_in_a_file(predictor, tmp_path):
    """By luminance, red first."""
    colours = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), colours[..., ::-1])

    found = predictor.probs(colours)

    # The decoder of a file rounds the same weights another way, by one level at most.
    np.testing.assert_allclose(found, predictor.probs(tmp_path / "a.png"), atol=2e-3)
    assert np.abs(predictor.probs(colours[..., ::-1]) - found).max() > 4e-3


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 96), np.float32),
        np.zeros((1, 32, 96, 1), np.uint8),
        np.zeros((32, 96, 4), np.uint8),
        np.zeros((32, 96, 2), np.uint8),
        np.zeros((0, 96), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(predictor, image):
    """Floats may be of any scale, and a fourth channel may be anything."""
    with pytest.raises(DataError, match=r"The image is (uint8|float32) of shape \("):
        predictor(image)


def test_a_file_that_is_no_image_is_named(predictor, tmp_path):
    """As everywhere."""
    (tmp_path / "a.jpg").write_text("text")

    with pytest.raises(DataError, match=r"a.jpg: the file is not a .*, whatever its name says"):
        predictor(tmp_path / "a.jpg")


def test_any_size_is_predicted_at_its_size(predictor):
    """Also smaller than the network's stride."""
    assert predictor(np.zeros((7, 133), np.uint8)).shape == (2, 7, 133)


def test_a_stream_gives_what_single_calls_give(predictor, strip):
    """Up to the rounding of a batch."""
    folder = strip.parent
    names = list_images(folder)

    found = list(predictor.stream(names, lambda name: read_image(folder / name, channels=1)))

    assert [image_id for image_id, *_ in found] == names
    for image_id, image_hwc, mask_chw, probs_chw in found:
        np.testing.assert_array_equal(image_hwc, read_image(folder / image_id, channels=1))
        np.testing.assert_allclose(probs_chw, predictor.probs(folder / image_id), atol=1e-6)
        np.testing.assert_array_equal(mask_chw, probs_chw >= 0.5)


def test_a_run_is_the_mean_of_its_folds(trained_run, predictor, strip):
    """By folder, by its checkpoints, or fold by fold."""
    files = [trained_run / f"fold_{fold}" / "best_model.safetensors" for fold in (0, 1)]
    single = [Predictor(trained_run, folds=[fold]).probs(strip) for fold in (0, 1)]

    np.testing.assert_array_equal(Predictor(files).probs(strip), predictor.probs(strip))
    np.testing.assert_array_equal(Predictor(files[1]).probs(strip), single[1])
    np.testing.assert_allclose(predictor.probs(strip), np.mean(single, axis=0), atol=1e-6)
    assert not np.array_equal(*single)


def test_one_network_at_a_time_gives_the_same(trained_run, predictor, strip):
    """inference.ensemble is a choice of memory."""
    sequential = Predictor(trained_run, ["inference.ensemble=sequential"])

    np.testing.assert_array_equal(sequential.probs(strip), predictor.probs(strip))


def test_flips_and_crops_are_settings(trained_run, predictor, strip):
    """They change the probabilities a little, not their shape."""
    for override in ("inference.tta=both", "inference.crops=true"):
        probs_chw = Predictor(trained_run, [override]).probs(strip)
        assert probs_chw.shape == (2, 32, 96)
        assert not np.array_equal(probs_chw, predictor.probs(strip))


def test_a_device_can_be_named(trained_run, predictor, strip):
    """As text or as torch has it."""
    for device in ("cpu", torch.device("cpu")):
        found = Predictor(trained_run, device=device).probs(strip)
        np.testing.assert_array_equal(found, predictor.probs(strip))


def test_a_run_folder_without_a_trained_fold_is_refused(trained_run, tmp_path):
    """The message says what to do first."""
    (tmp_path / "config.yaml").write_bytes((trained_run / "config.yaml").read_bytes())

    with pytest.raises(CheckpointError, match=r"has no trained fold. Train first: steelseg train"):
        Predictor(tmp_path)


def test_a_missing_checkpoint_is_named(trained_run, tmp_path):
    """By file, by fold, or as a folder that is no run."""
    with pytest.raises(CheckpointError, match=r"no_such.safetensors: there is no such run"):
        Predictor(tmp_path / "no_such.safetensors")
    with pytest.raises(CheckpointError, match=r"fold_7.*: there is no such checkpoint"):
        Predictor(trained_run, folds=[7])
    with pytest.raises(CheckpointError, match="is not a run folder"):
        Predictor(tmp_path)


def test_a_wrong_override_is_refused(trained_run):
    """With the nearest name."""
    with pytest.raises(ConfigError, match=r"did you mean postprocess.threshold"):
        Predictor(trained_run, ["postprocess.treshold=0.4"])
