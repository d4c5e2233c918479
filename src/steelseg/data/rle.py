"""Run-length encoding of binary masks, as `train.csv` and `submission.csv` write it.

A mask is read column by column (down first, then right). Pixels are counted from 1.
"1 3 10 2" is pixels 1, 2, 3 and pixels 10, 11; "" is an empty mask.

`encode` and `decode` are exact inverses on every canonical string: runs ascending,
not touching, none empty. `parse` and `decode` refuse the rest, because a silent repair
here becomes a wrong Dice later. In memory a mask waits as *runs*: an int32 array of shape
(R, 2) with one (start, length) a row, start counted from 0. No I/O, no torch.
"""

import re

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.errors import DataError

Runs = NDArray[np.int32]

# Nine digits hold any pixel of a 30,000 x 30,000 image and cannot overflow.
_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_NUMBERS = re.compile(rf"{_NUMBER}(?: {_NUMBER})*", re.ASCII)


def parse(rle: str, pixels: int) -> Runs:
    """Read an RLE string and hold it to the format's rules.

    Args:
        rle: "start length start length ...", or "" for an empty mask.
        pixels: Pixels of the image, height times width.

    Returns:
        Runs, shape (R, 2), int32: start from 0, length.

    Raises:
        DataError: if the string is not canonical or leaves the image; the message names the rule.
    """
    if not rle:
        return np.empty((0, 2), dtype=np.int32)
    if not _NUMBERS.fullmatch(rle):
        raise DataError(
            f"RLE {_cut(rle)!r} is not a list of whole numbers of at most nine digits, without "
            "leading zeros, with one space between them."
        )
    numbers = np.fromstring(rle, dtype=np.int64, sep=" ")
    if numbers.size % 2:
        raise DataError(
            f"RLE has {numbers.size} numbers, an odd count. It takes pairs of start and length."
        )
    starts, lengths = numbers[0::2], numbers[1::2]
    _refuse_bad_runs(starts, lengths, pixels)
    return np.stack([starts - 1, lengths], axis=1).astype(np.int32)


def _refuse_bad_runs(starts: NDArray[np.int64], lengths: NDArray[np.int64], pixels: int) -> None:
    """Raise DataError for the first run that breaks a rule."""
    if (bad := np.flatnonzero(starts < 1)).size:
        raise DataError(f"RLE run {bad[0] + 1} starts at 0. Pixels are counted from 1.")
    if (bad := np.flatnonzero(lengths < 1)).size:
        raise DataError(f"RLE run {bad[0] + 1} has length 0. A run holds at least one pixel.")
    ends = starts + lengths
    gaps = starts[1:] - ends[:-1]
    if (bad := np.flatnonzero(gaps <= 0)).size:
        run = int(bad[0])
        if starts[run + 1] < starts[run]:
            fault = f"starts at {starts[run + 1]}, before the run in front of it: runs are unsorted"
        elif gaps[run] < 0:
            fault = f"overlaps the run in front of it, which ends at pixel {ends[run] - 1}"
        else:
            fault = "touches the run in front of it; write the two as one run"
        raise DataError(f"RLE run {run + 2} {fault}.")
    if (last := int(ends[-1]) - 1) > pixels:
        raise DataError(
            f"RLE ends at pixel {last}, but the image has {pixels}. "
            "Was the mask made for another image size?"
        )


def _cut(text: str, limit: int = 40) -> str:
    """Shorten a value for an error message."""
    return text if len(text) <= limit else text[:limit] + "..."


def draw(runs: Runs, height: int, width: int, left: int = 0) -> NDArray[np.bool_]:
    """Draw the columns `left` to `left + width` of a mask.

    Args:
        runs: Runs of the whole mask, shape (R, 2).
        height: Height of the image, in pixels.
        width: Columns to draw.
        left: First column to draw, from 0.

    Returns:
        Mask, shape (height, width), column-major in memory.
    """
    size = height * width
    begins = runs[:, 0] - left * height
    ends = begins + runs[:, 1]
    first = int(np.searchsorted(ends, 0, side="right"))
    last = int(np.searchsorted(begins, size, side="left"))
    bounds = np.zeros(2 * max(last - first, 0) + 2, dtype=np.int64)
    bounds[1:-1:2] = np.maximum(begins[first:last], 0)
    bounds[2:-1:2] = np.minimum(ends[first:last], size)
    bounds[-1] = size
    # Gaps and runs take turns, a gap first.
    is_run = np.arange(len(bounds) - 1) % 2 == 1
    return np.repeat(is_run, np.diff(bounds)).reshape(width, height).T


def decode(rle: str, height: int, width: int) -> NDArray[np.bool_]:
    """Turn an RLE string into a mask.

    Args:
        rle: Canonical RLE string; "" is the empty mask.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.

    Returns:
        Mask, shape (height, width), bool, column-major in memory.

    Raises:
        DataError: if the string is malformed or does not fit the image.
    """
    return draw(parse(rle, height * width), height, width)


def to_runs(mask: NDArray[np.bool_]) -> Runs:
    """Find the runs of a mask.

    Args:
        mask: Shape (H, W); any non-zero pixel counts.

    Returns:
        Runs, shape (R, 2), int32: start from 0, length.

    Raises:
        DataError: if the mask is not two-dimensional.
    """
    if mask.ndim != 2:
        raise DataError(f"A mask has two axes (height, width), got shape {mask.shape}.")
    # A search in bytes runs at the speed of memory; numpy would write arrays as large again.
    content = _column_by_column(mask.astype(np.bool_, copy=False)).tobytes()
    numbers: list[int] = []
    start = content.find(b"\1")
    while start >= 0:
        end = content.find(b"\0", start)
        end = len(content) if end < 0 else end
        numbers += (start, end - start)
        start = content.find(b"\1", end)
    return np.array(numbers, dtype=np.int32).reshape(-1, 2)


def _column_by_column(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The pixels in the order of the format, 0 or 1; a view where they lie so already."""
    pixels = mask.view(np.uint8)
    if pixels.flags.c_contiguous and pixels.size:
        # Faster than numpy's copy of a transposed view.
        return np.asarray(cv2.transpose(pixels), dtype=np.uint8).ravel()
    return pixels.T.ravel()


def join(runs: Runs) -> str:
    """Write runs, shape (R, 2), as an RLE string; no runs give ""."""
    numbers = (runs + np.array([1, 0], dtype=np.int32)).ravel().tolist()
    # One format string is faster than a string for each number.
    return ("%d " * len(numbers))[:-1] % tuple(numbers)


def encode(mask: NDArray[np.bool_]) -> str:
    """Turn a mask into its canonical RLE string.

    Args:
        mask: Shape (H, W); any non-zero pixel counts.

    Returns:
        "start length ..." counted from 1, down then right; "" for an empty mask.

    Raises:
        DataError: if the mask is not two-dimensional.
    """
    return join(to_runs(mask))
