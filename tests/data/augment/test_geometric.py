import numpy as np
import pytest

from steelseg.config.config import DataConfig
from steelseg.data.augment.geometric import (
    CopyPasteSource,
    black_ends,
    conveyor_shift,
    defect_blackout,
    shift_scale,
)
from steelseg.data.checks.check import load_labels
from steelseg.data.samples.dataset import FolderReader

SEEDS = range(12)


def make_sample():
    """Noise around 90; class 1 is two blocks of 200, class 2 one of 30."""
    random = np.random.default_rng(0)
    image = random.integers(80, 100, (1, 48, 96), dtype=np.uint8)
    mask = np.zeros((2, 48, 96), np.uint8)
    mask[0, 4:12, 8:20] = mask[0, 30:40, 60:80] = mask[1, 20:28, 30:40] = 1
    image[0][mask[0] > 0] = 200
    image[0][mask[1] > 0] = 30
    return image, mask


def brightness_of(image, mask):
    """The levels of the labelled pixels of both classes."""
    return image[0][mask[0] > 0], image[0][mask[1] > 0]


@pytest.mark.parametrize("change", [shift_scale, conveyor_shift, black_ends, defect_blackout])
def test_the_generator_decides_all_and_arrays_are_changed_in_place(change):
    image, mask = make_sample()

    found = change(image, mask, np.random.default_rng(4))
    again = change(*make_sample(), np.random.default_rng(4))

    assert found[0] is image
    assert found[1] is mask
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_move_with_their_pixels(seed):
    """Shifted, scaled or round the conveyor: bright is class 1, dark class 2, but for edges."""
    for change in (shift_scale, conveyor_shift):
        image, mask = change(*make_sample(), np.random.default_rng(seed))
        bright, dark = brightness_of(image, mask)
        assert np.mean(bright > 150) > 0.9
        assert not len(dark) or np.mean(dark < 60) > 0.85
        assert np.mean(image[0][(mask == 0).all(axis=0)] > 150) < 0.02


def test_the_conveyor_loses_nothing():
    """What leaves at one end comes in at the other, row by row."""
    image, mask = conveyor_shift(*make_sample(), np.random.default_rng(1))

    before, labels = make_sample()
    np.testing.assert_array_equal(np.sort(image, axis=2), np.sort(before, axis=2))
    np.testing.assert_array_equal(mask.sum(axis=(1, 2)), labels.sum(axis=(1, 2)))
    assert not np.array_equal(image, before)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_black_end_has_no_label(seed):
    """Of one end, at most 40 % of the columns; the rest stays."""
    image, mask = black_ends(*make_sample(), np.random.default_rng(seed))

    before, labels = make_sample()
    is_black = (image[0] < 4).all(axis=0)
    assert 0.03 < is_black.mean() <= 0.4
    assert is_black[0] != is_black[-1]
    assert not mask[:, :, is_black].any()
    np.testing.assert_array_equal(image[:, :, ~is_black], before[:, :, ~is_black])
    np.testing.assert_array_equal(mask[:, :, ~is_black], labels[:, :, ~is_black])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_blackout_removes_the_label_with_the_defect(seed):
    """One block goes, whole; the two others stay with their labels."""
    image, mask = defect_blackout(*make_sample(), np.random.default_rng(seed))

    before, labels = make_sample()
    is_black = image[0] == 0
    assert is_black.sum() in (8 * 12, 10 * 20, 8 * 10)
    assert not mask[:, is_black].any()
    np.testing.assert_array_equal(mask[:, ~is_black], labels[:, ~is_black])
    np.testing.assert_array_equal(image[:, ~is_black], before[:, ~is_black])


def test_a_clean_sample_has_nothing_to_black_out():
    image, mask = make_sample()
    mask[:] = 0

    found, _ = defect_blackout(image, mask, np.random.default_rng(0))

    np.testing.assert_array_equal(found, make_sample()[0])


@pytest.fixture
def copy_paste(tmp_path, make_strips):
    """Give the defects of eight strips of 32x96; class 1 is bright, class 2 dark."""
    make_strips(tmp_path)
    labels = load_labels(DataConfig(root=tmp_path, num_classes=2, img_height=32, img_width=96))
    return CopyPasteSource(
        labels, list(labels.sizes), FolderReader(tmp_path / "train_images", 1).read
    )


@pytest.mark.parametrize("size", [(48, 96), (20, 16)])
def test_a_pasted_defect_brings_its_label(copy_paste, size):
    """As bright against its new surroundings as it was; a larger one is cut to the sample."""
    classes = set()
    for seed in SEEDS:
        image = np.random.default_rng(seed).integers(100, 120, (1, *size), dtype=np.uint8)
        mask = np.zeros((2, *size), np.uint8)

        copy_paste.paste(image, mask, np.random.default_rng(seed))

        assert mask.any()
        assert mask.max() == 1
        # Where both classes lie, one darkens what the other brightens.
        bright, dark = brightness_of(image, mask * (mask.sum(axis=0) == 1))
        assert not len(bright) or bright.mean() > 150
        assert not len(dark) or dark.mean() < 90
        far = np.ones(size, bool)
        rows, columns = np.nonzero(mask.any(axis=0))
        far[
            max(0, rows.min() - 8) : rows.max() + 9, max(0, columns.min() - 8) : columns.max() + 9
        ] = 0
        assert not far.any() or image[0][far].min() >= 100
        classes |= set(np.flatnonzero(mask.any(axis=(1, 2))))
    assert classes == {0, 1}


def test_nothing_is_pasted_beyond_the_end_of_a_strip(copy_paste):
    """Where no steel is, no defect can be."""
    image, mask = np.zeros((1, 48, 96), np.uint8), np.zeros((2, 48, 96), np.uint8)

    copy_paste.paste(image, mask, np.random.default_rng(0))

    assert not image.any()
    assert not mask.any()


def test_without_a_defect_nothing_is_pasted(copy_paste):
    copy_paste._image_ids_by_class = {}
    image, mask = make_sample()

    copy_paste.paste(image, mask, np.random.default_rng(0))

    np.testing.assert_array_equal(image, make_sample()[0])
