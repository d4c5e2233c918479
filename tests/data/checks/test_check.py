import shutil
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg

from steelseg.config.config import DataConfig
from steelseg.data.checks.check import inspect, inspect_data, load_labels, refuse_faults
from steelseg.data.formats import rle
from steelseg.data.formats.images import format_extensions, format_names
from steelseg.data.formats.mask_csv import JOINED, SEPARATE
from steelseg.errors import DataError

SETTINGS = {"num_classes": 2, "img_height": 32, "img_width": 96, "channels": 1}


def faults_of(root, **changes):
    """List the faults as a user reads them, without the folder in front."""
    found = inspect(root, **SETTINGS | changes).faults
    return [str(fault).replace(f"{root}/", "") for fault in found]


def contents(root):
    return {path: path.is_file() and path.read_bytes() for path in root.rglob("*")}


def append(path, text):
    path.write_bytes(path.read_bytes() + text.encode())


@pytest.mark.parametrize("form", [JOINED, SEPARATE, ("ImageId", "EncodedPixels", "ClassId")])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_good_set_has_no_fault(make_strips, tmp_path, form, suffix):
    """Its labels are the masks that were written."""
    masks = make_strips(tmp_path, form=form, suffix=suffix)

    inspection = inspect(tmp_path, **SETTINGS)

    assert inspection.faults == ()
    assert inspection.num_test_images == 2
    assert list(inspection.labels.sizes) == sorted(masks)
    for image_id, mask_chw in masks.items():
        np.testing.assert_array_equal(inspection.labels.draw(image_id), mask_chw)


def test_a_set_for_training_alone_is_good(make_strips, tmp_path):
    """Test images and the sample are asked for by prediction, not by training."""
    make_strips(tmp_path)
    shutil.rmtree(tmp_path / "test_images")
    (tmp_path / "sample_submission.csv").unlink()

    inspection = inspect(tmp_path, **SETTINGS)

    assert (inspection.faults, inspection.num_test_images) == ((), 0)


def test_images_of_any_size_are_good_where_the_settings_say_so(make_strips, tmp_path):
    """Where a side is null, any will do; masks are held against each image's own size."""
    make_strips(tmp_path, num_train=4, height=32)
    cv2.imwrite(str(tmp_path / "train_images" / "small.png"), np.zeros((16, 16), np.uint8))
    append(tmp_path / "train.csv", "small.png,1,1 256\r\n")

    inspection = inspect(tmp_path, **SETTINGS | {"img_height": None, "img_width": None})

    assert inspection.faults == ()
    assert inspection.labels.sizes["small.png"] == (16, 16)


def test_every_kind_of_fault_is_listed_at_once(make_strips, tmp_path):
    """In the order of files and rows, each with its place and its reason."""
    make_strips(tmp_path, form=SEPARATE, suffix=".png")
    train, test = tmp_path / "train_images", tmp_path / "test_images"
    (tmp_path / "train.csv").write_text(
        "ImageId,ClassId,EncodedPixels\n"
        "train_000.png,1,1 3\n"
        "train_000.png,1,1 3\n"
        "train_000.png,3,1 3\n"
        "train_001.png,1,3000 100\n"
        "train_001.png,2,1 3 2\n"
        "train_001.png\n"
        "other.png,1,1 3\n"
        "../train_001.png,1,1 3\n"
        "train_002.png,2,5 2 1 2\n"
    )
    (train / "train_003.png").write_bytes((train / "train_004.png").read_bytes()[:-20])
    (train / "train_005.png").write_text("no image")
    (test / "test_000.png").write_bytes(b"")
    cv2.imwrite(str(train / "train_006.png"), np.zeros((32, 95), np.uint8))
    append(tmp_path / "sample_submission.csv", "absent.png,0,1 1\r\nshort\r\n")

    assert faults_of(tmp_path) == [
        "sample_submission.csv:4: absent.png is not in test_images.",
        "sample_submission.csv:5: the row has 1 cells, the header 3.",
        "test_images/test_000.png: the file is empty.",
        "train.csv:3: train_000.png class 1 is a duplicate of row 2.",
        "train.csv:4: unknown class '3'; classes are 1 to 2 (data.num_classes).",
        "train.csv:5: train_001.png: RLE ends at pixel 3099, but the image has 3072. "
        "Was the mask made for another image size?",
        "train.csv:6: train_001.png: RLE has 3 numbers, an odd count. "
        "It takes pairs of start and length.",
        "train.csv:7: the row has 1 cells, the header 3.",
        "train.csv:8: other.png is not in train_images.",
        "train.csv:9: image id '../train_001.png' is not a file name: "
        "it must not be empty or a path.",
        "train.csv:10: train_002.png: RLE run 2 starts at 1, before the previous run. "
        "Sort the runs.",
        "train_images/train_003.png: the image is truncated: the file ends before its last part.",
        f"train_images/train_005.png: the file is not a {format_names()}, whatever its name says.",
        "train_images/train_006.png: the image is 32x95, but masks are 32x96 "
        "(data.img_height x data.img_width; null for any).",
    ]


def test_nothing_is_written(make_strips, tmp_path):
    """A check of someone's data must leave it as it was, faults or not."""
    make_strips(tmp_path)
    append(tmp_path / "train.csv", "absent.jpg,1,1 3\r\n")
    before = contents(tmp_path)

    assert len(faults_of(tmp_path)) == 1
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("train.csv", "train.csv: the file cannot be read: No such file or directory."),
        ("train_images", "train_images: is not a folder. It should contain the images."),
        (
            "test_images",
            "test_images: the folder is missing, but sample_submission.csv lists 2 images of it.",
        ),
    ],
)
def test_a_missing_part_is_one_fault(make_strips, tmp_path, broken, expected):
    """Not one for each of 5,506 rows that name an image in it."""
    make_strips(tmp_path)
    path = tmp_path / broken
    path.unlink() if path.is_file() else shutil.rmtree(path)

    assert faults_of(tmp_path) == [expected]


def test_an_empty_folder_is_one_fault(make_strips, tmp_path):
    """The images lie somewhere else, most likely."""
    make_strips(tmp_path)
    for folder in ("train_images", "test_images"):
        for path in (tmp_path / folder).iterdir():
            path.unlink()

    assert faults_of(tmp_path) == [
        f"test_images: contains no {format_extensions()} file.",
        f"train_images: contains no {format_extensions()} file.",
    ]


def test_a_folder_without_anything_is_named(tmp_path):
    """The first thing that a newcomer meets: a wrong data.root."""
    found = faults_of(tmp_path)

    assert [fault.split(":")[0] for fault in found] == ["train.csv", "train_images"]


def test_a_sample_that_cannot_be_read_is_one_fault(make_strips, tmp_path):
    """A colon in the path does not confuse its place."""
    root = tmp_path / "a: b"
    make_strips(root)
    (root / "sample_submission.csv").write_text("id,label\n")

    assert faults_of(root) == [
        "sample_submission.csv: the columns are 'id,label'. Expected ImageId,ClassId,EncodedPixels "
        "or ImageId_ClassId,EncodedPixels."
    ]


def test_training_refuses_a_set_with_faults(make_strips, tmp_path):
    """All of them are in the message, one a line."""
    make_strips(tmp_path)
    append(tmp_path / "train.csv", "absent.jpg,1,1 3\r\ntrain_000.jpg,9,\r\n")

    with pytest.raises(DataError) as refusal:
        load_labels(DataConfig(root=tmp_path, **SETTINGS))

    first, *lines = str(refusal.value).splitlines()
    assert first == f"2 faults in {tmp_path}:"
    assert [line.startswith(f"{tmp_path}/train.csv:") for line in lines] == [True, True]


def test_training_gets_the_labels_of_a_good_set(make_strips, tmp_path):
    """The same labels as `inspect` gives."""
    masks = make_strips(tmp_path)

    assert list(load_labels(DataConfig(root=tmp_path, **SETTINGS)).sizes) == list(masks)


def test_labels_are_read_without_decoding_what_was_checked_before(make_strips, tmp_path):
    """Scan data that no decoder takes pass; a file that ends early does not."""
    make_strips(tmp_path, suffix=".png")
    folder = tmp_path / "train_images"
    path = folder / "train_000.png"
    header = b"IHDR" + struct.pack(">IIBBBBB", 96, 32, 8, 0, 0, 0, 0)
    parts = [header, b"IDATno pixels", b"IEND"]
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    data = DataConfig(root=tmp_path, **SETTINGS)

    assert load_labels(data).sizes["train_000.png"] == (32, 96)
    with pytest.raises(DataError, match=r"train_000\.png: the image cannot be decoded"):
        refuse_faults(tmp_path, inspect_data(data))

    path.write_bytes((folder / "train_001.png").read_bytes()[:-3])
    with pytest.raises(DataError, match=r"train_000\.png: the image is truncated"):
        load_labels(data)


def test_progress_is_shown_for_every_image(make_strips, tmp_path):
    """Ten train and test images: the bar must not stop at eight."""
    make_strips(tmp_path)
    seen = []

    def progress(loop, length, title):
        assert (length, title) == (10, "check")
        for item in loop:
            seen.append(item)
            yield item

    inspect(tmp_path, **SETTINGS, progress=progress)

    assert len(seen) == 10


def test_an_interruption_does_not_wait_for_every_image(make_strips, tmp_path, monkeypatch):
    """Ctrl-C in the first of 12,568 images."""
    make_strips(tmp_path, num_train=100, height=4, width=4)
    decoded = []
    whole = simplejpeg.decode_jpeg

    def slow(*arguments, **options):
        time.sleep(0.005)
        decoded.append(1)
        return whole(*arguments, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", slow)

    def progress(loop, _length, _title):
        yield next(iter(loop))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect(tmp_path, **SETTINGS, progress=progress)

    assert 0 < len(decoded) < 100


def plant_copy(root, original, copy, *, masks):
    """Add a training strip flipped left-right, with masks by class_id."""
    image = cv2.imread(str(root / "train_images" / original), cv2.IMREAD_GRAYSCALE)
    assert cv2.imwrite(str(root / "train_images" / copy), image[:, ::-1])
    rows = [f"{copy},{class_id},{rle.encode(mask)}" for class_id, mask in masks.items()]
    append(root / "train.csv", "".join(f"{row}\r\n" for row in rows))


def test_images_that_look_alike_are_remarks_and_no_faults(make_strips, tmp_path):
    """Their masks are compared as the images lie; those that differ come first."""
    masks = make_strips(tmp_path, suffix=".png")
    first, second = masks["train_001.png"][..., ::-1], masks["train_002.png"][..., ::-1]
    shown = {1: first[0], 2: first[1]}
    same = {k: mask for k, mask in shown.items() if mask.any()}
    plant_copy(tmp_path, "train_001.png", "twin.png", masks=same)
    plant_copy(tmp_path, "train_002.png", "wrong.png", masks={1: second[0] | second[1]})

    inspection = inspect(tmp_path, **SETTINGS)

    assert inspection.faults == ()
    assert inspection.groups == {
        "train_001.png": "train_001.png",
        "train_002.png": "train_002.png",
        "twin.png": "train_001.png",
        "wrong.png": "train_002.png",
    }
    differ, agree = inspection.remarks
    assert differ.startswith(
        "train_002.png and wrong.png look alike (flipped left-right), but class 1 differs: "
    )
    assert agree == (
        "train_001.png and twin.png look alike (flipped left-right), with the same masks."
    )
    assert inspection.summary.endswith("2 test images; 4 look alike, in 2 groups")


def test_a_class_without_a_mask_is_a_remark(make_strips, tmp_path):
    """Perhaps the settings count one too many."""
    make_strips(tmp_path)

    remarks = inspect(tmp_path, **{**SETTINGS, "num_classes": 3}).remarks

    assert remarks[0] == "no mask is of class 3, and data.num_classes=3."


def test_remarks_on_equal_masks_end_after_twenty(make_strips, tmp_path):
    """A set that was augmented on disk would fill the screen; conflicts are all named."""
    make_strips(tmp_path, num_train=1, suffix=".png")
    image = tmp_path / "train_images" / "train_000.png"
    for number in range(30):
        shutil.copy(image, image.with_name(f"copy_{number:02d}.png"))

    remarks = [line for line in inspect(tmp_path, **SETTINGS).remarks if "look alike" in line]

    assert len(remarks) == 21
    assert remarks[0] == "copy_00.png and copy_01.png look alike, with the same masks."
    assert remarks[-1] == "10 more pairs look alike, with the same masks."


def test_images_that_look_alike_are_looked_for_if_the_settings_say_so(make_strips, tmp_path):
    """`load_labels` never does, nor are test images compared."""
    make_strips(tmp_path)
    train, test = tmp_path / "train_images", tmp_path / "test_images"
    shutil.copy(train / "train_000.jpg", test / "test_000.jpg")
    assert inspect(tmp_path, **SETTINGS).matches == ()
    shutil.copy(train / "train_000.jpg", train / "copy.jpg")

    assert len(inspect(tmp_path, **SETTINGS).matches) == 1
    assert inspect(tmp_path, **SETTINGS, group_duplicates=False).matches == ()


def test_a_bad_image_is_compared_with_none(make_strips, tmp_path):
    """It is a fault, and not one of the images of the set."""
    make_strips(tmp_path, suffix=".png")
    folder = tmp_path / "train_images"
    content = (folder / "train_000.png").read_bytes()
    (folder / "cut.png").write_bytes(content[:-20])
    cv2.imwrite(str(folder / "wide.png"), np.zeros((32, 97), np.uint8))

    inspection = inspect(tmp_path, **SETTINGS)

    assert len(inspection.faults) == 2
    assert inspection.matches == ()


@pytest.mark.parametrize(
    ("name", "num_classes", "size", "images"),
    [
        ("severstal", 4, (256, 1600), 87),
        ("sd900", 3, (200, 200), 720),
        ("magnetic_tile", 5, (None, None), 1344),
    ],
)
def test_the_real_sets_are_good(shared_data, name, num_classes, size, images):
    """JPEG and PNG, one size and many."""
    inspection = inspect(
        shared_data / name,
        num_classes=num_classes,
        img_height=size[0],
        img_width=size[1],
        channels=1,
    )

    assert inspection.faults == ()
    assert len(inspection.labels.sizes) == images
