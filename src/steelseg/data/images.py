"""Reading strips: JPEG and PNG, grey or colour, whole or refused.

Decoders repair in silence: OpenCV returns a full-size image for half a JPEG. So a file is
walked from its first marker to its last before it is decoded, and the decoded size is held
against the header's. EXIF orientation is ignored, because masks are drawn on stored pixels.
Bytes behind the last marker are ignored too. What happens to a JPEG between its markers is
not seen: unlike a PNG it has no checksums.

Arrays are uint8 `image_hwc`, shape (H, W, channels), channels 1 (grey) or 3 (RGB).
"""

import re
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.errors import DataError

T = TypeVar("T")

SUFFIXES = (".jpg", ".jpeg", ".png")

# Larger than any line camera's strip, small enough that a decoded image fits in memory.
MAX_PIXELS = 100_000_000

_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"
# In a JPEG scan 0xFF is data when 0x00 follows, and restart markers are part of the scan.
# More 0xFF may stand before a marker; to search for the last is 12 times as fast as for all.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def list_images(folder: Path) -> list[str]:
    """Name the images of a folder, sorted.

    Raises:
        DataError: if the folder does not exist, or a name cannot be written to a CSV file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. It should hold the images.")
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    for name in names:
        # Python hands over bytes that are not UTF-8 as lone surrogates, which no file takes.
        if not name.isprintable():
            raise DataError(f"{folder} holds a file named {name!r}. Rename it to plain text.")
    return names


def read_image(path: Path, *, channels: int) -> NDArray[np.uint8]:
    """Decode one image file.

    Args:
        path: A JPEG or PNG file.
        channels: 1 for grey, 3 for RGB; colour files are turned into grey by luminance.

    Returns:
        Image, shape (H, W, channels), uint8.

    Raises:
        DataError: if the file is missing, truncated, damaged, too large or of another kind.
    """
    return _naming(path, partial(decode_image, channels=channels))


def measure_image(path: Path) -> tuple[int, int]:
    """Read height and width of one image file, walked to its end but not decoded.

    Raises:
        DataError: as `measure` does, with the file's name, or if it is missing.
    """
    return _naming(path, measure)


def _naming(path: Path, understand: Callable[[bytes], T]) -> T:
    """Understand the bytes of a file, or raise DataError with its name."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    try:
        return understand(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def decode_image(content: bytes, *, channels: int) -> NDArray[np.uint8]:
    """Decode the bytes of an image file; as `read_image`, errors without a file name."""
    height, width = measure(content)
    if height * width > MAX_PIXELS:
        raise DataError(f"the image has {height}x{width} pixels; at most {MAX_PIXELS} are read.")
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.shape[:2] != (height, width):
        raise DataError("the image cannot be decoded; the file is damaged.")
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels)


def measure(content: bytes) -> tuple[int, int]:
    """Walk an image file from start to end and read its size.

    Returns:
        Height and width, in pixels, as the header declares them.

    Raises:
        DataError: if the file is empty, of another kind, truncated, or its structure is broken.
    """
    if not content:
        raise DataError("the file is empty.")
    try:
        if content.startswith(_PNG_START):
            return _walk_png(content)
        if content.startswith(_JPEG_START):
            return _walk_jpeg(content)
    except struct.error:
        raise DataError("the image is truncated: the file ends before its last part.") from None
    raise DataError("the file is neither a JPEG nor a PNG, whatever its name says.")


def _walk_png(content: bytes) -> tuple[int, int]:
    """Check every chunk of a PNG up to IEND."""
    kind, width, height, bits = struct.unpack_from(">4sIIB", content, 12)
    if kind != b"IHDR":
        raise DataError("the PNG does not begin with its header; the file is damaged.")
    position = len(_PNG_START)
    while True:
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(content[position + 4 : end]) != checksum:
            raise DataError(f"PNG chunk {kind!r} is damaged: its checksum does not fit.")
        if kind == b"IEND":
            break
        position = end + 4
    if bits > 8:
        # OpenCV would keep the upper byte: a 12-bit camera's picture turns black.
        raise DataError(f"the PNG has {bits} bits a channel. Save it with 8.")
    return height, width


def _walk_jpeg(content: bytes) -> tuple[int, int]:
    """Step over every segment and scan of a JPEG up to its end marker."""
    size, position = None, 2
    while True:
        found = _JPEG_MARKER.search(content, position)
        if found is None:
            raise DataError("the image is truncated: the JPEG has no end marker.")
        marker, position = found[1][0], found.end()
        if marker == 0xD9:
            break
        if marker in _JPEG_FRAMES:
            size = struct.unpack_from(">HH", content, position + 3)
        # Scan data follows its own header, so the next search starts behind both alike.
        position += struct.unpack_from(">H", content, position)[0]
    if size is None:
        raise DataError("the JPEG declares no size.")
    return size
