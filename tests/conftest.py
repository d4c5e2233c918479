"""Data for every test: small sets made on the spot, and the real ones where they lie."""

import csv
import struct
from pathlib import Path
from types import SimpleNamespace

import cv2
import hypothesis
import numpy as np
import pytest

from steelseg.config.load import build_config
from steelseg.data.formats import images, rle
from steelseg.data.formats.mask_csv import SEPARATE

# Shared machines are slow now and then, and a test must not fail by chance.
hypothesis.settings.register_profile("steelseg", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("steelseg")


@pytest.fixture(scope="session")
def shared_data():
    """Give the folder of real data sets, which is no part of the project, or skip the test."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not here")
    return folder


@pytest.fixture(scope="session")
def make_config():
    """Give `small_config`: tests cannot import from here."""
    return small_config


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """Give a run folder of two folds, trained for one epoch; tests leave it as it is."""
    from steelseg.training.train import train_run

    folder = tmp_path_factory.mktemp("trained")
    write_strips(folder / "input")
    train_run(small_config(folder / "input"), folder / "run")
    return folder / "run"


@pytest.fixture
def toy_format(monkeypatch):
    """Add an image format, and give a function that makes a file of it.

    A file is T2 or T5, height, width and the value of all pixels, as in the two kinds of PGM.
    """

    def measure(content):
        height, width, _ = struct.unpack_from("3B", content, 2)
        return height, width

    def decode(content, *, channels):
        return np.full((*measure(content), channels), content[4], np.uint8)

    toy = SimpleNamespace(
        NAME="TOY",
        EXTENSIONS=(".toy", ".ty"),
        MEDIA_TYPE="image/x-toy",
        matches=lambda content: content.startswith((b"T2", b"T5")),
        measure=measure,
        decode=decode,
    )
    monkeypatch.setattr(images, "FORMATS", (*images.FORMATS, toy))
    return lambda height, width, value, start=b"T5": start + bytes((height, width, value))


@pytest.fixture(scope="session")
def make_strips():
    """Give `write_strips`: tests cannot import from here."""
    return write_strips


def small_config(root, *overrides):
    """Make settings for the strips of `write_strips` and a network that trains in a second.

    Args:
        root: Folder of the data set.
        overrides: Settings to change, such as "train.epochs=3".
    """
    content = {
        "data": {
            "root": root,
            "num_classes": 2,
            "img_height": 32,
            "img_width": 96,
            "crop_height": 32,
            "crop_width": 48,
            "crop_stride": 32,
            "num_folds": 2,
        },
        "model": {
            "arch": "linknet",
            "encoder": "tu-mobilenetv3_small_050",
            "encoder_weights": "none",
        },
        "train": {
            "epochs": 1,
            "batch_size_train": 2,
            "batch_size_val": 2,
            "num_workers": 0,
            "amp": False,
        },
    }
    return build_config(content, overrides)


def write_strips(
    root,
    *,
    num_train=8,
    num_test=2,
    num_classes=2,
    height=32,
    width=96,
    seed=0,
    form=SEPARATE,
    suffix=".jpg",
):
    """Write a data set as Kaggle lays it out; every fourth training image is clean.

    A defect of class k is a rectangle brighter or darker than the noise around it, in its own
    shade. With a column ImageId_ClassId train.csv has a row for each pair, else for each defect.

    Args:
        root: Folder to fill; made when missing.
        num_train: Training images; every class shows on some of seven or more.
        num_test: Test images.
        num_classes: Classes C.
        height: Height of every image, in pixels, 2 at least.
        width: Width of every image, in pixels, 4 at least.
        seed: Of the noise and the places.
        form: Column names of train.csv and sample_submission.csv, in order.
        suffix: ".jpg" or ".png"; files have three equal channels.

    Returns:
        Mask of each training image, shape (C, H, W), by image_id.
    """
    random = np.random.default_rng(seed)
    masks = {}
    for part, count in (("train", num_train), ("test", num_test)):
        (root / f"{part}_images").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image_id = f"{part}_{number:03d}{suffix}"
            mask_chw = draw_defects(random, number, (num_classes, height, width))
            write_image(root / f"{part}_images" / image_id, random, mask_chw)
            masks[image_id] = mask_chw
    test_ids = [image_id for image_id in masks if image_id.startswith("test")]
    truth = {image_id: mask for image_id, mask in masks.items() if image_id not in test_ids}
    write_csv(root / "train.csv", form, label_rows(truth, with_empty="ImageId" not in form))
    write_csv(root / "sample_submission.csv", form, sample_rows(test_ids, form, num_classes))
    return truth


def draw_defects(random, number, shape):
    """Draw one or two defects, or none on every fourth image."""
    mask_chw = np.zeros(shape, dtype=bool)
    classes, height, width = shape
    for channel in {number % classes, number // 2 % classes} if number % 4 else ():
        top = random.integers(0, height - height // 2)
        left = random.integers(0, width - width // 4)
        mask_chw[channel, top : top + height // 2, left : left + width // 4] = True
    return mask_chw


def write_image(path, random, mask_chw):
    """Draw noise with a shade for each class."""
    grey = random.normal(90, 8, mask_chw.shape[1:])
    for channel, mask in enumerate(mask_chw):
        grey += mask * (100 if channel % 2 == 0 else -60) / (1 + channel // 2)
    image = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    assert cv2.imwrite(str(path), image)


def label_rows(masks, *, with_empty):
    """Yield the rows of train.csv: image_id, class_id, rle."""
    for image_id, mask_chw in masks.items():
        for class_id, mask in enumerate(mask_chw, start=1):
            if mask.any() or with_empty:
                yield image_id, class_id, rle.encode(mask)


def sample_rows(image_ids, form, num_classes):
    """Yield the placeholders of Kaggle's two samples."""
    for image_id in image_ids:
        if "ImageId" in form:
            yield image_id, 0, "1 409600"
        else:
            yield from ((image_id, class_id, "") for class_id in range(1, num_classes + 1))


def write_csv(path, form, rows):
    """Write rows of image_id, class_id, rle in either form."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, form, extrasaction="ignore")
        writer.writeheader()
        for image_id, class_id, text in rows:
            cells = {"ImageId": image_id, "ClassId": class_id, "EncodedPixels": text}
            writer.writerow(cells | {"ImageId_ClassId": f"{image_id}_{class_id}"})
