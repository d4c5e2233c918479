import contextlib
import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.data.formats.mask_csv import JOINED, SEPARATE, Cells, is_form, name_cells, read_table
from steelseg.errors import DataError

KAGGLE = ("ImageId", "EncodedPixels", "ClassId")


def read(tmp_path, content):
    path = tmp_path / "masks.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path)


@pytest.mark.parametrize(
    ("columns", "cells"),
    [
        (JOINED, ["a_1.jpg_2", "1 3"]),
        (JOINED[::-1], ["1 3", "a_1.jpg_2"]),
        (SEPARATE, ["a_1.jpg", "2", "1 3"]),
        (KAGGLE, ["a_1.jpg", "1 3", "2"]),
    ],
)
def test_a_row_reads_the_same_in_every_form(tmp_path, columns, cells):
    """Kaggle has published both forms, and the second in two orders."""
    table = read(tmp_path, f"{','.join(columns)}\n{','.join(cells)}\n")

    assert table.form == columns
    assert table.rows == ((2, cells),)
    assert name_cells(table.form, table.rows[0][1]) == Cells("a_1.jpg", "2", "1 3")


@pytest.mark.parametrize(
    "columns", [(), ("ImageId",), ("ImageId", "EncodedPixels"), (*SEPARATE, "x"), JOINED + SEPARATE]
)
def test_other_columns_are_no_form(columns):
    """A column too many could hold anything."""
    assert not is_form(columns)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfImageId,ClassId,EncodedPixels\na.jpg,1,1 3\n",
        b"ImageId,ClassId,EncodedPixels\r\na.jpg,1,1 3\r\n",
        b"ImageId,ClassId,EncodedPixels\ra.jpg,1,1 3",
        b'"ImageId","ClassId","EncodedPixels"\n"a.jpg","1","1 3"\n',
    ],
)
def test_what_spreadsheets_save_is_read(tmp_path, content):
    """A byte order mark, other line ends and quotes do not change the table."""
    table = read(tmp_path, content)

    assert table.form == SEPARATE
    assert table.rows == ((2, ["a.jpg", "1", "1 3"]),)


def test_a_row_is_named_by_the_line_on_which_it_begins(tmp_path):
    """Blank lines and quoted line ends move rows; an editor shows lines."""
    text = 'ImageId,ClassId,EncodedPixels\n\na.jpg,1,"1\n3"\nb.jpg,1,\n\n'

    table = read(tmp_path, text)

    assert [line for line, _ in table.rows] == [3, 5]


def test_a_long_cell_is_read_and_the_limit_put_back(tmp_path):
    """The csv module stops at 131,072 letters by default; other readers keep that."""
    limit = csv.field_size_limit()
    mask = "1 1 " * 50_000

    table = read(tmp_path, f"ImageId,ClassId,EncodedPixels\na.jpg,1,{mask}\n")

    assert table.rows[0][1][2] == mask
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "the columns are ''. Expected ImageId,ClassId,EncodedPixels or ImageId_ClassId,Enc"),
        (b"\nImageId,ClassId,EncodedPixels\n", "the columns are ''"),
        (b"a.jpg,1,1 3\n", "the columns are 'a.jpg,1,1 3'"),
        (b"ImageId;ClassId;EncodedPixels\n", "the columns are 'ImageId;ClassId;EncodedPixels'"),
        (b"ImageId, ClassId, EncodedPixels\n", "the columns are"),
        (b"imageid,classid,encodedpixels\n", "the columns are"),
        (b"ImageId,ImageId,EncodedPixels\n", "the columns are"),
        (b"Image\nId,ClassId,EncodedPixels\n", "the columns are 'Image'"),
        (b'ImageId,ClassId,EncodedPixels\nb\n"a.jpg,1,\nc\nd\n', "starts on line 3 is not CSV"),
        (b'ImageId,ClassId,EncodedPixels\n"a.jpg"x,1,\n', "starts on line 2 is not CSV"),
        (b"ImageId,ClassId,EncodedPixels\n\xff.jpg,1,\n", "the file is not UTF-8 text"),
        ("ImageId,ClassId,EncodedPixels\n".encode("utf-16"), "the file is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_mask_csv_is_refused(tmp_path, content, fault):
    """A cell with an open quote would swallow the rows behind it."""
    with pytest.raises(DataError, match=fault) as refusal:
        read(tmp_path, content)

    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    """Both are the user's to mend, so neither is a traceback."""
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("form", "cells", "fault"),
    [
        (SEPARATE, ["a.jpg", "1"], "the row has 2 cells, the header 3"),
        (SEPARATE, ["a.jpg", "1", "", ""], "the row has 4 cells, the header 3"),
        (JOINED, ["a.jpg_1"], "the row has 1 cells, the header 2"),
        (JOINED, ["a.jpg", ""], "'a.jpg' is not an ImageId_ClassId such as 0002cc93b.jpg_1"),
        (JOINED, ["a_b.jpg", ""], "'a_b.jpg' is not an ImageId_ClassId"),
        (JOINED, ["a.jpg_", ""], "'a.jpg_' is not an ImageId_ClassId"),
        (JOINED, ["a.jpg_-1", ""], "is not an ImageId_ClassId"),
        (JOINED, ["a.jpg_\u0661", ""], "is not an ImageId_ClassId"),
        (JOINED, ["", ""], "'' is not an ImageId_ClassId"),
        (JOINED, ["_1", ""], "image id '' is not a file name"),
        (SEPARATE, ["", "1", ""], "image id '' is not a file name"),
        (SEPARATE, ["../a.jpg", "1", ""], "'../a.jpg' is not a file name"),
        (SEPARATE, ["/a.jpg", "1", ""], "is not a file name"),
        (SEPARATE, ["b\\a.jpg", "1", ""], "is not a file name"),
        (SEPARATE, ["..", "1", ""], "is not a file name"),
        (SEPARATE, ["a\x00.jpg", "1", ""], "is not a file name"),
        (SEPARATE, ["a\n.jpg", "1", ""], "is not a file name"),
        (JOINED, ["a\n.jpg_1", ""], "is not a file name"),
        (JOINED, ["x/a.jpg_1", ""], "is not a file name"),
    ],
)
def test_a_row_that_does_not_hold_together_is_refused(form, cells, fault):
    """An image id becomes a path below the image folder, so it must not lead out of it."""
    with pytest.raises(DataError, match=fault) as refusal:
        name_cells(form, cells)

    assert "\n" not in str(refusal.value)


def test_a_nul_byte_does_not_stop_the_reading(tmp_path):
    """It is one bad row, named like any other."""
    table = read(tmp_path, b"ImageId,ClassId,EncodedPixels\na\x00.jpg,1,\nb.jpg,1,\n")

    with pytest.raises(DataError, match="is not a file name"):
        name_cells(table.form, table.rows[0][1])
    assert name_cells(table.form, table.rows[1][1]).image_id == "b.jpg"


@given(st.binary(max_size=200), st.sampled_from([JOINED, SEPARATE, KAGGLE]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, form):
    """Whatever is in the file, nothing but DataError leaves the module."""
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(",".join(form).encode() + b"\n" + content)

    with contextlib.suppress(DataError):
        for _, cells in read_table(path).rows:
            with contextlib.suppress(DataError):
                assert name_cells(form, cells).image_id
