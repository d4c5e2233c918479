import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from steelseg.data.formats import rle
from steelseg.errors import DataError

masks = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@st.composite
def canonical(draw):
    """Draw a canonical string and the least number of pixels that holds it."""
    pairs = draw(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=8))
    numbers, end = [], draw(st.integers(0, 1)) - 1
    for gap, length in pairs:
        start = end + 1 + gap
        numbers += [start, length]
        end = start + length - 1
    return " ".join(map(str, numbers)), max(end, 1)


def decode_by_hand(text, height, width):
    """Visit every pixel of every run, with nothing but the format's definition."""
    mask = np.zeros((height, width), dtype=bool)
    numbers = [int(word) for word in text.split()]
    for start, length in zip(numbers[0::2], numbers[1::2], strict=True):
        for pixel in range(start, start + length):
            mask[(pixel - 1) % height, (pixel - 1) // height] = True
    return mask


def test_the_example_of_the_format():
    """Pixels 1, 2, 3 and 10, 11 of a 4x3 image: down first, then right, counted from 1."""
    mask = rle.decode("1 3 10 2", height=4, width=3)

    assert mask.astype(int).tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert rle.encode(mask) == "1 3 10 2"


def test_runs_are_counted_from_0():
    """In memory the first pixel is 0, as for an array."""
    assert rle.parse("1 3 10 2", pixels=12).tolist() == [[0, 3], [9, 2]]


def test_the_empty_string_is_the_empty_mask():
    """A clean image has no runs, neither in the file nor in memory."""
    assert rle.parse("", pixels=6).shape == (0, 2)
    assert not rle.decode("", height=2, width=3).any()
    assert rle.encode(np.zeros((2, 3), dtype=bool)) == ""


def test_a_full_mask_is_one_run():
    """A run goes on from the bottom of a column to the top of the next."""
    assert rle.encode(np.ones((256, 1600), dtype=bool)) == "1 409600"
    assert rle.decode("1 409600", height=256, width=1600).all()


@pytest.mark.parametrize("pixels", [1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 512])
def test_runs_end_where_the_words_do(pixels):
    """`to_runs` looks at 64 pixels at a time: a run may end in any, or go on over several."""
    for start in range(pixels):
        for end in {start + 1, (start + pixels + 1) // 2, pixels} - {start}:
            mask = np.zeros((pixels, 1), dtype=bool)
            mask[start:end] = True

            assert rle.to_runs(mask).tolist() == [[start, end - start]]


@given(masks)
def test_a_mask_comes_back_from_its_string(mask):
    """Nothing is lost, whatever the mask."""
    text = rle.encode(mask)

    np.testing.assert_array_equal(rle.decode(text, *mask.shape), mask)
    np.testing.assert_array_equal(decode_by_hand(text, *mask.shape), mask)


@given(canonical(), st.integers(1, 12))
def test_a_canonical_string_comes_back_from_its_mask(drawn, height):
    """So files can be compared byte by byte."""
    text, pixels = drawn
    width = -(-pixels // height)

    mask = rle.decode(text, height, width)

    assert rle.encode(mask) == text
    np.testing.assert_array_equal(mask, decode_by_hand(text, height, width))


@given(canonical())
def test_runs_come_back_from_their_string(drawn):
    """`join` is the inverse of `parse`, without a mask in between."""
    text, pixels = drawn

    assert rle.join(rle.parse(text, pixels)) == text


@given(st.lists(st.tuples(st.integers(0, 2**31 - 2), st.integers(1, 2**31 - 1)), max_size=3))
def test_numbers_are_written_as_python_does(pairs):
    """`join` writes three digits at a time: zeros inside a number stay, those in front do not."""
    runs = np.array(pairs, dtype=np.int32).reshape(-1, 2)

    assert rle.join(runs) == " ".join(f"{start + 1} {length}" for start, length in pairs)


@given(st.lists(st.integers(0, 14), max_size=6).map(lambda numbers: " ".join(map(str, numbers))))
def test_nothing_but_canonical_runs_is_read(text):
    """What is refused is found quickly and explained slowly; the two must agree."""
    numbers = [int(word) for word in text.split()]
    starts, lengths = numbers[0::2], numbers[1::2]
    ends = [0, *(start + length for start, length in zip(starts, lengths, strict=False))]
    canonical = (
        len(numbers) % 2 == 0
        and all(length > 0 for length in lengths)
        and all(start > end for start, end in zip(starts, ends, strict=False))
        and ends[-1] <= 13
    )

    if canonical:
        np.testing.assert_array_equal(rle.decode(text, 4, 3), decode_by_hand(text, 4, 3))
        assert rle.join(rle.parse(text, pixels=12)) == text
    else:
        for read in (lambda: rle.parse(text, pixels=12), lambda: rle.decode(text, 4, 3)):
            with pytest.raises(DataError, match=r"^RLE (run \d|has \d|ends at pixel \d)"):
                read()


@given(masks, st.data())
def test_a_window_is_a_slice_of_the_whole(mask, data):
    """Crops draw their own columns only, whatever runs begin before or end behind them."""
    height, full_width = mask.shape
    left = data.draw(st.integers(0, full_width))
    width = data.draw(st.integers(0, full_width - left))

    window = rle.to_mask(rle.to_runs(mask), height, width, left)

    np.testing.assert_array_equal(window, mask[:, left : left + width])


@given(masks)
def test_the_order_in_memory_does_not_matter(mask):
    """Masks come row-major from a network and column-major from `decode`."""
    assert rle.encode(np.asfortranarray(mask)) == rle.encode(np.ascontiguousarray(mask))
    assert rle.encode(mask[::-1, ::-1]) == rle.encode(mask[::-1, ::-1].copy())


def test_any_value_but_zero_counts():
    """Masks from image files hold 255."""
    assert rle.encode(np.array([[0, 255], [7, 0]], dtype=np.uint8)) == "2 2"


def test_a_mask_has_two_axes():
    """A stack of masks must not pass for one."""
    with pytest.raises(DataError, match=r"two axes \(height, width\), got shape \(2, 3, 4\)"):
        rle.encode(np.zeros((2, 3, 4), dtype=bool))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1 3 10", "RLE has 3 numbers, an odd count"),
        ("5", "RLE has 1 numbers, an odd count"),
        ("0 3", "RLE run 1 starts at 0. Pixels are counted from 1"),
        ("1 2 0 3", "RLE run 2 starts at 0"),
        ("1 0", "RLE run 1 has length 0"),
        ("1 2 5 0", "RLE run 2 has length 0"),
        ("12 2", "RLE ends at pixel 13, but the image has 12"),
        ("13 1", "RLE ends at pixel 13, but the image has 12"),
        ("999999999 999999999", "RLE ends at pixel 1999999997, but the image has 12"),
        ("1 3 3 2", "RLE run 2 overlaps the previous run, which ends at pixel 3"),
        ("2 3 2 3", "RLE run 2 overlaps"),
        ("1 3 4 2", "RLE run 2 touches the previous run"),
        ("8 2 1 3", "RLE run 2 starts at 1, before the previous run"),
        ("1 1 9 1 5 2", "RLE run 3 starts at 5, before the previous run"),
    ],
)
def test_runs_that_break_a_rule_are_refused(text, fault):
    """Each of these decodes to some mask, but not to the one that was meant."""
    with pytest.raises(DataError, match=fault):
        rle.parse(text, pixels=12)


@pytest.mark.parametrize(
    "text",
    [
        "1  3",
        " 1 3",
        "1 3 ",
        "1 3\n",
        "1\t3",
        "1,3",
        "1 -3",
        "-1",
        "1 +3",
        "1 3.0",
        "1 3e1",
        "1_0 3",
        "0x1 3",
        "01 3",
        "1 03",
        "00 3",
        "one 3",
        "nan",
        "1 \u0663",
        "1 \uff13",
        "1\u00a03",
        "1 3\x00",
        "1000000000 1",
        "1 18446744073709551617",
        "1 " + "9" * 5000,
    ],
)
def test_text_that_is_no_list_of_numbers_is_refused(text):
    """`int` and numpy read many of these; 2**64 + 1 would even wrap round to 1."""
    with pytest.raises(DataError, match="is not a list of whole numbers") as refusal:
        rle.parse(text, pixels=12)

    assert len(str(refusal.value)) < 250
    assert "\n" not in str(refusal.value)


def test_a_mask_of_noise_is_read_whole():
    """Every second pixel of a strip: the longest string that there is."""
    mask = np.indices((256, 1600)).sum(axis=0) % 2 == 0

    text = rle.encode(mask)

    assert len(text) > 1_000_000
    np.testing.assert_array_equal(rle.decode(text, 256, 1600), mask)


def test_every_real_row_comes_back_to_the_same_string(shared_data):
    """5,478 rows of Severstal's train.csv are canonical, so none may change.

    All go through runs; through a whole mask goes every tenth, to save three seconds.
    """
    path = shared_data / "severstal_rows" / "train.csv"
    with path.open(encoding="utf-8", newline="") as file:
        texts = [row["EncodedPixels"] for row in csv.DictReader(file)]

    assert len(texts) == 5478
    assert [rle.join(rle.parse(text, 256 * 1600)) for text in texts] == texts
    assert [rle.encode(rle.decode(text, 256, 1600)) for text in texts[::10]] == texts[::10]
