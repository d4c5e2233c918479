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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import jpeg, png
from steelseg.errors import DataError
from steelseg.progress import Progress

T = TypeVar("T")

SUFFIXES = (".jpg", ".jpeg", ".png")

# Larger than any line camera's strip, small enough that a decoded image fits in memory.
MAX_PIXELS = 100_000_000

# What the largest RGB image takes without compression, and then some.
MAX_BYTES = 400_000_000


def list_images(folder: Path) -> list[str]:
    """Name the images of a folder, sorted.

    Raises:
        DataError: if the folder does not exist or holds no image, a name cannot be written to a
            CSV file, or an image is a link.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. It should hold the images.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no .jpg, .jpeg or .png file.")
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


def map_images(
    function: Callable[[Path], T], paths: Sequence[Path], *, title: str, progress: Progress
) -> Iterator[T]:
    """Apply a function to image files on all cores; yield the results in the order of `paths`.

    Decoding releases the interpreter lock, so threads are enough.
    """
    pool = ThreadPoolExecutor()
    try:
        yield from progress(pool.map(function, paths), len(paths), title)
    finally:
        # Ctrl-C does not wait for thousands of images.
        pool.shutdown(cancel_futures=True)


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


def hash_image(path: Path) -> str:
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
    decode = png.decode if content.startswith(png.START) else jpeg.decode
    image = decode(content, channels=channels)
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
        if content.startswith(png.START):
            return png.measure(content)
        if content.startswith(jpeg.START):
            return jpeg.measure(content)
    except struct.error:
        raise DataError("the image is truncated: the file ends before its last part.") from None
    raise DataError("the file is neither a JPEG nor a PNG, whatever its name says.")
