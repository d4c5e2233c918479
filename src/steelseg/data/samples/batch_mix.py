"""Batches that mix regular samples with extra ones, such as pseudo-labelled strips.

Extra samples are limited to a share of each batch. Every regular sample comes once per epoch, as
without extra samples; each extra sample comes at most once, spread evenly, and makes the epoch
longer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelseg.config.train import max_samples


@dataclass(frozen=True)
class ExtraSamples:
    """Samples that are added to the regular ones."""

    num_samples: int
    """Number of samples; an epoch uses as many of them as its batches have room for."""

    share: float
    """Largest share of a batch that they take, in (0, 1)."""

    chances: NDArray[np.float64] | None = None
    """Sampling weight of each, drawn with replacement; None uses each at most once."""


def plan_batches(
    num_samples: int, extra: ExtraSamples | None, *, batch_size: int
) -> list[tuple[int, int]]:
    """Return the number of regular and of extra samples in each batch of an epoch.

    Args:
        num_samples: Number of regular samples; all are used.
        extra: The extra samples, or None.
        batch_size: Samples per batch. The last batch is smaller if the samples do not fill it,
            and dropped if it has one sample and is not the only batch.
    """
    num_extra = extra.num_samples if extra else 0
    sizes = _sizes(num_samples + num_extra, batch_size)
    while extra and num_extra > sum(max_samples(extra.share, size) for size in sizes):
        num_extra -= 1
        sizes = _sizes(num_samples + num_extra, batch_size)
    rooms = np.cumsum([0] + [max_samples(extra.share, size) if extra else 0 for size in sizes])
    # Rounding a growing line down never exceeds the room of a batch.
    taken = np.diff(num_extra * rooms // max(int(rooms[-1]), 1))
    batches = [(size - int(part), int(part)) for size, part in zip(sizes, taken, strict=True)]
    # Batch normalisation needs two samples for a variance, so a single last one is dropped.
    is_single = sum(batches[-1]) == 1 < min(batch_size, len(batches))
    return batches[:-1] if is_single else batches


def _sizes(total: int, batch_size: int) -> list[int]:
    """Return the size of each batch."""
    whole, rest = divmod(total, batch_size)
    return [batch_size] * whole + [rest] * (rest > 0 or whole == 0)
