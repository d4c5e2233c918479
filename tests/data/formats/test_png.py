import numpy as np
import pytest

from steelseg.data.formats.images import decode_image
from steelseg.errors import DataError
from torture.image_files import chunk, png

RED_GREEN = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0]))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_of_few_bits_spans_black_to_white(bits):
    """The largest value is white, whatever the number of bits."""
    content = png(1, 2, bits=bits, pixels=b"\0\0\xff" if bits == 8 else bytes([0, 0xFF >> bits]))

    assert decode_image(content, channels=1)[0, :, 0].tolist() == [0, 255]


def test_a_palette_is_looked_up():
    """Its numbers are no shades of grey."""
    content = png(2, 2, colour=3, pixels=b"\0\0\1\0\1\0", extra=RED_GREEN)

    red, green = [255, 0, 0], [0, 255, 0]
    assert decode_image(content, channels=3).tolist() == [[red, green], [green, red]]


@pytest.mark.parametrize(("colour", "channels"), [(4, 1), (6, 3)])
def test_an_alpha_channel_is_dropped_if_it_is_opaque(colour, channels):
    """Many programs write one for nothing."""
    pixels = np.arange(4 * (channels + 1), dtype=np.uint8).reshape(2, 2, channels + 1)
    pixels[..., -1] = 255
    content = png(2, 2, colour=colour, pixels=b"".join(b"\0" + row.tobytes() for row in pixels))

    np.testing.assert_array_equal(decode_image(content, channels=channels), pixels[..., :channels])


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_are_refused(channels):
    """What was to be seen in their place is not in the file."""
    content = png(1, 2, colour=4, pixels=bytes([0, 9, 255, 9, 254]))

    with pytest.raises(DataError, match=r"transparent pixels\. Save it without transparency"):
        decode_image(content, channels=channels)


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        (chunk(b"tRNS", b"\0\0"), "a transparent colour. Save it without transparency"),
        (chunk(b"acTL", b"\0\0\0\2\0\0\0\0"), "is animated. Save a single frame"),
    ],
)
def test_transparency_and_animation_are_refused(extra, fault):
    """The decoder would drop either without a word."""
    with pytest.raises(DataError, match=fault):
        decode_image(png(1, 1, pixels=b"\0\0", extra=extra), channels=1)
