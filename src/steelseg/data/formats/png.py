"""PNG: the checksum of every chunk is verified, then the image is decoded.

Grayscale, RGB and palette images with 1 to 8 bits per channel are supported. Rejected are 16 bits,
of which OpenCV would keep the upper byte (images of a 12-bit camera would turn black), animations,
of which it would decode the first frame, and transparency: an alpha channel must be opaque.
"""

import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.errors import DataError

NAME = "PNG"
EXTENSIONS: tuple[str, ...] = (".png",)
MEDIA_TYPE = "image/png"

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ALPHA_COLOURS = (4, 6)


def matches(content: bytes) -> bool:
    """Whether a file starts as a PNG does."""
    return content.startswith(_SIGNATURE)


def measure(content: bytes) -> tuple[int, int]:
    """Check every chunk up to IEND, and read the size from the header.

    Returns:
        Height and width, in pixels.

    Raises:
        DataError: if the file is truncated, damaged, or of an unsupported kind.
    """
    kind, width, height, bits = struct.unpack_from(">4sIIB", content, 12)
    if kind != b"IHDR":
        raise DataError("the PNG does not start with its header; the file is damaged.")
    position = len(_SIGNATURE)
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(content[position + 4 : end]) != checksum:
            raise DataError(f"PNG chunk {kind!r} is damaged: its checksum does not match.")
        if kind == b"acTL":
            raise DataError("the PNG is animated. Save a single frame.")
        if kind == b"tRNS":
            raise DataError("the PNG has a transparent colour. Save it without transparency.")
        position = end + 4
    if bits > 8:
        raise DataError(f"the PNG has {bits} bits per channel. Save it with 8.")
    return height, width


def decode(content: bytes, *, channels: int) -> NDArray[np.uint8]:
    """Decode a PNG that `measure` has checked."""
    if content[25] in _ALPHA_COLOURS and _decode(content, cv2.IMREAD_UNCHANGED)[..., 3].min() < 255:
        raise DataError("the PNG has transparent pixels. Save it without transparency.")
    return _decode(content, cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB)


def _decode(content: bytes, flag: int) -> NDArray[np.uint8]:
    """Decode with an OpenCV flag."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DataError("the image cannot be decoded; the file is damaged.")
    return np.asarray(image, dtype=np.uint8)
