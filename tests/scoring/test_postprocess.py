import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from steelseg.errors import ConfigError
from steelseg.scoring.postprocess import binarize, per_class, to_uint8


def draw_mask(*rows):
    """Turn lines of '#' and '.' into a mask."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


# Components of 1, 2 (touching at a corner) and 6 pixels: 9 in all.
SPECKS = draw_mask(
    "#..#....",
    "..#..###",
    ".....###",
)


def filtered(mask_hw, *, min_size=0, min_area=0):
    """Run one mask through binarize as probabilities of 0 and 1."""
    probs_chw = mask_hw[None].astype(np.float32)
    return binarize(probs_chw, threshold=[0.5], min_size=[min_size], min_area=[min_area])[0]


def flood(pixels, start):
    """Collect the pixels that can be reached from one, corners included."""
    component, front = {start}, [start]
    while front:
        y, x = front.pop()
        around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
        fresh = (around & pixels) - component
        component |= fresh
        front += fresh
    return component


def oracle(probs_hw, threshold, min_size, min_area):
    """List the pixels that stay, by looking at every pixel and flooding every component."""
    height, width = probs_hw.shape
    pixels = {
        (y, x) for y in range(height) for x in range(width) if float(probs_hw[y, x]) >= threshold
    }
    stay = {pixel for pixel in pixels if len(flood(pixels, pixel)) >= min_size}
    return stay if len(stay) >= min_area else set()


@st.composite
def cases(draw):
    """Draw small probabilities with the three settings of each class."""
    shape = tuple(draw(st.integers(1, largest)) for largest in (3, 7, 7))
    values = st.sampled_from(np.linspace(0, 1, 9, dtype=np.float32))
    probs_chw = draw(npst.arrays(np.float32, shape, elements=values, fill=st.nothing()))

    def one_a_class(elements):
        return draw(st.lists(elements, min_size=shape[0], max_size=shape[0]))

    return probs_chw, {
        "threshold": one_a_class(st.sampled_from([0.25, 0.5, 0.7, 0.875])),
        "min_size": one_a_class(st.integers(0, 8)),
        "min_area": one_a_class(st.integers(0, 16)),
    }


def test_a_pixel_at_the_threshold_is_kept():
    """The threshold is the lowest probability that counts, also where float32 rounds it down."""
    probs_chw = np.array([[[0.69, 0.7, 0.71]]], dtype=np.float32)

    mask = binarize(probs_chw, threshold=[0.7], min_size=[0], min_area=[0])

    assert mask.dtype == np.bool_
    assert mask.tolist() == [[[False, True, True]]]


def test_each_class_has_its_own_settings():
    """The same probabilities, three classes, one setting raised in each."""
    probs_chw = np.stack([SPECKS * np.float32(0.6)] * 4)

    masks_chw = binarize(
        probs_chw, threshold=[0.5, 0.7, 0.5, 0.5], min_size=[0, 0, 3, 0], min_area=[0, 0, 0, 10]
    )

    assert masks_chw.sum(axis=(1, 2)).tolist() == [9, 0, 6, 0]


@pytest.mark.parametrize(
    ("min_size", "pixels"), [(0, 9), (1, 9), (2, 8), (3, 6), (6, 6), (7, 0), (10, 0)]
)
def test_components_below_min_size_are_removed(min_size, pixels):
    """Corners connect, a component of exactly min_size stays, the others are not touched."""
    assert filtered(SPECKS, min_size=min_size).sum() == pixels


@pytest.mark.parametrize(("min_area", "pixels"), [(0, 9), (1, 9), (9, 9), (10, 0)])
def test_a_mask_below_min_area_is_emptied(min_area, pixels):
    """min_area counts the whole mask, so specks add up."""
    assert filtered(SPECKS, min_area=min_area).sum() == pixels


@pytest.mark.parametrize(("min_area", "pixels"), [(6, 6), (7, 0)])
def test_min_area_sees_what_min_size_left(min_area, pixels):
    """The order is fixed: nine pixels pass 7 before the specks go, six do not after."""
    assert filtered(SPECKS, min_size=3, min_area=min_area).sum() == pixels


@pytest.mark.parametrize(("top", "pixels"), [(0.5, 4), (0.8, 4), (0.9, 0)])
def test_only_sure_pixels_count_for_min_area(top, pixels):
    """The triplet rule: a mask stays whole if enough of it reaches top_threshold."""
    probs_chw = np.array([[[0.5, 0.8, 0.8, 0.9]]], dtype=np.float32)
    options = {"threshold": [0.5], "min_size": [0], "min_area": [2], "top_threshold": [top]}

    assert binarize(probs_chw, **options).sum() == pixels
    assert binarize(to_uint8(probs_chw), **options).sum() == pixels


def test_a_top_threshold_below_the_threshold_counts_as_it():
    """Every pixel that is kept reaches it."""
    probs_chw = SPECKS[None] * np.float32(0.6)
    plain = {"threshold": [0.5], "min_size": [2], "min_area": [8]}

    np.testing.assert_array_equal(
        binarize(probs_chw, **plain, top_threshold=[0.1]), binarize(probs_chw, **plain)
    )


@settings(deadline=None, max_examples=200)
@given(cases())
def test_masks_match_a_flood_fill(case):
    """The oracle shares no line with the module: sets of pixels and a flood fill."""
    probs_chw, options = case

    masks_chw = binarize(probs_chw, **options)

    for probs_hw, mask_hw, *limits in zip(probs_chw, masks_chw, *options.values(), strict=True):
        assert {tuple(pixel) for pixel in np.argwhere(mask_hw).tolist()} == oracle(
            probs_hw, *limits
        )


@settings(deadline=None, max_examples=100)
@given(cases())
def test_filtering_twice_changes_nothing(case):
    """A mask that went through is one that goes through."""
    probs_chw, options = case
    masks_chw = binarize(probs_chw, **options)

    again_chw = binarize(masks_chw.astype(np.float32), **options)

    np.testing.assert_array_equal(again_chw, masks_chw)


@settings(deadline=None, max_examples=100)
@given(cases(), st.sampled_from([("threshold", 0.25), ("min_size", 2), ("min_area", 3)]))
def test_a_stricter_setting_never_adds_a_pixel(case, change):
    """The search for settings relies on it: each of the three only takes away."""
    probs_chw, options = case
    name, step = change
    stricter = options | {name: [value + step for value in options[name]]}

    assert not (binarize(probs_chw, **stricter) & ~binarize(probs_chw, **options)).any()


@settings(deadline=None, max_examples=50)
@given(cases())
def test_the_classes_do_not_see_each_other(case):
    """Reordering classes and settings reorders the masks."""
    probs_chw, options = case
    flipped = {name: values[::-1] for name, values in options.items()}

    np.testing.assert_array_equal(
        binarize(probs_chw[::-1], **flipped), binarize(probs_chw, **options)[::-1]
    )


def test_the_probabilities_stay_as_they_are():
    """Stitched probabilities go on to be stored after the masks were made."""
    probs_chw = np.random.default_rng(0).random((2, 9, 12), dtype=np.float32)
    before_chw = probs_chw.copy()

    binarize(probs_chw, threshold=[0.3] * 2, min_size=[4] * 2, min_area=[0] * 2)
    to_uint8(probs_chw)

    np.testing.assert_array_equal(probs_chw, before_chw)


def test_the_memory_order_of_probabilities_does_not_matter():
    """A model may hand out channels last, which OpenCV cannot label in place."""
    probs_hwc = np.random.default_rng(0).random((9, 12, 2), dtype=np.float32)
    options = {"threshold": [0.4] * 2, "min_size": [4] * 2, "min_area": [0] * 2}
    probs_chw = probs_hwc.transpose(2, 0, 1)

    np.testing.assert_array_equal(
        binarize(probs_chw, **options), binarize(np.ascontiguousarray(probs_chw), **options)
    )


def test_probabilities_are_rounded_half_up():
    """Half a level goes up, the ends keep their place."""
    levels = np.array([0, 0.49, 0.5, 1, 127.49, 127.5, 254.5, 255], dtype=np.float32)

    rounded = to_uint8(levels / np.float32(255))

    assert rounded.dtype == np.uint8
    assert rounded.tolist() == [0, 0, 1, 1, 127, 128, 255, 255]


@pytest.mark.parametrize("threshold", [0.5, *((np.arange(0, 255, 5) + 0.5) / 255)])
def test_stored_probabilities_give_the_same_mask_between_levels(threshold):
    """0.5 lies halfway between levels 127 and 128, so rounding cannot carry a pixel over it."""
    # Around the threshold, but not within the noise of float32.
    steps = np.concatenate([np.arange(-300, 0), np.arange(1, 300)]) * 1e-6
    probs_chw = np.clip(threshold + steps, 0, 1).astype(np.float32).reshape(1, 1, -1)
    options = {"threshold": [threshold], "min_size": [0], "min_area": [0]}

    np.testing.assert_array_equal(
        binarize(to_uint8(probs_chw), **options), binarize(probs_chw, **options)
    )


def test_both_sides_of_one_half_agree_to_the_last_bit():
    """The default threshold is exact: the neighbours of 0.5 in float32 fall on their sides."""
    half = np.float32(0.5)
    probs_chw = np.array([[[np.nextafter(half, 0), half, np.nextafter(half, 1)]]])
    options = {"threshold": [0.5], "min_size": [0], "min_area": [0]}

    assert binarize(probs_chw, **options).tolist() == [[[False, True, True]]]
    assert binarize(to_uint8(probs_chw), **options).tolist() == [[[False, True, True]]]


@pytest.mark.parametrize("kind", [float, np.float32])
def test_a_stored_level_counts_as_its_share_of_255(kind):
    """A threshold of q / 255 keeps level q and drops the one below, for every q."""
    probs_chw = np.arange(256, dtype=np.uint8).reshape(1, 1, 256)

    for level in range(256):
        mask = binarize(probs_chw, threshold=[kind(level / 255)], min_size=[0], min_area=[0])
        assert np.flatnonzero(mask)[0] == level
        assert mask.sum() == 256 - level


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3500, (3500,) * 4),
        (0.5, (0.5,) * 4),
        ([1, 2, 3, 4], (1, 2, 3, 4)),
        ((0.5,) * 4, (0.5,) * 4),
    ],
)
def test_a_setting_expands_to_one_value_a_class(value, expected):
    """One number serves all classes, a list is taken as it is."""
    assert per_class(value, 4, name="postprocess.min_size") == expected


@pytest.mark.parametrize(
    ("value", "num_classes", "message"),
    [
        ([1, 2, 3], 4, "postprocess.min_size has 3 values, but there are 4 classes. Give one"),
        ([7], 4, "postprocess.min_size has 1 value, but there are 4 classes."),
        ((), 4, "postprocess.min_size has 0 values, but there are 4 classes."),
        ([1, 2], 1, "postprocess.min_size has 2 values, but there is 1 class."),
    ],
)
def test_a_setting_of_the_wrong_length_is_refused(value, num_classes, message):
    """The message names the setting as the user typed it, and both numbers."""
    with pytest.raises(ConfigError, match=message):
        per_class(value, num_classes, name="postprocess.min_size")


def test_settings_for_another_number_of_classes_are_refused():
    """Settings are expanded before; a length that does not fit is a bug of ours."""
    probs_chw = np.zeros((2, 3, 3), dtype=np.float32)

    with pytest.raises(AssertionError):
        binarize(probs_chw, threshold=[0.5, 0.5], min_size=[0], min_area=[0, 0])


def test_integers_other_than_uint8_are_refused():
    """An int64 array is no probability: 0 and 1 would pass for it without a sign."""
    with pytest.raises(AssertionError, match="int64"):
        binarize(np.zeros((1, 3, 3), np.int64), threshold=[0.5], min_size=[0], min_area=[0])
