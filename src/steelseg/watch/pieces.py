r"""Join strips that arrive in pieces, before they are predicted.

A regular expression is matched with the name of a file, without its suffix, and gives strip and
piece: with `(?P<strip>.+)_(?P<piece>\d+)`, coil7_0001.jpg is piece 1 of strip coil7. Pieces are
numbered from 0 or 1, from left to right. A group `of`, or `count`, gives their number; without
either, a strip ends `patience` seconds after its last piece.

The network sees the joined pixels, so masks, and defects across a seam, are bit-identical to those
of the strip in one file, for any network, flips and crops. The pixels of an incomplete strip are
kept in memory. A strip with missing pieces is refused after `patience` seconds; if they arrive
later it is still joined, as long as it is among the last refused ones.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats.images import MAX_PIXELS
from steelseg.errors import ConfigError
from steelseg.watch.arrivals import Arrival, FileVersion

# Refused strips that are kept because their missing pieces may still arrive.
_MOST_INCOMPLETE = 8

# A larger number would be a counter that the camera continues from strip to strip.
_MOST_PIECES = 9999


@dataclass(frozen=True)
class Strip:
    """A complete strip, or a refused one with the reason."""

    image_id: str
    sha256: str
    """SHA-256 of its file; of several pieces, the SHA-256 of theirs in order."""

    files: tuple[tuple[FileVersion, str], ...]
    """Its files with the SHA-256 of each, from left to right."""

    seen: float
    """When its last file was first seen, by the clock of `Arrivals`."""

    image_hwc: NDArray[np.uint8] | None
    reason: str = ""


@dataclass
class _Pieces:
    """The pieces of one strip that have arrived."""

    by_number: dict[int, Arrival] = field(default_factory=dict)
    of: int | None = None
    last: float = 0.0
    is_refused: bool = False

    def missing(self) -> list[int]:
        """Return the missing numbers; without a count, those before the last piece."""
        first = min(self.by_number, default=1) if 0 in self.by_number else 1
        end = first + self.of if self.of else max(self.by_number) + 1
        return [number for number in range(first, end) if number not in self.by_number]


class Joiner:
    """Joins pieces to strips."""

    def __init__(self, pattern: str | None, *, count: int | None, patience: float) -> None:
        """Take the pattern; None treats every file as a complete strip.

        Args:
            pattern: A regular expression with the groups `strip` and `piece`, optionally `of`.
            count: Number of pieces of every strip, if the names do not contain it.
            patience: Seconds without a new piece after which a strip has ended.

        Raises:
            ConfigError: if the pattern is wrong.
        """
        if pattern is None and count is not None:
            raise ConfigError("--piece-count needs --pieces PATTERN, which identifies the pieces.")
        self._pattern = None if pattern is None else _compile(pattern)
        self._count = count
        self._patience = patience
        self._strips: dict[str, _Pieces] = {}

    @property
    def waiting(self) -> int:
        """Number of incomplete strips."""
        return sum(not pieces.is_refused for pieces in self._strips.values())

    def add(self, arrival: Arrival, now: float) -> Iterator[Strip]:
        """Take a file, and yield the strip that it completes."""
        name = arrival.version.name
        match = self._pattern.fullmatch(name.rpartition(".")[0]) if self._pattern else None
        if match is None or arrival.image_hwc is None:
            yield _whole(arrival)
            return
        number = _number(match["piece"])
        of = _number(match.groupdict().get("of")) or self._count
        if number is None or number > (of or _MOST_PIECES):
            fault = f"its name gives piece {match['piece'][:20]!r} of at most {of or _MOST_PIECES}."
            yield _whole(replace(arrival, image_hwc=None, reason=fault))
            return
        pieces = self._strips.setdefault(match["strip"], _Pieces())
        pieces.by_number[number] = arrival
        pieces.of, pieces.last = of, now
        if of is not None and not pieces.missing():
            yield _join(match["strip"], self._strips.pop(match["strip"]))

    def end(self, now: float) -> Iterator[Strip]:
        """Yield strips without a new piece for `patience` seconds: joined, or refused."""
        late = [s for s, p in self._strips.items() if now - p.last >= self._patience]
        for name in late:
            pieces = self._strips[name]
            if missing := pieces.missing():
                if not pieces.is_refused:
                    pieces.is_refused = True
                    yield _refused(name, pieces, f"{_listed(missing)} did not arrive.")
            else:
                yield _join(name, self._strips.pop(name))
        refused = [name for name, pieces in self._strips.items() if pieces.is_refused]
        for name in islice(refused, max(0, len(refused) - _MOST_INCOMPLETE)):
            del self._strips[name]


def _number(text: str | None) -> int | None:
    """Parse a number in a name; None if it is not one, or too long for a piece."""
    is_short = text is not None and text.isdecimal() and len(text) <= len(str(_MOST_PIECES))
    return int(text) if text is not None and is_short else None


def _compile(pattern: str) -> re.Pattern[str]:
    """Compile a pattern, or raise ConfigError."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--pieces {pattern!r} is not a regular expression: {error}.") from None
    if lacking := {"strip", "piece"} - compiled.groupindex.keys():
        raise ConfigError(
            f"--pieces {pattern!r} has no group {min(lacking)!r}. An example with both: "
            r"'(?P<strip>.+)_(?P<piece>\d+)'."
        )
    return compiled


def _whole(arrival: Arrival) -> Strip:
    """Return a strip of a single file."""
    return Strip(
        arrival.version.name,
        arrival.sha256,
        ((arrival.version, arrival.sha256),),
        arrival.seen,
        arrival.image_hwc,
        arrival.reason,
    )


def _join(name: str, pieces: _Pieces) -> Strip:
    """Join the pieces of a strip from left to right."""
    images = [piece.image_hwc for piece in _ordered(pieces) if piece.image_hwc is not None]
    heights = sorted({image.shape[0] for image in images})
    if len(heights) > 1:
        sizes = " and ".join(map(str, heights))
        return _refused(name, pieces, f"its pieces have different heights: {sizes} pixels.")
    if sum(image.shape[0] * image.shape[1] for image in images) > MAX_PIXELS:
        return _refused(name, pieces, f"its pieces have more than {MAX_PIXELS} pixels together.")
    return _strip(name, pieces, np.concatenate(images, axis=1), "")


def _refused(name: str, pieces: _Pieces, reason: str) -> Strip:
    return _strip(name, pieces, None, reason)


def _strip(name: str, pieces: _Pieces, image_hwc: NDArray[np.uint8] | None, reason: str) -> Strip:
    """Return the strip of some pieces."""
    ordered = _ordered(pieces)
    return Strip(
        name,
        hashlib.sha256("".join(piece.sha256 for piece in ordered).encode()).hexdigest(),
        tuple((piece.version, piece.sha256) for piece in ordered),
        max(piece.seen for piece in ordered),
        image_hwc,
        reason,
    )


def _ordered(pieces: _Pieces) -> list[Arrival]:
    """Return the pieces from left to right."""
    return [pieces.by_number[number] for number in sorted(pieces.by_number)]


def _listed(numbers: list[int]) -> str:
    """Name the first few pieces."""
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"piece {shown}" if len(numbers) == 1 else f"pieces {shown}"
