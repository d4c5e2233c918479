"""Run-length encoding of binary masks, as `train.csv` and `submission.csv` write it.

A mask is read column by column (down first, then right). Pixels are counted from 1.
"1 3 10 2" is pixels 1, 2, 3 and pixels 10, 11; "" is an empty mask.

`encode` and `decode` are exact inverses on every canonical string: runs ascending, not touching,
none empty. `parse` and `decode` reject all others, because a silent repair here becomes a wrong
Dice later. In memory, masks are stored as *runs*: an int32 array of shape (R, 2) with one
(start, length) per row, start counted from 0. No I/O, no torch.
"""

import re

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.errors import DataError

Runs = NDArray[np.int32]

# Nine digits are enough for any pixel of a 30,000 x 30,000 image and cannot overflow.
_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_NUMBERS = re.compile(rf"{_NUMBER}(?: {_NUMBER})*", re.ASCII)

# Most texts are pairs without a zero. Possessive quantifiers halve the time of `_NUMBERS`.
_PAIR = r"[1-9][0-9]{0,8}+ [1-9][0-9]{0,8}+"
_PAIRS = re.compile(rf"(?:{_PAIR} )*+{_PAIR}", re.ASCII)


def parse(rle: str, pixels: int) -> Runs:
    """Parse an RLE string, strictly.

    Args:
        rle: "start length start length ...", or "" for an empty mask.
        pixels: Number of pixels of the image, height times width.

    Returns:
        Runs, shape (R, 2), int32: start from 0, length.

    Raises:
        DataError: if the string is not canonical or exceeds the image; says which rule it breaks.
    """
    bounds = _read(rle, pixels)
    bounds[1::2] -= bounds[0::2]
    return bounds.astype(np.int32).reshape(-1, 2)


def _read(rle: str, pixels: int) -> NDArray[np.int64]:
    """As `parse`, but return the starts and ends of all runs as one ascending array."""
    if not rle:
        return np.empty(0, dtype=np.int64)
    if _PAIRS.fullmatch(rle):
        bounds = np.fromstring(rle, dtype=np.int64, sep=" ")
        bounds[0::2] -= 1
        bounds[1::2] += bounds[0::2]
        if bounds[-1] <= pixels and (bounds[:-1] < bounds[1:]).all():
            return bounds
    raise DataError(f"RLE {_fault(rle, pixels)}")


def _fault(rle: str, pixels: int) -> str:
    """Describe the first rule that an invalid string breaks; slow."""
    if not _NUMBERS.fullmatch(rle):
        return (
            f"{_cut(rle)!r} is not a list of whole numbers of at most nine digits, without "
            "leading zeros, with one space between them."
        )
    numbers = [int(word) for word in rle.split(" ")]
    if len(numbers) % 2:
        return f"has {len(numbers)} numbers, an odd count. It takes pairs of start and length."
    before, end = 0, 0
    for run, (start, length) in enumerate(zip(numbers[0::2], numbers[1::2], strict=True), start=1):
        if start < 1:
            return f"run {run} starts at 0. Pixels are counted from 1."
        if length < 1:
            return f"run {run} has length 0. A run has at least one pixel."
        if start < before:
            return f"run {run} starts at {start}, before the previous run. Sort the runs."
        if start < end:
            return f"run {run} overlaps the previous run, which ends at pixel {end - 1}."
        if start == end:
            return f"run {run} touches the previous run; write the two as one run."
        before, end = start, start + length
    return (
        f"ends at pixel {end - 1}, but the image has {pixels}. "
        "Was the mask made for another image size?"
    )


def _cut(text: str, limit: int = 40) -> str:
    """Shorten a value for an error message."""
    return text if len(text) <= limit else text[:limit] + "..."


def to_mask(runs: Runs, height: int, width: int, left: int = 0) -> NDArray[np.bool_]:
    """Draw the columns `left` to `left + width` of a mask.

    Args:
        runs: Runs of the whole mask, shape (R, 2).
        height: Height of the image, in pixels.
        width: Columns to draw.
        left: First column to draw, from 0.

    Returns:
        Mask, shape (height, width), column-major in memory.
    """
    bounds = runs.astype(np.int64)
    bounds[:, 0] -= left * height
    bounds[:, 1] += bounds[:, 0]
    # Runs outside become empty.
    size = height * width
    inside = np.minimum(np.maximum(bounds.ravel(), 0), size)
    return _fill(inside, size).reshape(width, height).T


def _fill(bounds: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Return a flat mask of `size` pixels that is True from each start to its end."""
    edges = np.empty(len(bounds) + 2, dtype=np.int64)
    edges[0], edges[1:-1], edges[-1] = 0, bounds, size
    # Gaps and runs alternate, starting with a gap.
    is_run = np.zeros(len(bounds) + 1, dtype=np.bool_)
    is_run[1::2] = True
    return is_run.repeat(edges[1:] - edges[:-1])


def decode(rle: str, height: int, width: int) -> NDArray[np.bool_]:
    """Decode an RLE string to a mask.

    Args:
        rle: Canonical RLE string; "" is the empty mask.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.

    Returns:
        Mask, shape (height, width), bool, column-major in memory.

    Raises:
        DataError: if the string is malformed or does not fit the image.
    """
    size = height * width
    return _fill(_read(rle, size), size).reshape(width, height).T


def to_runs(mask: NDArray[np.bool_]) -> Runs:
    """Return the runs of a mask.

    Args:
        mask: Shape (H, W); any non-zero pixel counts.

    Returns:
        Runs, shape (R, 2), int32: start from 0, length.

    Raises:
        DataError: if the mask is not two-dimensional.
    """
    if mask.ndim != 2:
        raise DataError(f"A mask has two axes (height, width), got shape {mask.shape}.")
    # With one bit per pixel, 64 pixels are compared at once.
    bits = np.packbits(_column_by_column(mask.astype(np.bool_, copy=False)), bitorder="little")
    words = np.zeros(len(bits) // 8 + 2, dtype="<u8")
    words.view(np.uint8)[8 : 8 + len(bits)] = bits
    # A run starts or ends where a pixel differs from the previous one, which may be in the previous
    # word. The empty word in front and the spare pixel at the end close the first and last runs.
    changes = words[1:] << 1
    changes |= words[:-1] >> 63
    changes ^= words[1:]
    changed = np.flatnonzero(changes != 0)
    in_changed = np.unpackbits(changes[changed].view(np.uint8), bitorder="little")
    bounds = np.flatnonzero(in_changed.view(np.bool_))
    bounds = 64 * changed[bounds >> 6] + (bounds & 63)
    bounds[1::2] -= bounds[0::2]
    runs: Runs = bounds.astype(np.int32).reshape(-1, 2)
    return runs


def _column_by_column(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the pixels in the order of the format, 0 or 1; a view if they are stored so."""
    pixels = mask.view(np.uint8)
    if pixels.flags.c_contiguous and pixels.size:
        # Faster than a copy of a transposed view in numpy.
        return np.asarray(cv2.transpose(pixels), dtype=np.uint8).ravel()
    return pixels.T.ravel()


def join(runs: Runs) -> str:
    """Format runs, shape (R, 2), as an RLE string; "" for no runs."""
    numbers = (runs + np.array([1, 0], dtype=np.int32)).ravel()
    # Three digits at a time as four bytes, from the last to the first, followed by a space.
    columns = [np.full(len(numbers), _SPACE)]
    while numbers.max(initial=0) > 999:
        rest = numbers // 1000
        columns.append(_THREE_DIGITS[numbers - 1000 * np.maximum(rest - 1, 0)])
        numbers = rest
    columns.append(_THREE_DIGITS[numbers])
    text = np.array(columns[::-1]).T.tobytes()
    return text.translate(None, b"\0")[:-1].decode("ascii")


# Four bytes each: 0 to 999 without leading zeros, 0 as nothing, then 000 to 999.
_THREE_DIGITS = np.frombuffer(
    b"".join(text.rjust(4, b"\0") for text in [b"", *(b"%d" % n for n in range(1, 1000))])
    + b"".join(b"\0%03d" % n for n in range(1000)),
    dtype=np.uint32,
)
_SPACE = np.frombuffer(b"\0\0\0 ", dtype=np.uint32)[0]


def encode(mask: NDArray[np.bool_]) -> str:
    """Encode a mask as its canonical RLE string.

    Args:
        mask: Shape (H, W); any non-zero pixel counts.

    Returns:
        "start length ..." counted from 1, down then right; "" for an empty mask.

    Raises:
        DataError: if the mask is not two-dimensional.
    """
    return join(to_runs(mask))
