import pytest

from torture.csv_oracle import judge

SIZES = {"a.png": 24}


def bad_lines(rows, *, header="ImageId,ClassId,EncodedPixels"):
    return judge(f"{header}\n{rows}".encode(), SIZES, 2)[0]


@pytest.mark.parametrize(
    "rle",
    ["0 1", "1 0", "1", "1 2 3 1", "5 1 1 1", "24 2", "01 1", "1  1", "+1 1", "\u0661 1", " 1 1"],
)
def test_the_oracle_finds_every_broken_rule_of_a_mask(rle):
    """Start, length, count, touching, order, end, zeros, spaces, signs, digits."""
    assert bad_lines(f"a.png,1,{rle}\na.png,2,1 2 4 21\n") == {2}


@pytest.mark.parametrize(
    "row", ["b.png,1,", "../a.png,1,", "a.png,3,", "a.png,01,", "a.png,2,1 1", "a.png,1", ",,", "x"]
)
def test_the_oracle_finds_every_broken_rule_of_a_row(row):
    """Image, path, class, a pair that was there, cells."""
    assert bad_lines(f"a.png,2,1 1\n\n{row}\n") == {4}


def test_the_oracle_gives_the_pixels_of_a_mask():
    """By image and class, counted from 1, whatever the form and the quotes."""
    content = b'\xef\xbb\xbfEncodedPixels,ImageId_ClassId\r\n"1 2 5 1",a.png_2\r\n'

    assert judge(content, SIZES, 2) == (set(), {("a.png", 2): {1, 2, 5}})


@pytest.mark.parametrize("content", [b"", b"\xff", b"a,b\n", b'ImageId,"ClassId,EncodedPixels\n'])
def test_the_oracle_refuses_what_is_no_table(content):
    """As a whole, without a line."""
    assert judge(content, SIZES, 2) == ({0}, {})
