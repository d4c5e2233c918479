import itertools
import json
import os
import pickle
import shutil

import cv2
import numpy as np
import pytest

from steelseg.data.crops import Box, crop_boxes
from steelseg.data.formats.images import list_images, read_image
from steelseg.data.samples.precropped_store import build_store, open_store
from steelseg.errors import DataError


@pytest.fixture
def data(make_strips, tmp_path):
    """Give a data set whose strips differ in size."""
    root = tmp_path / "input"
    make_strips(root, num_train=4, height=32, width=96)
    for number, size in enumerate([(16, 16), (33, 50), (64, 20)]):
        colours = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        assert cv2.imwrite(str(root / "train_images" / f"odd_{number}.png"), colours)
    return root


@pytest.fixture
def folder(data, tmp_path):
    """Give a grey store of the data set."""
    build(tmp_path / "store", data)
    return tmp_path / "store"


def build(folder, root, channels=1, image_ids=None):
    image_ids = image_ids or list_images(root / "train_images")
    build_store(folder, root=root, image_ids=image_ids, channels=channels)


def reopen(folder, root, channels=1):
    image_ids = list_images(root / "train_images")
    return open_store(folder, root=root, image_ids=image_ids, channels=channels)


def rewrite(path, change):
    """Change the content of an index."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_is_the_image_there(data, tmp_path, channels):
    """The store saves time; it must not change a pixel."""
    build(tmp_path / "store", data, channels)
    store = reopen(tmp_path / "store", data, channels)

    for image_id in list_images(data / "train_images"):
        image_hwc = read_image(data / "train_images" / image_id, channels=channels)
        height, width, _ = image_hwc.shape
        boxes = crop_boxes(height, width, crop_height=20, crop_width=30, crop_stride=7)
        for box in [*boxes, Box(0, 0, height, width), Box(height - 1, width - 1, 1, 1)]:
            expected = image_hwc[box.top : box.top + box.height, box.left : box.left + box.width]
            np.testing.assert_array_equal(store.read(image_id, box), expected)


def test_a_window_cannot_be_written(data, folder):
    """A transform in place would change the store for every later epoch."""
    window = reopen(folder, data).read("odd_0.png", Box(0, 0, 16, 16))

    with pytest.raises(ValueError, match="read-only"):
        window[0, 0, 0] = 1


def test_a_store_travels_to_a_worker_process(data, folder):
    """As a path, not as gigabytes of pixels."""
    store = reopen(folder, data)

    packed = pickle.dumps(store)

    assert len(packed) < 5000
    box = Box(2, 3, 5, 7)
    np.testing.assert_array_equal(
        pickle.loads(packed).read("odd_1.png", box), store.read("odd_1.png", box)
    )


def test_each_pixel_is_stored_once(folder):
    """Overlapping crops share their pixels."""
    pixels = 4 * 32 * 96 + 16 * 16 + 33 * 50 + 64 * 20

    assert (folder / "strips.bin").stat().st_size == pixels
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "strips.bin"]


def change_labels(root):
    (root / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n")


def change_image(root):
    cv2.imwrite(str(root / "train_images" / "odd_0.png"), np.zeros((16, 16, 3), np.uint8))


def change_image_but_not_its_size(root):
    path = root / "train_images" / "train_001.jpg"
    path.write_bytes(path.read_bytes()[::-1])


def add_image(root):
    shutil.copy(root / "train_images" / "odd_0.png", root / "train_images" / "new.png")


def remove_image(root):
    (root / "train_images" / "odd_0.png").unlink()


def rename_image(root):
    (root / "train_images" / "odd_0.png").rename(root / "train_images" / "odd_9.png")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (change_labels, "was created from a different .*train.csv"),
        (change_image, "was created before .*odd_0.png changed"),
        (change_image_but_not_its_size, "was created before .*train_001.jpg changed"),
        (add_image, r"other images: new.png is only in one .*\(1 in total\)"),
        (remove_image, r"other images: odd_0.png is only in one .*\(1 in total\)"),
        (rename_image, r"other images: odd_0.png is only in one .*\(2 in total\)"),
    ],
)
def test_a_store_of_other_data_is_refused(data, folder, change, fault):
    """Old pixels under new labels would train, and nobody would know."""
    change(data)

    with pytest.raises(DataError, match=rf"{fault}.* Recreate it with: steelseg precrop CONFIG\."):
        reopen(folder, data)


def test_missing_labels_are_refused(data, folder, tmp_path):
    """The labels are half of what the store stands for."""
    (data / "train.csv").unlink()

    with pytest.raises(DataError, match=r"train\.csv cannot be read: No such file"):
        reopen(folder, data)
    with pytest.raises(DataError, match=r"train\.csv cannot be read: No such file"):
        build(tmp_path / "other", data)


@pytest.mark.parametrize(("made", "asked"), [(1, 3), (3, 1)])
def test_a_store_of_other_channels_is_refused(data, tmp_path, made, asked):
    """Its strides would not fit."""
    build(tmp_path / "store", data, made)

    with pytest.raises(DataError, match=rf"was created with data.channels={made}, not {asked}\."):
        reopen(tmp_path / "store", data, asked)


def test_a_new_time_alone_is_no_change(data, folder):
    """A copied or unpacked data set has new times and the same images."""
    for path in (data / "train_images").iterdir():
        os.utime(path, ns=(1, 1))

    assert reopen(folder, data).read("odd_0.png", Box(0, 0, 16, 16)).shape == (16, 16, 1)


@pytest.mark.parametrize("length", [0, 1000, None])
def test_a_truncated_store_is_refused(data, folder, length):
    """A full disk ends a copy in the middle."""
    path = folder / "strips.bin"
    if length is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(DataError, match=r"strips\.bin does not have the size in its index"):
        reopen(folder, data)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b"{}",
        b'"format"',
        b'{"format": 1}',
        b'{"format": 1, "channels": 1, "train_csv": "", "bytes": 0, "strips": [{}]}',
        b'{"format": 1, "channels": 1, "train_csv": "", "bytes": 0, "strips": [1]}',
        b'{"format": 1, "channels": 1, "train_csv": "", "bytes": 0, "strips": 1}',
        b'{"format": 1, "channels": 1, "train_csv": "", "bytes": 5, "strips": []}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_index_is_refused(data, folder, content):
    """Whatever stands there, it is no traceback."""
    (folder / "index.json").write_bytes(content)

    with pytest.raises(DataError, match=r"index\.json is damaged\. Recreate the store with"):
        reopen(folder, data)


@pytest.mark.parametrize("name", ["offset", "height", "width"])
def test_an_index_with_a_wrong_number_is_refused(data, folder, name):
    """The strips lie one behind the other, so any other place is an error."""
    rewrite(folder / "index.json", lambda index: index["strips"][2].update({name: 31}))

    with pytest.raises(DataError, match=r"index\.json is damaged"):
        reopen(folder, data)


def test_an_index_of_another_version_is_refused(data, folder):
    """A later version may lay strips out otherwise."""
    rewrite(folder / "index.json", lambda index: index.update(format=2, strips=None))

    with pytest.raises(DataError, match=r"index\.json has a different format version"):
        reopen(folder, data)


def test_a_missing_store_says_how_to_make_it(data, tmp_path):
    """`data.mode=precropped` without `steelseg precrop` before it."""
    with pytest.raises(DataError, match=r"no precropped store in .*: steelseg precrop CONFIG\."):
        reopen(tmp_path / "none", data)


def test_a_build_that_fails_leaves_no_store(data, folder):
    """Not even the old one: it was created from data that no longer exist."""
    (data / "train_images" / "train_003.jpg").write_text("no image")

    with pytest.raises(DataError, match=r"train_003\.jpg: the file is not a "):
        build(folder, data)

    assert not (folder / "index.json").exists()
    assert not [path for path in folder.iterdir() if path.name.endswith(".partial")]
    with pytest.raises(DataError, match="There is no precropped store"):
        reopen(folder, data)


def test_a_killed_build_leaves_no_store(data, folder):
    """The new strips are there, the index is not: together they would pass for a store."""

    def progress(loop, _length, _title):
        yield from itertools.islice(loop, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(
            folder,
            root=data,
            image_ids=list_images(data / "train_images"),
            channels=1,
            progress=progress,
        )

    with pytest.raises(DataError, match="There is no precropped store"):
        reopen(folder, data)


def test_a_store_can_be_made_again(data, folder):
    """With new settings in the old folder."""
    add_image(data)

    build(folder, data, channels=3)

    assert reopen(folder, data, channels=3).read("new.png", Box(0, 0, 4, 5)).shape == (4, 5, 3)


def test_a_store_of_no_images_is_refused(data, folder):
    """An empty file cannot be mapped; the store that is there stays."""
    with pytest.raises(DataError, match="train_images contains no images to store"):
        build_store(folder, root=data, image_ids=[], channels=1)

    assert reopen(folder, data)


def test_real_strips_come_back_to_the_bit(shared_data, tmp_path):
    """Six crops of the first strips, as training reads them."""
    root = shared_data / "severstal"
    image_ids = list_images(root / "train_images")[:5]
    build(tmp_path, root, image_ids=image_ids)
    store = open_store(tmp_path, root=root, image_ids=image_ids, channels=1)

    for image_id in image_ids:
        image_hwc = read_image(root / "train_images" / image_id, channels=1)
        for box in crop_boxes(256, 1600, crop_height=256, crop_width=512, crop_stride=256):
            expected = image_hwc[:, box.left : box.left + 512]
            np.testing.assert_array_equal(store.read(image_id, box), expected)
