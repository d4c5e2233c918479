import cv2
import numpy as np
import pytest
import simplejpeg

from steelseg.data.formats.images import decode_image
from steelseg.data.formats.jpeg import decode, measure
from steelseg.errors import DataError
from torture.image_files import scan_starts

NOISE_HWC = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def encode(options=()):
    return cv2.imencode(".jpg", NOISE_HWC, options)[1].tobytes()


def change(content, position, value):
    return content[:position] + bytes([value]) + content[position + 1 :]


@pytest.mark.parametrize("options", [(), PROGRESSIVE, (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_sound_file_has_the_pixels_of_opencv(options, channels):
    """Both are libjpeg-turbo; only what a warning means differs."""
    content = encode(options)
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB

    found = decode(content, channels=channels)

    expected = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    np.testing.assert_array_equal(found, expected.reshape(found.shape))


def test_a_scan_with_a_part_cut_out_is_refused():
    """Start and end are there; OpenCV makes a full-size image of it, half of it grey."""
    content = encode()
    begin = scan_starts(content)[0] + 200
    damaged = content[:begin] + content[begin + 1000 :]

    assert measure(damaged) == (48, 64)
    with pytest.raises(DataError, match="damaged, or of an unsupported kind: Corrupt JPEG da"):
        decode_image(damaged, channels=1)


def test_bytes_between_two_parts_are_refused():
    """The decoder steps over them with a warning; a damaged length looks the same."""
    content = encode()
    frame = content.index(b"\xff\xc0")

    with pytest.raises(DataError, match="9 extraneous bytes before marker 0xc0"):
        decode_image(content[:frame] + bytes(9) + content[frame:], channels=1)


def test_a_lost_restart_marker_is_refused():
    """The decoder would fill the gap with grey."""
    content = encode((cv2.IMWRITE_JPEG_RST_INTERVAL, 2))
    marker = content.index(b"\xff\xd1", scan_starts(content)[0])

    with pytest.raises(DataError, match="Corrupt JPEG data"):
        decode_image(content[:marker] + content[marker + 2 :], channels=1)


def test_a_progressive_file_without_one_of_its_scans_is_refused():
    """Any one may be missing: what is left is a whole, blurred image without a warning."""
    content = encode(PROGRESSIVE)
    begins = scan_starts(content)
    ends = [*begins[1:], len(content) - 2]
    refused = 0
    for begin, end in zip(begins, ends, strict=True):
        # Tables for the next scan stand in front of its header.
        tables = content.find(b"\xff\xc4", begin, end)
        cut = content[:begin] + content[tables if tables > 0 else end :]
        with pytest.raises(DataError, match=r"incomplete: the JPEG lacks scans|damaged, or of a"):
            decode_image(cut, channels=3)
        refused += 1
    assert refused == len(begins) > 5
    simplejpeg.decode_jpeg(content[: begins[-1]] + b"\xff\xd9")  # no word from the decoder


def test_a_file_of_endless_scans_is_refused():
    """Each costs a pass over all pixels."""
    content = encode(PROGRESSIVE)
    last = scan_starts(content)[-1]
    bomb = content[:last] + content[last:-2] * 200 + content[-2:]

    with pytest.raises(DataError, match=r"the JPEG has 20\d scans; at most 100 are read"):
        measure(bomb)


@pytest.mark.parametrize(
    ("offset", "value", "fault"),
    [
        (1, 0xC3, "lossless, hierarchical or arithmetic"),
        (1, 0xC9, "lossless, hierarchical or arithmetic"),
        (4, 12, "12 bits per channel. Save it with 8"),
        (6, 0, "declares a size of 0x64"),
        (9, 2, "2 channels. Save it as grey or RGB"),
    ],
)
def test_a_mode_that_is_not_read_is_named(offset, value, fault):
    """By the frame header, before anything is decoded."""
    content = encode()
    frame = content.index(b"\xff\xc0")

    with pytest.raises(DataError, match=fault):
        measure(change(content, frame + offset, value))


def test_cmyk_is_refused():
    """What its four inks look like depends on the press."""
    inks = np.full((16, 16, 4), 100, dtype=np.uint8)
    content = simplejpeg.encode_jpeg(inks, colorspace="CMYK")

    with pytest.raises(DataError, match=r"4 channels \(CMYK\). Save it as grey or RGB"):
        measure(content)


def test_two_frames_are_refused():
    """Which size would be the image's?"""
    content = encode()
    frame = content.index(b"\xff\xc0")

    with pytest.raises(DataError, match="declares its size twice"):
        measure(content[:frame] + content[frame : frame + 19] + content[frame:])


@pytest.mark.parametrize(("offset", "value"), [(4, 200), (5, 77), (11, 64), (12, 64)])
def test_a_damaged_scan_header_is_refused(offset, value):
    """Number of components, an id, first coefficient behind the last, a 65th."""
    content = encode()
    scan = scan_starts(content)[0]

    with pytest.raises(DataError, match="a scan header of the JPEG is damaged"):
        measure(change(content, scan + offset, value))
