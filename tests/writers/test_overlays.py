import cv2
import numpy as np
import pytest

from steelseg.errors import DataError
from steelseg.writers.overlays import PALETTE, OverlayWriter, draw_overlay

NAMES = ("scratch", "inclusion")
GREY = np.full((64, 200), 100, dtype=np.uint8)


def square(channel, *, channels=2):
    """A mask with one square of 10 x 10 pixels, rows 20 to 29, columns 30 to 39."""
    mask_chw = np.zeros((channels, *GREY.shape), dtype=bool)
    mask_chw[channel, 20:30, 30:40] = True
    return mask_chw


def test_a_defect_is_tinted_inside_and_outlined_outside():
    """The outline starts at the first pixel outside, so a thin defect is not painted over."""
    picture = draw_overlay(GREY, square(1), class_names=NAMES)

    color = np.array(PALETTE[1])
    for row, column in [(19, 35), (30, 35), (25, 29), (25, 40)]:
        assert picture[row, column].tolist() == color.tolist()
    np.testing.assert_allclose(picture[25, 35], 75 + 0.25 * color, atol=1)
    assert picture[20, 30].tolist() == picture[25, 35].tolist()
    assert picture[5, 5].tolist() == [100, 100, 100]


def test_the_picture_is_the_strip_with_a_legend_below():
    """The image keeps its place and width; pixels away from a defect stay as they were."""
    picture = draw_overlay(GREY, np.zeros_like(square(0)), class_names=NAMES)

    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (200, 3)
    assert picture.shape[0] > 64
    np.testing.assert_array_equal(picture[:64], np.repeat(GREY[:, :, None], 3, axis=2))
    assert picture[64:].max() > 200, "the legend says that no defect was found"


def test_a_colour_image_is_drawn_like_a_grey_one_and_left_alone():
    """The caller's image must not be painted on."""
    image = np.repeat(GREY[:, :, None], 3, axis=2)
    before = image.copy()

    picture = draw_overlay(image, square(0), class_names=NAMES)

    np.testing.assert_array_equal(picture, draw_overlay(GREY, square(0), class_names=NAMES))
    np.testing.assert_array_equal(image, before)


def test_with_a_truth_the_two_stand_one_above_the_other():
    """Truth first: the eye compares downwards."""
    alone = draw_overlay(GREY, square(1), class_names=NAMES)
    truth = draw_overlay(GREY, square(0), class_names=NAMES)

    both = draw_overlay(GREY, square(1), class_names=NAMES, truth_chw=square(0))

    title = (len(both) - len(alone) - len(truth)) // 2
    assert title > 0
    np.testing.assert_array_equal(both[title : title + len(truth)], truth)
    np.testing.assert_array_equal(both[-len(alone) :], alone)


def test_a_small_strip_can_be_drawn_larger():
    """Pixels become squares; the sizes in the legend stay those of the strip."""
    image, mask_chw = np.arange(64, dtype=np.uint8).reshape(8, 8), np.zeros((1, 8, 8), bool)

    plain = draw_overlay(image, mask_chw, class_names=["a"])
    large = draw_overlay(image, mask_chw, class_names=["a"], zoom=3)

    np.testing.assert_array_equal(large[:24], plain[:8].repeat(3, axis=0).repeat(3, axis=1))
    headed = draw_overlay(image, mask_chw, class_names=["a"], title="epoch 1")
    assert len(headed) > len(plain)
    np.testing.assert_array_equal(headed[-len(plain) :], plain)


def test_only_classes_present_are_in_the_legend():
    """The swatch of a class that was not found would look like a find."""
    bar = draw_overlay(GREY, square(1), class_names=NAMES)[64:]

    assert (bar == PALETTE[1]).all(axis=2).any()
    assert not (bar == PALETTE[0]).all(axis=2).any()


@pytest.mark.parametrize(("height", "width"), [(256, 1600), (200, 200), (64, 64), (8, 8)])
@pytest.mark.parametrize("name", ["pitted surface", "a name that nobody would give a class " * 3])
def test_the_legend_does_not_leave_the_picture(height, width, name):
    """Twelve classes wrap; a long name is cut. The right margin stays free from 64 pixels on."""
    image = np.zeros((height, width), dtype=np.uint8)
    mask_chw = np.zeros((12, height, width), dtype=bool)
    mask_chw[:, :4, :4] = True

    picture = draw_overlay(image, mask_chw, class_names=[name] * 12)

    assert picture.shape[1] == width
    bar = picture[height:]
    for color in PALETTE:
        assert (bar == color).all(axis=2).any() or width < 64
    if width >= 64:
        assert (bar[:, -4:] == bar[0, 0]).all()


def test_there_is_a_colour_for_a_thirteenth_class():
    """The palette begins again."""
    picture = draw_overlay(GREY, square(12, channels=13), class_names=[str(k) for k in range(13)])

    assert picture[19, 35].tolist() == list(PALETTE[0])


def test_the_palette_repeats_no_colour():
    """Twelve classes, twelve colours."""
    assert len(set(PALETTE)) == 12


def test_images_that_share_a_stem_do_not_overwrite_each_other(tmp_path):
    """The extension stays in the name."""
    writer = OverlayWriter(tmp_path / "overlays", NAMES)

    writer.add("a.jpg", GREY, square(0))
    writer.add("a.png", GREY, square(1), truth_chw=square(0))

    found = {path.name for path in (tmp_path / "overlays").iterdir()}
    assert found == {"a.jpg.png", "a.png.png"}


def test_the_file_holds_the_picture_in_its_colours(tmp_path):
    """OpenCV writes BGR; swapped channels would turn amber into blue."""
    OverlayWriter(tmp_path, NAMES).add("a.jpg", GREY, square(0))

    found = cv2.imread(str(tmp_path / "a.jpg.png"))[:, :, ::-1]
    np.testing.assert_array_equal(found, draw_overlay(GREY, square(0), class_names=NAMES))


def test_an_image_id_cannot_lead_out_of_the_folder(tmp_path):
    """A CSV file names the images, and a CSV file comes from anywhere."""
    with pytest.raises(DataError, match="is not a file name inside"):
        OverlayWriter(tmp_path / "overlays", NAMES).add("../a.jpg", GREY, square(0))

    assert list(tmp_path.iterdir()) == []


def test_grey_with_and_without_a_channel_axis_looks_the_same():
    """Strips are read as (H, W, 1)."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    mask_chw = np.zeros((1, 40, 60), dtype=bool)
    mask_chw[0, 5:15, 10:30] = True

    flat = draw_overlay(image, mask_chw, class_names=["scratch"])

    np.testing.assert_array_equal(
        draw_overlay(image[..., None], mask_chw, class_names=["scratch"]), flat
    )


def test_an_image_that_changed_since_it_was_predicted_is_named(tmp_path):
    """Masks of another size cannot be drawn on it."""
    writer = OverlayWriter(tmp_path / "overlays", NAMES)

    with pytest.raises(DataError, match=r"a\.jpg is 64x199, but its masks are 64x200: the ima"):
        writer.add("a.jpg", GREY[:, 1:], square(0))

    assert not (tmp_path / "overlays").exists()
