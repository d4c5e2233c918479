"""Read image files, grayscale or colour; damaged files are rejected.

Decoders repair silently: OpenCV returns a full-size image for half a JPEG. So the modules in
`FORMATS` check the structure of a file from start to end before it is decoded, and the decoded size
is compared with the header. The size is known before decoding, so an image that is too large costs
nothing.

A folder may be a link, but an image in it may not, because a link among thousands of images can
lead anywhere unnoticed.

Arrays are uint8 `image_hwc`, shape (H, W, channels), channels 1 (grayscale) or 3 (RGB).
"""

import hashlib
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import jpeg, png
from steelseg.errors import DataError
from steelseg.progress import Progress

T = TypeVar("T")


class ImageFormat(Protocol):
    """A module that reads an image format."""

    NAME: str
    EXTENSIONS: tuple[str, ...]
    """Endings of file names, in lower case, with the dot."""
    MEDIA_TYPE: str
    """As in the Content-Type header of HTTP."""

    def matches(self, content: bytes) -> bool:
        """Whether the first bytes of a file, which may be truncated, are those of this format."""

    def measure(self, content: bytes) -> tuple[int, int]:
        """Check the structure of a whole file and return height and width, in pixels."""

    def decode(self, content: bytes, *, channels: int) -> NDArray[np.uint8]:
        """Return the pixels of a file that `measure` has checked."""


FORMATS: tuple[ImageFormat, ...] = (jpeg, png)

# Larger than the strips of any line camera, and small enough to fit in memory when decoded.
MAX_PIXELS = 100_000_000

# More than the largest RGB image takes without compression.
MAX_BYTES = 400_000_000


def is_image_name(name: str) -> bool:
    """Whether a file name has the extension of an image format, in lower or upper case."""
    return any(Path(name).suffix.lower() in kind.EXTENSIONS for kind in FORMATS)


def format_names() -> str:
    """Return the names of all formats for a message: "JPEG or PNG"."""
    return _either([kind.NAME for kind in FORMATS])


def format_extensions() -> str:
    """Return the extensions of all formats for a message: ".jpg, .jpeg or .png"."""
    return _either([extension for kind in FORMATS for extension in kind.EXTENSIONS])


def _either(words: Sequence[str]) -> str:
    """Join words as "A, B or C"."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def find_format(content: bytes) -> ImageFormat | None:
    """Return the format of a file by its first bytes, whatever its name is; None if it has none."""
    return next((kind for kind in FORMATS if kind.matches(content)), None)


def list_images(folder: Path) -> list[str]:
    """Return the names of the images in a folder, sorted.

    Raises:
        DataError: if the folder does not exist or contains no image, a name cannot be written to a
            CSV file, or an image is a link.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. It should contain the images.")
    paths = sorted(path for path in folder.iterdir() if is_image_name(path.name))
    if not paths:
        raise DataError(f"{folder} contains no {format_extensions()} file.")
    for path in paths:
        # Python represents names that are not UTF-8 by lone surrogates, which cannot be written.
        if not path.name.isprintable():
            raise DataError(
                f"{folder} contains a file named {path.name!r}. Use printable characters only."
            )
        if path.is_symlink():
            raise DataError(
                f"{folder} contains a link named {path.name}, which may lead anywhere. Put the "
                "file itself there, or make the whole folder a link."
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
        path: A file of one of `FORMATS`.
        channels: 1 for grayscale, 3 for RGB; colour is converted to grayscale by luminance.

    Returns:
        Image, shape (H, W, channels), uint8.

    Raises:
        DataError: if the file is missing, truncated, damaged, too large or not an image.
    """
    with _naming(path):
        return decode_image(_read(path), channels=channels)


def hash_image(path: Path) -> str:
    """Return the SHA-256 of an image file, in hexadecimal; errors as `read_image`."""
    with _naming(path):
        return hashlib.sha256(_read(path)).hexdigest()


def measure_image(path: Path) -> tuple[int, int]:
    """Return height and width of an image, in pixels, without decoding; errors as `read_image`."""
    with _naming(path):
        return measure(_read(path))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the path in front of the message of a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    """Read a regular file; pipes, which would never end, are not opened."""
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
    """Decode the bytes of an image file, as `read_image`; errors do not name the file."""
    height, width = measure(content)
    if height * width > MAX_PIXELS:
        raise DataError(f"the image has {height}x{width} pixels; at most {MAX_PIXELS} are read.")
    image = _format_of(content).decode(content, channels=channels)
    if image.shape[:2] != (height, width):
        raise DataError("the size of the image differs from its header; the file is damaged.")
    return image.reshape(height, width, channels)


def measure(content: bytes) -> tuple[int, int]:
    """Check the structure of an image file from start to end, and read its size.

    Returns:
        Height and width of the header, in pixels.

    Raises:
        DataError: if the file is empty, not an image, truncated, or has a broken structure.
    """
    if not content:
        raise DataError("the file is empty.")
    try:
        return _format_of(content).measure(content)
    except struct.error:
        raise DataError("the image is truncated: the file ends before its last part.") from None


def _format_of(content: bytes) -> ImageFormat:
    """Return the format of a file, or raise DataError."""
    kind = find_format(content)
    if kind is None:
        raise DataError(f"the file is not a {format_names()}, whatever its name says.")
    return kind
