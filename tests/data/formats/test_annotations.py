import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from steelseg.data.crops import Box
from steelseg.data.formats import rle
from steelseg.data.formats.annotations import Labels, Row, parse_rows, read_rows

stacks = npst.arrays(bool, npst.array_shapes(min_dims=3, max_dims=3, max_side=7))


def read(tmp_path, text, num_classes=4):
    path = tmp_path / "train.csv"
    path.write_text(text, encoding="utf-8")
    rows, faults = read_rows(path, num_classes=num_classes)
    return rows, [str(fault).removeprefix(str(tmp_path)) for fault in faults]


def labels_of(mask_chw, image_id="a.jpg"):
    runs = {
        (image_id, class_id): rle.to_runs(mask)
        for class_id, mask in enumerate(mask_chw, start=1)
        if mask.any()
    }
    return Labels(len(mask_chw), {image_id: mask_chw.shape[1:]}, runs)


@pytest.mark.parametrize(
    "text",
    [
        "ImageId_ClassId,EncodedPixels\na_1.jpg_1,\na_1.jpg_2,1 3\n",
        "ImageId,ClassId,EncodedPixels\na_1.jpg,1,\na_1.jpg,2,1 3\n",
        "EncodedPixels,ClassId,ImageId\n,1,a_1.jpg\n1 3,2,a_1.jpg\n",
    ],
)
def test_both_forms_give_the_same_rows(tmp_path, text):
    """An underscore in the name is part of the name."""
    rows, faults = read(tmp_path, text)

    assert rows == [Row(2, "a_1.jpg", 1, ""), Row(3, "a_1.jpg", 2, "1 3")]
    assert faults == []


def test_every_bad_row_is_named_and_the_good_ones_stay(tmp_path):
    """All faults come at once, each with its line."""
    text = (
        "ImageId,ClassId,EncodedPixels\n"
        "a.jpg,1,1 3\n"
        "a.jpg,1\n"
        "a.jpg,5,1 3\n"
        "a.jpg,0,1 3\n"
        "a.jpg,1,7 2\n"
        "x/a.jpg,2,\n"
        "a.jpg,2,\n"
    )

    rows, faults = read(tmp_path, text)

    assert rows == [Row(2, "a.jpg", 1, "1 3"), Row(8, "a.jpg", 2, "")]
    assert faults == [
        "/train.csv:3: the row has 2 cells, the header 3.",
        "/train.csv:4: unknown class '5'; classes are 1 to 4 (data.num_classes).",
        "/train.csv:5: unknown class '0'; classes are 1 to 4 (data.num_classes).",
        "/train.csv:6: a.jpg class 1 is a duplicate of row 2.",
        "/train.csv:7: image id 'x/a.jpg' is not a file name: it must not be empty or a path.",
    ]


@pytest.mark.parametrize(
    "text", ["", "0", "5", "01", "1.0", "+1", "-1", " 1", "1_0", "\u0661", "9" * 5000, "one"]
)
def test_a_class_that_is_not_a_number_of_the_set_is_refused(tmp_path, text):
    """`int` reads some of these; pandas writes 1.0 when a column once held a gap."""
    rows, faults = read(tmp_path, f"ImageId,ClassId,EncodedPixels\na.jpg,{text},1 3\n")

    assert rows == []
    assert len(faults) == 1
    assert faults[0].startswith("/train.csv:2: unknown class '")
    assert len(faults[0]) < 120


def test_a_pair_may_stand_there_once_in_either_form(tmp_path):
    """Two masks of one pair, and an empty one beside a full one, contradict each other."""
    _, faults = read(tmp_path, "ImageId_ClassId,EncodedPixels\na.jpg_1,\nb.jpg_1,\na.jpg_1,1 3\n")

    assert faults == ["/train.csv:4: a.jpg class 1 is a duplicate of row 2."]


def test_a_file_that_cannot_be_read_is_a_fault_of_the_file(tmp_path):
    """`steelseg check` lists it beside the others."""
    rows, faults = read_rows(tmp_path / "train.csv", num_classes=4)

    assert rows == []
    assert [(fault.row, fault.reason) for fault in faults] == [
        (0, "the file cannot be read: No such file or directory.")
    ]


def test_each_mask_is_held_against_its_own_image(tmp_path):
    """Images of one set may differ in size."""
    rows = [Row(2, "a.jpg", 1, "1 12"), Row(3, "b.jpg", 1, "1 12"), Row(4, "b.jpg", 2, "x")]

    labels, faults = parse_rows(
        tmp_path / "train.csv", rows, {"b.jpg": (2, 3), "a.jpg": (3, 4)}, num_classes=2
    )

    assert list(labels.runs) == [("a.jpg", 1)]
    assert [(fault.row, fault.reason[:34]) for fault in faults] == [
        (3, "b.jpg: RLE ends at pixel 12, but t"),
        (4, "b.jpg: RLE 'x' is not a list of wh"),
    ]


def test_a_clean_image_has_a_size_and_no_mask(tmp_path):
    """Without a row, or with empty rows only, an image is clean."""
    rows = [Row(2, "b.jpg", 1, ""), Row(3, "c.jpg", 2, "1 2")]
    sizes = {"c.jpg": (3, 4), "b.jpg": (3, 4), "a.jpg": (3, 4)}

    labels, faults = parse_rows(tmp_path / "train.csv", rows, sizes, num_classes=2)

    assert faults == []
    assert list(labels.sizes) == ["a.jpg", "b.jpg", "c.jpg"]
    assert [labels.class_ids(name) for name in labels.sizes] == [(), (), (2,)]
    assert labels.draw("a.jpg").shape == (2, 3, 4)
    assert not labels.draw("b.jpg").any()


def test_rows_of_unreadable_images_are_left_out(tmp_path):
    """The image is the fault, and `check` names it."""
    labels, faults = parse_rows(
        tmp_path / "train.csv", [Row(2, "a.jpg", 1, "1 99")], {}, num_classes=1
    )

    assert (labels.runs, faults) == ({}, [])


@given(stacks)
def test_masks_are_drawn_as_they_were(mask_chw):
    """Classes may overlap: each has its own channel."""
    labels = labels_of(mask_chw)

    np.testing.assert_array_equal(labels.draw("a.jpg"), mask_chw)
    present = np.flatnonzero(mask_chw.any(axis=(1, 2))) + 1
    assert labels.class_ids("a.jpg") == tuple(present)


@given(stacks, st.data())
def test_a_window_is_a_slice_of_the_whole(mask_chw, data):
    """A crop's mask is what the strip's mask shows there, to the pixel."""
    _, height, width = mask_chw.shape
    top = data.draw(st.integers(0, height - 1))
    left = data.draw(st.integers(0, width - 1))
    box = Box(
        top,
        left,
        data.draw(st.integers(1, height - top)),
        data.draw(st.integers(1, width - left)),
    )

    window = labels_of(mask_chw).draw("a.jpg", box)

    expected = mask_chw[:, top : top + box.height, left : left + box.width]
    np.testing.assert_array_equal(window, expected)


def test_the_real_rows_are_read_without_a_fault(shared_data):
    """5,478 pairs that inspectors drew, on strips of 256x1600."""
    path = shared_data / "severstal_rows" / "train.csv"
    rows, faults = read_rows(path, num_classes=4)
    sizes = {row.image_id: (256, 1600) for row in rows}

    labels, bad_masks = parse_rows(path, rows, sizes, num_classes=4)

    assert (faults, bad_masks) == ([], [])
    assert len(labels.runs) == 5478
