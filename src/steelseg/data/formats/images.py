"""Reading strips: JPEG and PNG, grey or colour, whole or refused.

Decoders repair in silence: OpenCV returns a full-size image for half a JPEG. So a file is
walked from its first marker to its last before it is decoded (`jpeg`, `png`), and the decoded
size is held against the header's. The size is known before a pixel is made, so an image that
is too large costs nothing.

A folder may be a link; an image inside it may not, because a link among thousands of images can
lead anywhere without anyone having put it there.

Arrays are uint8 `image_hwc`, shape (H, W, channels), channels 1 (grey) or 3 (RGB).
"""

import hashlib
import stat
import struct
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import jpeg, png
from steelseg.errors import DataError


class ImageFormat(Protocol):
    """A module that reads an image format."""

    NAME: str
    EXTENSIONS: tuple[str, ...]
    START: bytes
    """The first bytes of every file."""

    def measure(self, content: bytes) -> tuple[int, int]:
        """Check the structure of a whole file and return height and width, in pixels."""

    def decode(self, content: bytes, *, channels: int) -> NDArray[np.uint8]:
        """Return the pixels of a file that `measure` has checked."""


FORMATS: tuple[ImageFormat, ...] = (jpeg, png)

# Larger than any line camera's strip, small enough that a decoded image fits in memory.
MAX_PIXELS = 100_000_000

# What the largest RGB image takes without compression, and then some.
MAX_BYTES = 400_000_000


def is_image_name(name: str) -> bool:
    """Whether a file name has the extension of an image format, in lower or upper case."""
    return Path(name).suffix.lower() in _extensions()


def _extensions() -> tuple[str, ...]:
    return tuple(extension for kind in FORMATS for extension in kind.EXTENSIONS)


def list_images(folder: Path) -> list[str]:
    """Name the images of a folder, sorted.

    Raises:
        DataError: if the folder does not exist or holds no image, a name cannot be written to a
            CSV file, or an image is a link.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. It should hold the images.")
    paths = sorted(path for path in folder.iterdir() if is_image_name(path.name))
    if not paths:
        *most, last = _extensions()
        raise DataError(f"{folder} holds no {', '.join(most)} or {last} file.")
    for path in paths:
        # Python hands over bytes that are not UTF-8 as lone surrogates, which no file takes.
        if not path.name.isprintable():
            raise DataError(f"{folder} holds a file named {path.name!r}. Rename it to plain text.")
        if path.is_symlink():
            raise DataError(
                f"{folder} holds a link named {path.name}, which may lead anywhere. Put the file "
                "itself there, or make the whole folder a link."
            )
    return [path.name for path in paths]


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
    try:
        return decode_image(_read(path), channels=channels)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def digest_image(path: Path) -> str:
    """SHA-256 of an image file, in hexadecimal; errors as `read_image`."""
    try:
        return hashlib.sha256(_read(path)).hexdigest()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def measure_image(path: Path) -> tuple[int, int]:
    """Height and width of an image file, in pixels, without decoding; errors as `read_image`."""
    try:
        return measure(_read(path))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    """Read a file; a pipe, which would never end, is not opened."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError("this is a folder, socket, pipe or device, not an image file.")
        if status.st_size > MAX_BYTES:
            raise DataError(f"the file has {status.st_size} bytes; at most {MAX_BYTES} are read.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}.") from None


def decode_image(content: bytes, *, channels: int) -> NDArray[np.uint8]:
    """Decode the bytes of an image file; as `read_image`, errors without a file name."""
    height, width = measure(content)
    if height * width > MAX_PIXELS:
        raise DataError(f"the image has {height}x{width} pixels; at most {MAX_PIXELS} are read.")
    image = _format_of(content).decode(content, channels=channels)
    if image.shape[:2] != (height, width):
        raise DataError("the image has another size than its header says; the file is damaged.")
    return image.reshape(height, width, channels)


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
        return _format_of(content).measure(content)
    except struct.error:
        raise DataError("the image is truncated: the file ends before its last part.") from None


def _format_of(content: bytes) -> ImageFormat:
    """Return the format of a file by its first bytes, whatever its name is."""
    for kind in FORMATS:
        if content.startswith(kind.START):
            return kind
    names = " nor a ".join(kind.NAME for kind in FORMATS)
    raise DataError(f"the file is neither a {names}, whatever its name says.")
