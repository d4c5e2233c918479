import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from steelseg.data import rle
from steelseg.errors import ConfigError, DataError
from steelseg.inference.submission import (
    JOINED,
    SEPARATE,
    SubmissionWriter,
    read_sample,
    read_submission,
)

KAGGLE = ("ImageId", "EncodedPixels", "ClassId")


def write(path, *, columns, masks_nchw, image_ids):
    with SubmissionWriter(path, columns=columns, num_classes=masks_nchw.shape[1]) as writer:
        for image_id, mask_chw in zip(image_ids, masks_nchw, strict=True):
            writer.add(image_id, mask_chw, mask_chw.astype(np.float32))


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
@settings(max_examples=40, deadline=None)
def test_reading_gives_back_what_was_written(masks_nchw, columns, data):
    """Names with commas, quotes and underscores survive too."""
    names = st.text(st.sampled_from('a_1,". '), min_size=1)
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


def test_an_exception_leaves_nothing_behind(tmp_path):
    """A submission of half the images looks like a whole one."""
    mask_chw = np.zeros((2, 3, 4), dtype=bool)

    def write_half():
        with SubmissionWriter(tmp_path / "s.csv", columns=JOINED, num_classes=2) as writer:
            writer.add("a.jpg", mask_chw, mask_chw)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()

    assert list(tmp_path.iterdir()) == []


def test_columns_of_no_form_are_refused(tmp_path):
    """Kaggle would refuse the file after the upload."""
    with pytest.raises(ConfigError, match="columns is 'ImageId,EncodedPixels'"):
        SubmissionWriter(tmp_path / "s.csv", columns=["ImageId", "EncodedPixels"], num_classes=4)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("ImageId_ClassId,EncodedPixels\nb.jpg_1,\nb.jpg_2,\na_1.jpg_1,\n", JOINED),
        ("ImageId,EncodedPixels,ClassId\r\nb.jpg,1 409600,0\r\na_1.jpg,1 409600,0\r\n", KAGGLE),
        ("\ufeffImageId,ClassId,EncodedPixels\nb.jpg,1,\nb.jpg,2,\na_1.jpg,1,\n", SEPARATE),
    ],
)
def test_a_sample_gives_its_form_and_each_image_once(tmp_path, text, form):
    """The order of the file stays, whatever its line ends and byte order mark."""
    (tmp_path / "sample.csv").write_bytes(text.encode())

    sample = read_sample(tmp_path / "sample.csv")

    assert sample.form == form
    assert sample.image_ids == ("b.jpg", "a_1.jpg")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", r"sample\.csv:1: The header is ''"),
        (b"ImageId,EncodedPixels\na.jpg,\n", r"sample\.csv:1: The header is 'ImageId,Enc"),
        (b"ImageId_ClassId,EncodedPixels\n", r"sample\.csv:2: There is no row"),
        (b"ImageId_ClassId,EncodedPixels\na.jpg_1,\nb.jpg,\n", r":3: ImageId_ClassId is 'b\.jpg'"),
        (b"ImageId_ClassId,EncodedPixels\na.jpg_0,\n", r":2: ImageId_ClassId is 'a\.jpg_0'"),
        (b"ImageId_ClassId,EncodedPixels\n_1,\n", r":2: The row names no image"),
        (b"ImageId,EncodedPixels,ClassId\na.jpg,\n", r":2: The row has 2 fields, the header 3"),
        (b"ImageId,EncodedPixels,ClassId\n,,1\n", r":2: The row names no image"),
        (b"ImageId,EncodedPixels,ClassId\na\xff.jpg,,1\n", r"not UTF-8"),
        (b"ImageId,EncodedPixels,ClassId\na.jpg,,1\rb.jpg,,1\rc\n", r":4: The row has 1 fields"),
    ],
)
def test_a_sample_with_a_fault_is_refused_with_its_place(tmp_path, text, fault):
    """`file:row: reason` is what a user can act on."""
    (tmp_path / "sample.csv").write_bytes(text)

    with pytest.raises(DataError, match=fault):
        read_sample(tmp_path / "sample.csv")


def test_a_missing_sample_is_named(tmp_path):
    """A wrong path is the user's to mend, so it is no traceback."""
    with pytest.raises(DataError, match=r"none\.csv: The file cannot be read: No such file"):
        read_sample(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("a.jpg,,1", ":3: Image a.jpg has a second row for class 1"),
        ("a.jpg,,0", ":3: ClassId is '0'"),
        ("a.jpg,,one", ":3: ClassId is 'one'"),
    ],
)
def test_a_submission_with_a_wrong_row_is_refused(tmp_path, row, fault):
    """Of two rows for a pair, only one can be meant."""
    (tmp_path / "s.csv").write_text(f"ImageId,EncodedPixels,ClassId\na.jpg,1 2,1\n{row}\n")

    with pytest.raises(DataError, match=fault):
        read_submission(tmp_path / "s.csv")
