"""Two kinds of samples in one batch: those that an epoch visits, and others that come on top.

No batch has more than a share of the others. Every sample of the first kind comes once an epoch,
as it does without them; the others come once at most, spread evenly, and the epoch is longer by
their number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelseg.config.train import largest_part


@dataclass(frozen=True)
class Extra:
    """Samples that come on top."""

    num_samples: int
    """How many there are; an epoch takes as many of them as its batches have room for."""

    share: float
    """Largest share of a batch that they have, in (0, 1)."""

    chances: NDArray[np.float64] | None = None
    """Chance of each to be drawn, with replacement; None takes each once at most."""


def lay_out(num_samples: int, extra: Extra | None, *, batch_size: int) -> list[tuple[int, int]]:
    """Say how many samples of each kind every batch of an epoch takes.

    Args:
        num_samples: Samples of the first kind; each has its place.
        extra: The others; None has none.
        batch_size: Samples a batch; the last batch has what remains, but never a single one
            unless it is the only batch.

    Returns:
        Samples of the first kind, and others, of each batch.
    """
    others = extra.num_samples if extra else 0
    sizes = _sizes(num_samples + others, batch_size)
    while extra and others > sum(largest_part(extra.share, size) for size in sizes):
        others -= 1
        sizes = _sizes(num_samples + others, batch_size)
    rooms = np.cumsum([0] + [largest_part(extra.share, size) if extra else 0 for size in sizes])
    # Rounding down a growing line gives no batch more than its room.
    taken = np.diff(others * rooms // max(int(rooms[-1]), 1))
    batches = [(size - int(part), int(part)) for size, part in zip(sizes, taken, strict=True)]
    # Batch normalisation has no variance over one sample, so a last single one sits out.
    is_single = sum(batches[-1]) == 1 < min(batch_size, len(batches))
    return batches[:-1] if is_single else batches


def _sizes(total: int, batch_size: int) -> list[int]:
    """Samples of each batch."""
    whole, rest = divmod(total, batch_size)
    return [batch_size] * whole + [rest] * (rest > 0 or whole == 0)
