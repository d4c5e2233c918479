import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from steelseg.data.formats import rle
from steelseg.data.formats.annotations import read_rows
from steelseg.data.formats.mask_csv import JOINED, SEPARATE, name_cells, read_table
from steelseg.errors import ConfigError
from steelseg.writers.submission import csv_record, submission_writer

KAGGLE = ("ImageId", "EncodedPixels", "ClassId")


def write(path, *, columns, masks_nchw, image_ids):
    with submission_writer(path, columns=columns) as add:
        for image_id, mask_chw in zip(image_ids, masks_nchw, strict=True):
            add(image_id, csv_record(mask_chw))


def read_submission(path):
    """Read `rle` of each (image_id, class_id), in the order of the file."""
    table = read_table(path)
    cells = [name_cells(table.form, row) for _, row in table.rows]
    rle_by_pair = {(cell.image_id, int(cell.class_text)): cell.rle for cell in cells}
    assert len(rle_by_pair) == len(cells)
    return rle_by_pair


def test_the_first_form_joins_image_and_class(tmp_path):
    """Every pair has a row, also the empty ones: the score is a mean over all pairs."""
    masks_nchw = np.zeros((2, 2, 3, 4), dtype=bool)
    masks_nchw[0, 1, 1:, 2] = True

    write(tmp_path / "s.csv", columns=JOINED, masks_nchw=masks_nchw, image_ids=["a.jpg", "b.jpg"])

    assert (tmp_path / "s.csv").read_bytes() == (
        b"ImageId_ClassId,EncodedPixels\na.jpg_1,\na.jpg_2,8 2\nb.jpg_1,\nb.jpg_2,\n"
    )


def test_the_second_form_keeps_the_column_order_of_the_sample(tmp_path):
    """Kaggle's file puts ClassId last; another order would not be the sample's header."""
    masks_nchw = np.zeros((1, 2, 3, 4), dtype=bool)
    masks_nchw[0, 0, 0, 0] = True

    write(tmp_path / "s.csv", columns=KAGGLE, masks_nchw=masks_nchw, image_ids=["a.jpg"])

    assert (tmp_path / "s.csv").read_text() == (
        "ImageId,EncodedPixels,ClassId\na.jpg,1 1,1\na.jpg,,2\n"
    )


@given(
    masks_nchw=npst.arrays(bool, npst.array_shapes(min_dims=4, max_dims=4, max_side=6)),
    columns=st.sampled_from([JOINED, SEPARATE, KAGGLE]),
    data=st.data(),
)
@settings(max_examples=40)
def test_reading_gives_back_what_was_written(masks_nchw, columns, data):
    """Names with commas, quotes and underscores survive too."""
    names = st.text(st.sampled_from('a_1,". '), min_size=1).filter(lambda name: name.strip("."))
    images, classes, height, width = masks_nchw.shape
    image_ids = data.draw(st.lists(names, min_size=images, max_size=images, unique=True))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.csv"
        write(path, columns=columns, masks_nchw=masks_nchw, image_ids=image_ids)
        found = read_submission(path)

    assert list(found) == [(i, k) for i in image_ids for k in range(1, classes + 1)]
    decoded = np.stack([rle.decode(text, height, width) for text in found.values()])
    np.testing.assert_array_equal(decoded.reshape(masks_nchw.shape), masks_nchw)


def test_a_mask_of_noise_can_be_read_back(tmp_path):
    """Its RLE is longer than the 131,072 letters that the csv module takes by default."""
    masks_nchw = np.random.default_rng(0).random((1, 1, 256, 400)) < 0.5

    write(tmp_path / "s.csv", columns=JOINED, masks_nchw=masks_nchw, image_ids=["a.jpg"])
    found = read_submission(tmp_path / "s.csv")["a.jpg", 1]

    assert len(found) > 131_072
    assert found == rle.encode(masks_nchw[0, 0])


@pytest.mark.parametrize("columns", [JOINED, JOINED[::-1], SEPARATE, KAGGLE])
def test_a_submission_can_be_trained_on(tmp_path, columns):
    """Labels and submissions are written alike, so pseudo-labels need no conversion."""
    masks_nchw = np.random.default_rng(0).random((2, 3, 5, 4)) < 0.3

    write(tmp_path / "s.csv", columns=columns, masks_nchw=masks_nchw, image_ids=["a.jpg", "b.jpg"])
    rows, faults = read_rows(tmp_path / "s.csv", num_classes=3)

    assert faults == []
    assert [(row.image_id, row.class_id) for row in rows] == [
        (image_id, class_id) for image_id in ("a.jpg", "b.jpg") for class_id in (1, 2, 3)
    ]
    assert [row.rle for row in rows] == [rle.encode(mask) for mask in masks_nchw.reshape(6, 5, 4)]


def test_an_exception_leaves_nothing_behind(tmp_path):
    """A submission of half the images looks like a whole one."""
    mask_chw = np.zeros((2, 3, 4), dtype=bool)

    def write_half():
        with submission_writer(tmp_path / "s.csv", columns=JOINED) as add:
            add("a.jpg", csv_record(mask_chw))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [(), ("ImageId", "EncodedPixels"), (*SEPARATE, "Score")])
def test_columns_of_no_form_are_refused(tmp_path, columns):
    """Kaggle would refuse the file after the upload."""
    with (
        pytest.raises(ConfigError, match=f"columns is '{','.join(columns)}'. A submission has"),
        submission_writer(tmp_path / "s.csv", columns=columns),
    ):
        pass

    assert list(tmp_path.iterdir()) == []
