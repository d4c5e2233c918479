import pytest

from steelseg.data.formats.mask_csv import JOINED, SEPARATE
from steelseg.data.formats.sample_submission import inspect_sample, read_sample
from steelseg.errors import DataError

KAGGLE = ("ImageId", "EncodedPixels", "ClassId")


@pytest.mark.parametrize(
    ("text", "form", "lines"),
    [
        (
            "ImageId_ClassId,EncodedPixels\nb.jpg_1,\nb.jpg_2,\na_1.jpg_1,\n",
            JOINED,
            {"b.jpg": 2, "a_1.jpg": 4},
        ),
        (
            "ImageId,EncodedPixels,ClassId\r\nb.jpg,1 409600,0\r\na_1.jpg,1 409600,0\r\n",
            KAGGLE,
            {"b.jpg": 2, "a_1.jpg": 3},
        ),
        (
            "\ufeffImageId,ClassId,EncodedPixels\nb.jpg,1,\nb.jpg,2,\na_1.jpg,1,\n",
            SEPARATE,
            {"b.jpg": 2, "a_1.jpg": 4},
        ),
    ],
)
def test_a_sample_gives_its_form_and_each_image_once(tmp_path, text, form, lines):
    """The order of the file stays, whatever its line ends and byte order mark."""
    (tmp_path / "sample.csv").write_bytes(text.encode())

    sample = read_sample(tmp_path / "sample.csv")

    assert sample.form == form
    assert list(sample.lines.items()) == list(lines.items())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", r"sample\.csv: the columns are ''"),
        (b"ImageId,EncodedPixels\na.jpg,\n", r"sample\.csv: the columns are 'ImageId,Enc"),
        (b"ImageId_ClassId,EncodedPixels\n", r"sample\.csv: the file has no rows"),
        (b"ImageId_ClassId,EncodedPixels\na.jpg_1,\nb_c.jpg,\n", r"\.csv:3: 'b_c\.jpg' is not an"),
        (b"ImageId_ClassId,EncodedPixels\n_1,\n", r"\.csv:2: image id '' is not a file name"),
        (b"ImageId,EncodedPixels,ClassId\na.jpg,\n", r"\.csv:2: the row has 2 cells"),
        (b"ImageId,EncodedPixels,ClassId\n,,1\n", r"\.csv:2: image id '' is not a file name"),
        (b"ImageId,EncodedPixels,ClassId\na\xff.jpg,,1\n", r"sample\.csv: .* not UTF-8"),
        (b"ImageId,EncodedPixels,ClassId\na.jpg,,1\rb.jpg,,1\rc\n", r":4: the row has 1 cells"),
    ],
)
def test_a_sample_with_a_fault_is_refused_with_its_place(tmp_path, text, fault):
    """`file:row: reason` is what a user can act on."""
    (tmp_path / "sample.csv").write_bytes(text)

    with pytest.raises(DataError, match=fault):
        read_sample(tmp_path / "sample.csv")


def test_every_fault_of_a_sample_comes_at_once(tmp_path):
    """Mending one row to meet the next wrong one wastes an afternoon; good rows stay."""
    path = tmp_path / "sample.csv"
    path.write_text("ImageId,EncodedPixels,ClassId\na.jpg\nb.jpg,,1\nx/c.jpg,,1\n")

    sample, faults = inspect_sample(path)

    assert sample.lines == {"b.jpg": 3}
    assert [fault.row for fault in faults] == [2, 4]
    with pytest.raises(DataError, match=r"sample\.csv:2: .*\n.*sample\.csv:4: "):
        read_sample(path)


def test_a_missing_sample_is_named(tmp_path):
    """A wrong path is the user's to mend, so it is no traceback."""
    with pytest.raises(DataError, match=r"none\.csv: the file cannot be read: No such file"):
        read_sample(tmp_path / "none.csv")


def test_the_real_sample_is_read(shared_data):
    """Severstal's own file has ClassId last and asks for class 0."""
    sample = read_sample(shared_data / "severstal" / "sample_submission.csv")

    assert sample.form == KAGGLE
    assert len(sample.lines) == 34
    assert next(iter(sample.lines.items())) == ("0000f269f.jpg", 2)
