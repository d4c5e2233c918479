r"""Strips that come in pieces: put together along the strip before they are predicted.

A pattern reads the name of a file, without its suffix, and says which strip it is of and which
piece: `(?P<strip>.+)_(?P<piece>\d+)` makes of coil7_0001.jpg the piece 1 of strip coil7. Pieces
count from 0 or 1, and lie side by side from left to right. A group `of`, or `count`, says how many
there are; else a strip ends when `patience` seconds have passed since its last piece.

The network sees the joined pixels, so masks, and defects across a seam, are to the bit those of
the strip in one piece, whatever the network, its flips and its crops. Until a strip is whole, its
pixels wait in memory. A strip whose pieces do not all come is refused after `patience` seconds,
and still joined when they come later, if it is among the last of its kind.
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

# Strips that were refused for want of pieces, and could still become whole.
_MOST_INCOMPLETE = 8

# More would be a counter of the camera's that runs on from strip to strip.
_MOST_PIECES = 9999


@dataclass(frozen=True)
class Strip:
    """A strip to be predicted, or refused for a reason."""

    image_id: str
    sha256: str
    """Of its file; of several pieces, over their SHA-256s in order."""

    files: tuple[tuple[FileVersion, str], ...]
    """Its files with the SHA-256 of each, from left to right."""

    seen: float
    """When the last of its files was first seen, by the clock of `Arrivals`."""

    image_hwc: NDArray[np.uint8] | None
    reason: str = ""


@dataclass
class _Pieces:
    """What has come of one strip."""

    by_number: dict[int, Arrival] = field(default_factory=dict)
    of: int | None = None
    last: float = 0.0
    is_refused: bool = False

    def missing(self) -> list[int]:
        """The numbers that are not there; without a count none behind the last one is."""
        first = min(self.by_number, default=1) if 0 in self.by_number else 1
        end = first + self.of if self.of else max(self.by_number) + 1
        return [number for number in range(first, end) if number not in self.by_number]


class Joiner:
    """Strips in the making."""

    def __init__(self, pattern: str | None, *, count: int | None, patience: float) -> None:
        """Take the pattern; None takes every file for a whole strip.

        Args:
            pattern: A regular expression with the groups `strip` and `piece`, perhaps `of`.
            count: Pieces of every strip, where the names do not say it.
            patience: Seconds without a new piece after which a strip has ended.

        Raises:
            ConfigError: if the pattern is wrong.
        """
        if pattern is None and count is not None:
            raise ConfigError("--piece-count needs --pieces PATTERN, which says what a piece is.")
        self._pattern = None if pattern is None else _compile(pattern)
        self._count = count
        self._patience = patience
        self._strips: dict[str, _Pieces] = {}

    @property
    def waiting(self) -> int:
        """Strips of which a piece has come, and not all."""
        return sum(not pieces.is_refused for pieces in self._strips.values())

    def add(self, arrival: Arrival, now: float) -> Iterator[Strip]:
        """Take a file, and yield the strip that is whole with it."""
        name = arrival.version.name
        match = self._pattern.fullmatch(name.rpartition(".")[0]) if self._pattern else None
        if match is None or arrival.image_hwc is None:
            yield _whole(arrival)
            return
        number = _number(match["piece"])
        of = _number(match.groupdict().get("of")) or self._count
        if number is None or number > (of or _MOST_PIECES):
            fault = f"its name says piece {match['piece'][:20]!r} of {of or _MOST_PIECES} at most."
            yield _whole(replace(arrival, image_hwc=None, reason=fault))
            return
        pieces = self._strips.setdefault(match["strip"], _Pieces())
        pieces.by_number[number] = arrival
        pieces.of, pieces.last = of, now
        if of is not None and not pieces.missing():
            yield _join(match["strip"], self._strips.pop(match["strip"]))

    def end(self, now: float) -> Iterator[Strip]:
        """Yield the strips that have waited long enough: whole if no count says otherwise."""
        late = [s for s, p in self._strips.items() if now - p.last >= self._patience]
        for name in late:
            pieces = self._strips[name]
            if missing := pieces.missing():
                if not pieces.is_refused:
                    pieces.is_refused = True
                    yield _refused(name, pieces, f"{_listed(missing)} did not come.")
            else:
                yield _join(name, self._strips.pop(name))
        refused = [name for name, pieces in self._strips.items() if pieces.is_refused]
        for name in islice(refused, max(0, len(refused) - _MOST_INCOMPLETE)):
            del self._strips[name]


def _number(text: str | None) -> int | None:
    """A number out of a name; None if it is none, or that of no strip's piece."""
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
    """A file that is a strip by itself."""
    return Strip(
        arrival.version.name,
        arrival.sha256,
        ((arrival.version, arrival.sha256),),
        arrival.seen,
        arrival.image_hwc,
        arrival.reason,
    )


def _join(name: str, pieces: _Pieces) -> Strip:
    """Put the pieces of a strip side by side."""
    images = [piece.image_hwc for piece in _ordered(pieces) if piece.image_hwc is not None]
    heights = sorted({image.shape[0] for image in images})
    if len(heights) > 1:
        sizes = " and ".join(map(str, heights))
        return _refused(name, pieces, f"its pieces are {sizes} pixels high, which fits no strip.")
    if sum(image.shape[0] * image.shape[1] for image in images) > MAX_PIXELS:
        return _refused(name, pieces, f"its pieces have more than {MAX_PIXELS} pixels together.")
    return _strip(name, pieces, np.concatenate(images, axis=1), "")


def _refused(name: str, pieces: _Pieces, reason: str) -> Strip:
    return _strip(name, pieces, None, reason)


def _strip(name: str, pieces: _Pieces, image_hwc: NDArray[np.uint8] | None, reason: str) -> Strip:
    """A strip of pieces."""
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
    """The pieces from left to right."""
    return [pieces.by_number[number] for number in sorted(pieces.by_number)]


def _listed(numbers: list[int]) -> str:
    """Name pieces, of many the first ones."""
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"piece {shown}" if len(numbers) == 1 else f"pieces {shown}"
