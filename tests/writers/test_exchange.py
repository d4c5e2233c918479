import json
import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from steelseg.data.formats import rle
from steelseg.errors import DataError
from steelseg.writers.exchange import (
    coco_record,
    coco_writer,
    components,
    jsonl_record,
    jsonl_writer,
    write_pngs,
)

NAMES = ("scratch", "inclusion")

# Class 1: a component of 4 pixels (two touch at a corner) and one of 2. Class 2 is empty.
MASK_CHW = np.zeros((2, 4, 6), dtype=bool)
MASK_CHW[0, [0, 1, 1, 2], [0, 0, 1, 2]] = True
MASK_CHW[0, 2:, 5] = True
PROBS_CHW = np.where(MASK_CHW, 0.5, 0.25).astype(np.float32)
PROBS_CHW[0, :, 5] = 0.75

small_masks = npst.arrays(bool, st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 6)))


def decode_counts(segmentation):
    """Draw COCO's uncompressed RLE, one count after the other."""
    height, width = segmentation["size"]
    pixels = []
    for position, count in enumerate(segmentation["counts"]):
        pixels += [position % 2 == 1] * count
    assert len(pixels) == height * width
    return np.array(pixels).reshape((height, width), order="F")


def write_coco(path, *masks_chw):
    with coco_writer(path, NAMES) as add:
        for number, mask_chw in enumerate(masks_chw):
            add(f"{number}.jpg", coco_record(mask_chw, mask_chw * 0.5))


def test_coco_annotates_each_component(tmp_path):
    """The worked example: pixels that touch at a corner belong to one component."""
    with coco_writer(tmp_path / "p.json", NAMES) as add:
        add("a.jpg", coco_record(MASK_CHW, PROBS_CHW))

    found = json.loads((tmp_path / "p.json").read_text())
    assert found["categories"] == [{"id": 1, "name": "scratch"}, {"id": 2, "name": "inclusion"}]
    assert found["images"] == [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}]
    corner, edge = sorted(found["annotations"], key=lambda annotation: annotation["bbox"])
    assert corner | {"id": 0} == {
        "id": 0,
        "image_id": 1,
        "category_id": 1,
        "segmentation": {"counts": [0, 2, 3, 1, 4, 1, 13], "size": [4, 6]},
        "bbox": [0, 0, 3, 3],
        "area": 4,
        "score": 0.5,
        "iscrowd": 0,
    }
    assert edge["segmentation"]["counts"] == [22, 2]
    assert (edge["bbox"], edge["area"], edge["score"]) == ([5, 2, 1, 2], 2, 0.75)


@given(masks=st.lists(small_masks, max_size=3))
@settings(max_examples=40, deadline=None)
def test_coco_components_add_up_to_the_masks(masks):
    """Decoded by another route, the annotations of an image and class are its mask."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.json"
        write_coco(path, *masks)
        found = json.loads(path.read_text())

    totals = [np.zeros(mask_chw.shape, dtype=int) for mask_chw in masks]
    for annotation in found["annotations"]:
        part = decode_counts(annotation["segmentation"])
        left, top, width, height = annotation["bbox"]
        assert part[top : top + height, left : left + width].sum() == annotation["area"]
        assert part.sum() == annotation["area"]
        totals[annotation["image_id"] - 1][annotation["category_id"] - 1] += part
    for total, mask_chw in zip(totals, masks, strict=True):
        np.testing.assert_array_equal(total, mask_chw)
    ids = [annotation["id"] for annotation in found["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    assert [image["file_name"] for image in found["images"]] == [
        f"{number}.jpg" for number in range(len(masks))
    ]


def test_coco_annotations_do_not_wait_in_memory(tmp_path):
    """The writer keeps one short record an image, so ten thousand images fit."""
    mask_chw = np.zeros((2, 64, 64), dtype=bool)
    mask_chw[:, ::2, ::2] = True

    with coco_writer(tmp_path / "p.json", NAMES) as add:
        for number in range(3):
            add(f"{number}.jpg", coco_record(mask_chw, mask_chw.astype(np.float32)))
        written = sum(file.stat().st_size for file in tmp_path.iterdir())

    assert written > 100_000


def test_jsonl_has_one_line_an_image_and_one_entry_a_class_present(tmp_path):
    """The worked example; the clean image has a line too, or it would look forgotten."""
    with jsonl_writer(tmp_path / "p.jsonl") as add:
        add("a.jpg", jsonl_record(MASK_CHW, PROBS_CHW, NAMES))
        add("b.jpg", jsonl_record(np.zeros_like(MASK_CHW), PROBS_CHW, NAMES))

    first, second = map(json.loads, (tmp_path / "p.jsonl").read_text().splitlines())
    assert first == {
        "image_id": "a.jpg",
        "height": 4,
        "width": 6,
        "defects": [
            {
                "class_id": 1,
                "class_name": "scratch",
                "rle": "1 2 6 1 11 1 23 2",
                "area": 6,
                "bbox": [0, 0, 6, 4],
                "score": 0.583333,
            }
        ],
    }
    assert second == {"image_id": "b.jpg", "height": 4, "width": 6, "defects": []}


@given(mask_chw=small_masks)
@settings(max_examples=40, deadline=None)
def test_defects_of_a_line_decode_to_the_masks(mask_chw):
    """Class, box and area agree with the decoded mask."""
    found = jsonl_record(mask_chw, mask_chw.astype(np.float32), NAMES)

    total = np.zeros_like(mask_chw)
    for defect in found["defects"]:
        mask = rle.decode(defect["rle"], found["height"], found["width"])
        assert defect["bbox"] == cv2.boundingRect(np.ascontiguousarray(mask, np.uint8))
        assert defect["area"] == mask.sum()
        total[defect["class_id"] - 1] = mask
    np.testing.assert_array_equal(total, mask_chw)


@given(mask_chw=small_masks)
@settings(max_examples=20, deadline=None)
def test_png_masks_read_back_as_they_were(mask_chw):
    """Only classes present have a file; its pixels are 0 and 255."""
    with tempfile.TemporaryDirectory() as folder:
        written = write_pngs(Path(folder), "a.jpg", mask_chw)
        found = {
            path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            for path in Path(folder).iterdir()
        }

    assert sorted(found) == [f"a.jpg_class_{k}.png" for k in (1, 2) if mask_chw[k - 1].any()]
    assert sorted(found) == [path.name for path in written]
    for name, pixels in found.items():
        channel = int(name[-5]) - 1
        np.testing.assert_array_equal(pixels, mask_chw[channel].astype(np.uint8) * 255)


def test_a_png_of_an_earlier_run_does_not_stay(tmp_path):
    """A folder written twice would otherwise show a defect that was not found this time."""
    write_pngs(tmp_path / "masks", "a.jpg", MASK_CHW)
    write_pngs(tmp_path / "masks", "a.jpg", MASK_CHW[::-1])

    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["a.jpg_class_2.png"]


@pytest.mark.parametrize("image_id", ["../a.jpg", "/tmp/a.jpg", "x/../../a.jpg", "", "."])
def test_an_image_id_cannot_lead_out_of_the_folder(tmp_path, image_id):
    """A CSV file names the images, and a CSV file comes from anywhere."""
    with pytest.raises(DataError, match="is not a file name inside"):
        write_pngs(tmp_path / "masks", image_id, MASK_CHW)

    assert list((tmp_path / "masks").iterdir()) == []


def test_an_image_id_may_hold_a_folder(tmp_path):
    """Two lines may number their strips alike."""
    write_pngs(tmp_path, "line_2/a.jpg", MASK_CHW)

    assert (tmp_path / "line_2" / "a.jpg_class_1.png").exists()


@pytest.mark.parametrize(
    ("open_writer", "find"),
    [
        (partial(coco_writer, class_names=NAMES), coco_record),
        (jsonl_writer, partial(jsonl_record, class_names=NAMES)),
    ],
)
def test_an_exception_leaves_the_old_file_alone(tmp_path, open_writer, find):
    """Half a file would pass for a whole one."""
    path = tmp_path / "p.json"
    path.write_text("old")

    def write_half():
        with open_writer(path) as add:
            add("a.jpg", find(MASK_CHW, PROBS_CHW))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()

    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]
    assert path.read_text() == "old"


def test_a_score_does_not_depend_on_how_probabilities_are_stored():
    """Out-of-fold probabilities are uint8; their score is in [0, 1] all the same."""
    mask = MASK_CHW[0]
    stored = np.full(mask.shape, 204, dtype=np.uint8)

    assert {region.score for region in components(mask, stored)} == {0.8}
    assert {region.score for region in components(mask, stored / 255)} == {0.8}


@given(mask_chw=small_masks)
@settings(max_examples=20, deadline=None)
def test_what_was_found_survives_json(mask_chw):
    """It waits in a journal until the files are written."""
    probs_chw = np.where(mask_chw, 1 / 3, 0).astype(np.float32)

    for found in (coco_record(mask_chw, probs_chw), jsonl_record(mask_chw, probs_chw, NAMES)):
        assert json.dumps(json.loads(json.dumps(found))) == json.dumps(found)
