import numpy as np
import pytest

from steelseg.data.augment import photometric
from steelseg.data.augment.steps import find_augmentation

NAMES = ["brightness", "gamma", "noise", "blur", "jpeg"]


def make_sample(channels=1):
    """Grey steps with a bright stripe, as a part of a larger batch in memory."""
    image = np.zeros((channels, 40, 96), np.uint8)
    image[:] = np.arange(96) + 60
    image[:, 10:14] = 230
    mask = (image[:1] == 230).astype(np.uint8)
    return image[:, :32, :80], mask[:, :32, :80]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_pixels_change_in_place_and_labels_stay(name, channels):
    """In the batch itself, whose rows are longer; the generator decides all."""
    image_chw, mask_chw = make_sample(channels)
    before, labels = image_chw.copy(), mask_chw.copy()

    found, found_mask = find_augmentation(name)(image_chw, mask_chw, np.random.default_rng(3))
    again, _ = find_augmentation(name)(*make_sample(channels), np.random.default_rng(3))

    assert found is image_chw
    assert not np.array_equal(found, before)
    np.testing.assert_array_equal(found_mask, labels)
    np.testing.assert_array_equal(again, found)
    # Mild: what an inspector would label alike.
    assert np.abs(found.astype(int) - before).mean() < 60


def test_noise_has_no_bias():
    """Rounded, not cut: a grey stays that grey in the mean."""
    image = np.full((1, 200, 200), 100, np.uint8)

    photometric.noise(image, image, np.random.default_rng(0))

    assert abs(image.mean() - 100) < 0.2
    assert 2 <= image.std() <= 12.1


def test_gamma_keeps_black_and_white():
    """It bends what lies between."""
    image = np.array([[[0, 128, 255]]], np.uint8)

    photometric.gamma(image, image, np.random.default_rng(0))

    assert image[0, 0, 0] == 0
    assert image[0, 0, 2] == 255
    assert image[0, 0, 1] != 128
