"""JPEG: checked from the first marker to the last, then decoded with every warning as an error.

The check reads size, components and the coefficients that each scan sends, and rejects files that
decoders would repair: truncated ones, progressive ones without their last scans, CMYK, 12 bits per
channel. libjpeg repairs a damaged scan with a warning that OpenCV ignores; here it is an error. A
flipped bit that leaves a valid JPEG of a different picture goes unnoticed: `steelseg check --hash`
detects it.

EXIF orientation is ignored, because masks refer to stored pixels. Bytes after the end marker are
ignored.
"""

import re
import struct

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from steelseg.errors import DataError

NAME = "JPEG"
EXTENSIONS: tuple[str, ...] = (".jpg", ".jpeg")
MEDIA_TYPE = "image/jpeg"

# In a scan, 0xFF followed by 0x00 is data, and restart markers are part of the scan. A marker may
# be preceded by several 0xFF; a pattern that starts with one literal byte is ten times as fast as
# one that starts with any number of them.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_END, _SCAN = 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Baseline, extended and progressive; the others are lossless, hierarchical or arithmetic.
_KNOWN_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
_UNSENT = 0xFF
# A progressive file of ten thousand scans over 100 million pixels would take hours.
_MOST_SCANS = 100


def matches(content: bytes) -> bool:
    """Whether a file starts as a JPEG does."""
    return content.startswith(b"\xff\xd8\xff")


def measure(content: bytes) -> tuple[int, int]:
    """Check every segment and scan, and read the size that the file declares.

    Returns:
        Height and width, in pixels.

    Raises:
        DataError: if the file is truncated, incomplete, or of an unsupported kind.
    """
    size: tuple[int, int] | None = None
    bits_unsent: dict[int, bytearray] = {}
    position, scans = 2, 0
    while True:
        found = _MARKER.search(content, position)
        if found is None:
            raise DataError("the image is truncated: the JPEG has no end marker.")
        marker, position = found[1][0], found.end()
        if marker == _END:
            break
        (length,) = struct.unpack_from(">H", content, position)
        segment = content[position + 2 : position + length]
        if len(segment) < length - 2:
            raise DataError("the image is truncated: the file ends before its last part.")
        if marker in _FRAMES:
            if size is not None:
                raise DataError("the JPEG declares its size twice; the file is damaged.")
            size, bits_unsent = _read_frame(marker, segment)
        elif marker == _SCAN:
            scans += 1
            _note_scan(segment, bits_unsent)
        # The data of a scan follows its header, so the next search starts after the header.
        position += length
    if size is None:
        raise DataError("the JPEG declares no size.")
    if scans > _MOST_SCANS:
        raise DataError(f"the JPEG has {scans} scans; at most {_MOST_SCANS} are read.")
    if any(map(any, bits_unsent.values())):
        raise DataError("the image is incomplete: the JPEG lacks scans.")
    return size


def _read_frame(marker: int, segment: bytes) -> tuple[tuple[int, int], dict[int, bytearray]]:
    """Read a frame header, and reject unsupported modes.

    Returns:
        Height and width; and for each component id, the low bits of its 64 coefficients that no
        scan has sent yet.
    """
    bits, height, width, components = struct.unpack_from(">BHHB", segment)
    if marker not in _KNOWN_FRAMES:
        raise DataError("the JPEG is lossless, hierarchical or arithmetic. Save it as baseline.")
    if bits != 8:
        raise DataError(f"the JPEG has {bits} bits per channel. Save it with 8.")
    if components not in (1, 3):
        kind = " (CMYK)" if components == 4 else ""
        raise DataError(f"the JPEG has {components} channels{kind}. Save it as grey or RGB.")
    if not height or not width:
        raise DataError(f"the JPEG declares a size of {height}x{width}; the file is damaged.")
    return (height, width), {component: bytearray([_UNSENT] * 64) for component in segment[6::3]}


def _note_scan(segment: bytes, bits_unsent: dict[int, bytearray]) -> None:
    """Remove from `bits_unsent` what a scan sends according to its header."""
    components = segment[0] if segment else 0
    span = segment[1 + 2 * components : 4 + 2 * components]
    ids = segment[1 : 1 + 2 * components : 2]
    if len(span) != 3 or not span[0] <= span[1] < 64 or not set(ids) <= set(bits_unsent):
        raise DataError("a scan header of the JPEG is damaged.")
    first, last, low_bits = span[0], span[1], span[2] & 0x0F
    for component in ids:
        bits_unsent[component][first : last + 1] = bytes([low_bits] * (last + 1 - first))


def decode(content: bytes, *, channels: int) -> NDArray[np.uint8]:
    """Decode a JPEG that `measure` has checked; any warning of the decoder is a DataError."""
    try:
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            content, colorspace="GRAY" if channels == 1 else "RGB"
        )
    except ValueError as error:
        raise DataError(
            f"the image is damaged, or of an unsupported kind: {_plain(error)}."
        ) from None
    return image


def _plain(error: ValueError) -> str:
    """Return the message of libjpeg without the name of its function."""
    return str(error).split("(): ")[-1].rstrip(".")
