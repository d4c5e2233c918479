import cv2
import numpy as np
import pytest

from steelseg.data.formats import rle
from steelseg.errors import CheckpointError, DataError
from steelseg.reporting.dataset import read_statistics


def write(root, images, masks):
    """Write grey images by (image_id, size), and train.csv by (image_id, class_id, pixels)."""
    (root / "train_images").mkdir(parents=True)
    for image_id, (height, width) in images.items():
        cv2.imwrite(str(root / "train_images" / image_id), np.zeros((height, width), np.uint8))
    rows = ["ImageId,ClassId,EncodedPixels"]
    for image_id, class_id, pixels in masks:
        mask = np.arange(np.prod(images[image_id])).reshape(images[image_id]) < pixels
        rows.append(f"{image_id},{class_id},{rle.encode(mask)}")
    (root / "train.csv").write_text("\n".join(rows) + "\n")


def test_strips_classes_and_areas_are_counted(tmp_path, make_config):
    """Four strips: a clean one, one with both classes, two with class 1."""
    images = dict.fromkeys(["a.png", "b.png", "c.png", "d.png"], (10, 20))
    masks = [("b.png", 1, 10), ("b.png", 2, 7), ("c.png", 1, 20), ("d.png", 1, 60)]
    write(tmp_path, images, masks)
    config = make_config(tmp_path, "data.img_height=10", "data.img_width=20")

    facts = read_statistics(config.data, "steelseg report RUN")

    assert (facts.strips, facts.clean, facts.with_several) == (4, 1, 1)
    assert facts.pixels == 800
    assert [(one.strips, one.pixels) for one in facts.classes] == [(3, 90), (1, 7)]
    assert facts.classes[0].areas == (10, 15, 20, 40, 60)
    assert facts.sizes == ((10, 20, 4),)


def test_images_of_many_sizes_are_measured(tmp_path, make_config):
    """Where the settings fix none; the commonest size comes first."""
    images = {"a.png": (8, 9), "b.png": (8, 9), "c.jpg": (30, 4)}
    write(tmp_path, images, [("c.jpg", 2, 100)])
    config = make_config(tmp_path, "data.img_height=null", "data.img_width=null")

    facts = read_statistics(config.data, "steelseg report RUN")

    assert facts.sizes == ((8, 9, 2), (30, 4, 1))
    assert (facts.heights, facts.widths) == ((8, 30), (4, 9))
    assert facts.classes[0].areas is None


def test_a_data_set_that_has_moved_is_asked_for(tmp_path, make_config):
    """The page is written all the same."""
    config = make_config(tmp_path / "gone")

    with pytest.raises(CheckpointError, match=r"steelseg report RUN data.root=FOLDER"):
        read_statistics(config.data, "steelseg report RUN")


def test_a_fault_of_the_data_set_is_an_error(tmp_path, make_config):
    """Counts over half of the labels would be wrong."""
    write(tmp_path, {"a.png": (32, 96)}, [])
    with (tmp_path / "train.csv").open("a") as file:
        file.write("a.png,1,5 0\n")

    with pytest.raises(DataError, match=r"train.csv:2: a.png: RLE run 1 has length 0"):
        read_statistics(make_config(tmp_path).data, "steelseg report RUN")
