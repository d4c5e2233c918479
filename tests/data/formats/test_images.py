import os
import socket
import struct

import cv2
import numpy as np
import pytest

from steelseg.data.formats.images import (
    decode_image,
    format_names,
    list_images,
    measure,
    measure_image,
    read_image,
)
from steelseg.errors import DataError
from torture.image_files import chunk, png, scan_starts, with_exif

# Smooth, so that JPEG keeps it nearly; of three different channels, so that order matters.
ROWS, COLUMNS = np.mgrid[0:24, 0:40]
IMAGE_HWC = np.stack([4 * ROWS + 90, 3 * COLUMNS + 60, 2 * (ROWS + COLUMNS)], -1).astype(np.uint8)
GREY_HW = (3 * COLUMNS + 2 * ROWS).astype(np.uint8)


def encode(image, suffix=".jpg", options=()):
    """Encode a grey image, or one in RGB."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(suffix, image, options)[1].tobytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_read_to_the_bit(channels):
    """PNG is lossless, and channels come as red, green, blue."""
    image_hwc = IMAGE_HWC if channels == 3 else GREY_HW[..., None]

    found = decode_image(encode(image_hwc, ".png"), channels=channels)

    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, image_hwc)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_read_nearly_as_the_png(channels):
    """The two kinds agree on size, channel order and grey, up to JPEG's loss."""
    jpeg = encode(IMAGE_HWC, options=(cv2.IMWRITE_JPEG_QUALITY, 100))

    found = decode_image(jpeg, channels=channels).astype(int)

    expected = decode_image(encode(IMAGE_HWC, ".png"), channels=channels).astype(int)
    assert found.shape == (24, 40, channels)
    assert np.abs(found - expected).max() <= 8
    assert np.abs(found - expected).mean() <= 2


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_grey_reads_the_same_from_one_channel_or_three(suffix):
    """Severstal's grey strips are stored as colour; it must not matter."""
    one = encode(GREY_HW, suffix)
    three = encode(np.repeat(GREY_HW[..., None], 3, axis=2), suffix)

    for channels in (1, 3):
        first = decode_image(one, channels=channels)
        np.testing.assert_array_equal(first, decode_image(three, channels=channels))
        np.testing.assert_array_equal(first, np.repeat(first[..., :1], channels, axis=2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("size", [(16, 16), (1, 1), (1, 40), (40, 1), (17, 33)])
def test_small_and_odd_sizes_are_read(suffix, size, channels):
    """JPEG pads to blocks of 8 or 16 pixels; none of the padding shows."""
    image_hwc = np.full((*size, 3), 77, dtype=np.uint8)

    found = decode_image(encode(image_hwc, suffix), channels=channels)

    assert found.shape == (*size, channels)
    assert np.abs(found.astype(int) - 77).max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
        (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    ],
)
def test_every_way_to_lay_out_a_jpeg_is_read(options):
    """Several scans and restart markers are part of the walk."""
    plain = decode_image(encode(IMAGE_HWC), channels=3)

    found = decode_image(encode(IMAGE_HWC, options=options), channels=3)

    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_refused_wherever_it_ends(suffix):
    """OpenCV returns a full-size image for half a JPEG."""
    content = encode(IMAGE_HWC, suffix)
    lengths = {*range(1, len(content), 10), *range(len(content) - 20, len(content))}

    for length in sorted(lengths):
        with pytest.raises(DataError, match=r"truncated|whatever its name says"):
            decode_image(content[:length], channels=1)


def test_a_progressive_jpeg_cut_between_two_scans_is_refused():
    """Its first scans alone make a whole, blurred image."""
    content = encode(IMAGE_HWC, options=(cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    scans = scan_starts(content)

    assert len(scans) > 2
    for scan in scans:
        with pytest.raises(DataError, match="truncated: the JPEG has no end marker"):
            decode_image(content[:scan], channels=1)


def test_a_jpeg_whose_preview_is_whole_is_refused_when_cut():
    """A camera's preview in the EXIF segment has an end marker of its own."""
    preview = encode(IMAGE_HWC[:8, :8])
    segment = b"\xff\xe1" + struct.pack(">H", len(preview) + 2) + preview
    content = encode(IMAGE_HWC)
    content = content[:2] + segment + content[2:]

    assert decode_image(content, channels=1).shape == (24, 40, 1)
    with pytest.raises(DataError, match="truncated"):
        decode_image(content[:-2], channels=1)


def test_any_flipped_byte_of_a_png_is_refused():
    """Each chunk has a checksum."""
    content = encode(GREY_HW[:6, :6], ".png")

    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        with pytest.raises(DataError):
            decode_image(bytes(damaged), channels=1)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_bytes_behind_the_last_marker_are_ignored(suffix):
    """Cameras append previews and padding; the image itself is whole."""
    content = encode(IMAGE_HWC, suffix)

    found = decode_image(content + bytes(100) + content[:50], channels=3)

    np.testing.assert_array_equal(found, decode_image(content, channels=3))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_does_not_turn_the_image(orientation):
    """Masks are drawn on the pixels as they are stored."""
    content = encode(IMAGE_HWC)
    turned = with_exif(content, orientation)

    by_default = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert not np.array_equal(by_default, decode_image(content, channels=3))
    for channels in (1, 3):
        found = decode_image(turned, channels=channels)
        np.testing.assert_array_equal(found, decode_image(content, channels=channels))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "the file is empty"),
        (b"not an image", f"the file is not a {format_names()}, whatever its name says"),
        (b"GIF89a" + bytes(50), "whatever its name says"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8\xff\xd9", "the JPEG declares no size"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (png(2, 2)[:8] + chunk(b"IEND", b"") + bytes(20), "does not start with its header"),
        (png(2, 2, pixels=b"\0\1\2"), "cannot be decoded; the file is damaged"),
        (png(2, 2, pixels=b"\x09\1\2" * 2), "cannot be decoded"),
        (png(0, 2, pixels=b"\0\0"), "cannot be decoded"),
        (png(2, 2_000_000, pixels=b"\0"), "cannot be decoded"),
        (png(2, 2, colour=3, pixels=b"\0\0\0\0\0\0"), "cannot be decoded"),
        (
            png(2, 2, bits=16, pixels=b"\0\x0f\xff\x0f\xff" * 2),
            "16 bits per channel. Save it with 8",
        ),
    ],
)
def test_what_is_no_whole_image_is_refused(content, fault):
    """Each with a reason, none with a traceback."""
    with pytest.raises(DataError, match=fault):
        decode_image(content, channels=1)


def test_a_jpeg_without_a_scan_is_refused():
    """Header and end marker are there, but no pixels."""
    content = encode(IMAGE_HWC)

    with pytest.raises(DataError, match="the image is incomplete: the JPEG lacks scans"):
        decode_image(content[: content.index(b"\xff\xda")] + b"\xff\xd9", channels=1)


@pytest.mark.parametrize("side", [30_000, 2**31 - 1])
def test_a_huge_image_is_refused_before_it_is_decoded(side, monkeypatch):
    """A PNG of 109 KB can ask for 5 GB of memory."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("the image was decoded"))

    with pytest.raises(DataError, match=f"{side}x{side} pixels; at most 100000000 are read"):
        decode_image(png(side, side, pixels=bytes(1000)), channels=1)


def test_a_file_is_read_and_a_fault_names_it(tmp_path):
    """The name's ending promises nothing."""
    (tmp_path / "good.jpg").write_bytes(encode(IMAGE_HWC, ".png"))
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "large.jpg").touch()
    os.truncate(tmp_path / "large.jpg", 2**40)

    np.testing.assert_array_equal(read_image(tmp_path / "good.jpg", channels=3), IMAGE_HWC)
    for name, fault in {
        "text.jpg": "the file is not a ",
        "none.jpg": "cannot be read: No such file or directory",
        "large.jpg": "the file has 1099511627776 bytes; at most 400000000 are read",
    }.items():
        with pytest.raises(DataError, match=f"^{tmp_path / name}: {fault}"):
            read_image(tmp_path / name, channels=1)


def test_what_is_no_file_is_refused_unread(tmp_path):
    """A pipe has no end, and opening it would wait for one who writes."""
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        for name in list_images(tmp_path):
            with pytest.raises(DataError, match=f"{name}: this is a folder, socket, pipe or dev"):
                read_image(tmp_path / name, channels=1)


def test_the_size_is_read_without_decoding():
    """Height first, as the array has it."""
    assert measure(encode(IMAGE_HWC)) == (24, 40)
    assert measure(encode(IMAGE_HWC, ".png")) == (24, 40)


def test_the_size_of_a_file_names_it_where_it_fails(tmp_path):
    """As reading it does."""
    path = tmp_path / "a.png"
    path.write_bytes(png(3, 5))
    assert measure_image(path) == (3, 5)

    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.png: the file is empty"):
        measure_image(path)


def test_a_marker_may_have_fill_before_it():
    """Any number of 0xFF may stand in front of a marker."""
    jpeg = encode(IMAGE_HWC)
    scan = jpeg.index(b"\xff\xda")
    filled = jpeg[:2] + b"\xff\xff" + jpeg[2:scan] + b"\xff" + jpeg[scan:-2] + b"\xff" + jpeg[-2:]

    assert measure(filled) == measure(jpeg)
    with pytest.raises(DataError, match="truncated"):
        measure(filled[:-1])


def test_images_are_listed_by_ending_and_sorted(tmp_path):
    """Notes beside the images are not images."""
    for name in ("b.png", "a.JPG", "c.jpeg", "notes.txt", "d.tif", "jpg"):
        (tmp_path / name).touch()

    assert list_images(tmp_path) == ["a.JPG", "b.png", "c.jpeg"]
    with pytest.raises(DataError, match="none is not a folder"):
        list_images(tmp_path / "none")


@pytest.mark.parametrize("name", ["a\udcff.jpg", "a\n.jpg"])
def test_a_name_that_no_csv_can_hold_is_refused(tmp_path, name):
    """Else the run would end in a traceback when folds.csv is written."""
    try:
        (tmp_path / name).touch()
    except (OSError, UnicodeError):
        pytest.skip("the file system has no such names")

    with pytest.raises(DataError, match=r"contains a file named 'a\\\\?(udcff|n)\.jpg'"):
        list_images(tmp_path)


def test_a_link_among_the_images_is_refused_but_the_folder_may_be_one(tmp_path):
    """Someone's archive could name a file outside it; whole folders are linked by their owner."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encode(IMAGE_HWC, ".png"))
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    assert list_images(tmp_path / "linked") == ["a.png"]

    (tmp_path / "images" / "b.png").symlink_to("a.png")

    with pytest.raises(DataError, match=r"contains a link named b\.png, which may lead anywhere"):
        list_images(tmp_path / "linked")


def test_real_strips_are_read(shared_data):
    """Grey stored as colour: all three channels are the grey one, up to rounding."""
    folder = shared_data / "severstal" / "train_images"

    for name in list_images(folder)[:10]:
        rgb = read_image(folder / name, channels=3).astype(int)
        grey = read_image(folder / name, channels=1).astype(int)
        assert rgb.shape == (256, 1600, 3)
        assert np.abs(rgb - grey).max() <= 1
