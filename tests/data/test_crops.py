import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.data.crops import Box, crop_boxes, crop_starts
from steelseg.errors import ConfigError

sides = st.integers(1, 60)


def test_the_last_crop_is_flush_with_the_right_edge():
    """1600 is not reached by steps of 256, so the sixth crop is moved back to fit."""
    assert crop_starts(1600, 512, 256) == [0, 256, 512, 768, 1024, 1088]


def test_a_strip_is_cut_into_six_crops():
    """Crops as tall as the strip lie in one row."""
    boxes = crop_boxes(256, 1600, crop_height=256, crop_width=512, crop_stride=256)

    assert boxes == [Box(0, left, 256, 512) for left in (0, 256, 512, 768, 1024, 1088)]


def test_crops_come_row_by_row():
    """The order in which they are stitched."""
    boxes = crop_boxes(6, 7, crop_height=4, crop_width=4, crop_stride=4)

    assert boxes == [Box(0, 0, 4, 4), Box(0, 3, 4, 4), Box(2, 0, 4, 4), Box(2, 3, 4, 4)]


@pytest.mark.parametrize("length", [1, 511, 512])
def test_an_image_no_larger_than_the_crop_is_taken_whole(length):
    """Nothing is padded, and the stride does not matter."""
    assert crop_starts(length, 512, 9999) == [0]
    boxes = crop_boxes(length, length, crop_height=512, crop_width=512, crop_stride=9999)
    assert boxes == [Box(0, 0, length, length)]


@given(length=st.integers(1, 300), crop=st.integers(1, 300), data=st.data())
def test_starts_ascend_from_edge_to_edge(length, crop, data):
    """Neighbours are never further apart than the stride, so nothing lies between them."""
    stride = data.draw(st.integers(1, crop))

    starts = crop_starts(length, crop, stride)

    assert starts[0] == 0
    assert starts[-1] == max(length - crop, 0)
    assert all(1 <= step <= stride for step in np.diff(starts))
    assert all(step == stride for step in np.diff(starts)[:-1])


@given(height=sides, width=sides, crop_height=sides, crop_width=sides, data=st.data())
def test_every_pixel_is_covered_and_no_crop_leaves_the_image(
    height, width, crop_height, crop_width, data
):
    """A pixel without a crop would have no prediction."""
    stride = data.draw(st.integers(1, min(crop_height, crop_width)))
    hits = np.zeros((height, width), dtype=int)

    boxes = crop_boxes(
        height, width, crop_height=crop_height, crop_width=crop_width, crop_stride=stride
    )
    for top, left, high, wide in boxes:
        assert (high, wide) == (min(crop_height, height), min(crop_width, width))
        assert 0 <= top <= height - high
        assert 0 <= left <= width - wide
        hits[top : top + high, left : left + wide] += 1

    assert hits.min() >= 1
    assert len(set(boxes)) == len(boxes)


@pytest.mark.parametrize("stride", [0, -1, 513])
def test_a_stride_that_leaves_gaps_is_refused(stride):
    """The message names the setting and the way out."""
    with pytest.raises(ConfigError, match=rf"crop_stride={stride} .* Use a stride from 1 to 512"):
        crop_starts(1600, 512, stride)
