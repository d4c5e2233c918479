import csv
import re
from collections import Counter, defaultdict
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from steelseg.data.formats import rle
from steelseg.data.synthetic.dataset import (
    AREA_QUANTILES,
    CLASS_IDS,
    IMAGES_BY_CLASSES,
    QUANTILES,
    REAL_PIXELS,
    make_dataset,
)
from steelseg.errors import ConfigError, DataError

HEIGHT, WIDTH = 64, 256

SMALL = {"num_train": 16, "num_test": 2, "height": HEIGHT, "width": WIDTH}

# Steel is never as dark as this, the black behind its end never as bright.
BLACK = 12


class Made(NamedTuple):
    """A synthetic set, read back from its files."""

    images: dict
    """Grey pixels by image_id, training strips only."""

    masks: dict
    """Masks by image_id and class_id."""


def read(root, height, width):
    """Read the training strips and decode every row."""
    images = {
        path.name: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        for path in sorted((root / "train_images").iterdir())
    }
    masks = defaultdict(dict)
    with (root / "train.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            mask = rle.decode(row["EncodedPixels"], height, width)
            masks[row["ImageId"]][int(row["ClassId"])] = mask
    return Made(images, masks)


def contents(root):
    """Every file below a folder, as bytes."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def small_root(tmp_path_factory):
    """A set of the default number of strips, each of them small."""
    root = tmp_path_factory.mktemp("synthetic") / "new" / "set"
    make_dataset(root, height=HEIGHT, width=WIDTH)
    return root


@pytest.fixture(scope="module")
def small(small_root):
    return read(small_root, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A few strips of the real size."""
    root = tmp_path_factory.mktemp("synthetic") / "full"
    make_dataset(root, num_train=24, num_test=1)
    return read(root, 256, 1600)


def test_the_folder_is_laid_out_as_kaggle_does(small_root):
    """Whatever reads Severstal reads this set: same files, same names, same headers."""
    assert {path.name for path in small_root.iterdir()} == {
        "train_images",
        "test_images",
        "train.csv",
        "sample_submission.csv",
    }
    names = [path.name for path in small_root.glob("*/*")]
    assert len(names) == len(set(names)) == 184
    assert all(re.fullmatch(r"[0-9a-f]{9}\.jpg", name) for name in names)
    header, *rows = (small_root / "train.csv").read_text().splitlines()
    assert header == "ImageId,ClassId,EncodedPixels"
    assert rows == sorted(rows)


def test_the_sample_submission_asks_for_four_empty_masks_a_strip(small_root):
    """It names the strips to predict, in the form a submission takes."""
    header, *rows = (small_root / "sample_submission.csv").read_text().splitlines()
    names = sorted(path.name for path in (small_root / "test_images").iterdir())

    assert header == "ImageId_ClassId,EncodedPixels"
    assert rows == [f"{name}_{class_id}," for name in names for class_id in CLASS_IDS]


def test_strips_are_grey_repeated_in_three_channels(small_root):
    """Kaggle's files are colour JPEGs without colour."""
    path = next((small_root / "train_images").iterdir())
    image_hwc = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)

    assert image_hwc.shape == (HEIGHT, WIDTH, 3)
    assert (image_hwc == image_hwc[:, :, :1]).all()


def test_the_same_arguments_give_the_same_files(tmp_path):
    """A figure in a report can be reproduced: every CSV and JPEG is equal to the byte."""
    make_dataset(tmp_path / "a", **SMALL, seed=7)
    make_dataset(tmp_path / "b", **SMALL, seed=7)

    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_gives_other_strips(tmp_path, small_root):
    """Neither names nor pixels are shared, so two sets can be put together."""
    make_dataset(tmp_path, **SMALL, seed=1)
    ours, theirs = contents(tmp_path), contents(small_root)

    assert set(ours) & set(theirs) == {"train.csv", "sample_submission.csv"}
    assert not set(ours.values()) & set(theirs.values())


def test_classes_are_as_frequent_as_in_the_real_set(small):
    """Combinations are dealt by quota; only the four strips a rare class gets go beyond it."""
    made = Counter(tuple(sorted(small.masks.get(image_id, ()))) for image_id in small.images)
    total = sum(IMAGES_BY_CLASSES.values())

    assert made.total() == 160
    for held, count in IMAGES_BY_CLASSES.items():
        slack = 4 if held in ((), (2,)) else 1
        assert abs(made[held] - 160 * count / total) <= slack, held


@pytest.mark.parametrize("num_train", [16, 17, 24, 50])
def test_every_class_has_four_training_strips(num_train, tmp_path):
    """With fewer, a fold could not hold one out and still train on the class."""
    make_dataset(tmp_path, **SMALL | {"num_train": num_train})

    made = read(tmp_path, HEIGHT, WIDTH)
    held = Counter(class_id for masks in made.masks.values() for class_id in masks)
    assert len(made.images) == num_train
    assert min(held[class_id] for class_id in CLASS_IDS) >= 4


@pytest.mark.parametrize("class_id", CLASS_IDS)
def test_areas_follow_the_real_quantiles(class_id, small):
    """Areas shrink with the strip, so they are compared at the size of a real one."""
    areas = [m[class_id].sum() for m in small.masks.values() if class_id in m]
    scaled = np.array(areas) * REAL_PIXELS / (HEIGHT * WIDTH)

    assert scaled.min() >= 0.85 * AREA_QUANTILES[class_id][0]
    assert scaled.max() <= 1.15 * AREA_QUANTILES[class_id][-1]
    # One area lies in each of n equal slices, so ranks are right to within one strip.
    for rank, area in enumerate(sorted(scaled)):
        lowest, highest = np.interp(
            [rank / len(areas), (rank + 1) / len(areas)], QUANTILES, AREA_QUANTILES[class_id]
        )
        assert 0.85 * lowest <= area <= 1.15 * highest


@pytest.mark.parametrize("size", [(32, 64), (64, 256), (128, 96), (256, 512)])
def test_masks_are_drawn_at_any_size(size, tmp_path):
    """No class vanishes on a small strip, and no mask leaves it."""
    height, width = size
    make_dataset(tmp_path, num_train=16, num_test=1, height=height, width=width)

    made = read(tmp_path, height, width)
    assert {image.shape for image in made.images.values()} == {size}
    assert {class_id for masks in made.masks.values() for class_id in masks} == set(CLASS_IDS)
    assert all(mask.any() for masks in made.masks.values() for mask in masks.values())


def test_masks_of_one_strip_do_not_overlap(small):
    """A pixel has one kind of damage, so a label can be told from its texture."""
    several = [list(masks.values()) for masks in small.masks.values() if len(masks) > 1]

    assert several
    assert all(np.sum(masks, axis=0).max() == 1 for masks in several)


def test_black_ends_hold_no_defect(full):
    """Where the strip has ended there is nothing to find; some strips have such an end."""
    dark = {name: image.mean(axis=0) < BLACK for name, image in full.images.items()}

    assert any(columns.any() for columns in dark.values())
    for name, masks in full.masks.items():
        for mask in masks.values():
            assert not mask[:, dark[name]].any()


def test_brightness_is_that_of_the_real_set(full):
    """Mean 0.344 and deviation 0.196 on Severstal: the same normalisation fits both."""
    pixels = np.stack(list(full.images.values()))

    assert pixels.mean() / 255 == pytest.approx(0.34, abs=0.08)
    assert pixels.std() / 255 == pytest.approx(0.2, abs=0.08)


@pytest.mark.parametrize("class_id", CLASS_IDS)
def test_damage_stands_out_from_the_steel_around_it(class_id, full):
    """Details of some pixels' size are stronger inside a mask, on every strip of the class."""
    for name, masks in full.masks.items():
        if class_id in masks:
            image_hw = full.images[name].astype(np.float32)
            fine, coarse = (cv2.GaussianBlur(image_hw, (0, 0), sigma) for sigma in (1.5, 6))
            rough = np.abs(fine - coarse)
            steel = ~np.any(list(masks.values()), axis=0) & (full.images[name] > BLACK)

            assert rough[masks[class_id]].mean() > 3 * rough[steel].mean(), name


def test_the_caller_can_show_progress(tmp_path):
    """Drawing thousands of strips takes a while."""
    calls = []

    make_dataset(
        tmp_path,
        **SMALL,
        progress=lambda loop, total, title: (calls.append((total, title)), loop)[1],
    )

    assert calls == [(18, "synth")]


def test_a_class_can_get_more_strips_than_its_share(tmp_path):
    """A short demonstration has no time to learn a class from two strips."""
    make_dataset(tmp_path, **SMALL | {"num_train": 40}, min_per_class=7)

    made = read(tmp_path, HEIGHT, WIDTH)
    held = Counter(class_id for masks in made.masks.values() for class_id in masks)
    assert len(made.images) == 40
    assert min(held[class_id] for class_id in CLASS_IDS) >= 7


def test_a_folder_that_holds_something_is_refused(tmp_path):
    """Strips of two sets in one folder would be trained on as one."""
    (tmp_path / "train.csv").write_text("mine")

    with pytest.raises(DataError, match=r"not empty.*use another") as refusal:
        make_dataset(tmp_path, **SMALL)
    assert str(tmp_path) in str(refusal.value)
    assert contents(tmp_path) == {"train.csv": b"mine"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    """A slip of the path is named, not a traceback from the first JPEG."""
    path = tmp_path / "set"
    path.write_text("mine")

    with pytest.raises(DataError, match="is a file"):
        make_dataset(path, **SMALL)


@pytest.mark.parametrize(
    ("setting", "least"),
    [("num_train", 16), ("num_test", 1), ("height", 32), ("width", 64), ("seed", 0)],
)
def test_numbers_below_the_limit_are_refused(setting, least, tmp_path):
    """The message names the argument and the least that works, and nothing is written."""
    with pytest.raises(ConfigError, match=rf"{setting}={least - 1} .* at least {least}\."):
        make_dataset(tmp_path / "set", **SMALL | {setting: least - 1})
    assert not (tmp_path / "set").exists()
