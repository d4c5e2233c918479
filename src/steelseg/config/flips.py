"""Names of the flips of test-time augmentation, as settings and files write them."""

from typing import Literal, get_args

Flips = Literal["none", "hflip", "vflip", "both"]
"""none: the strip itself. hflip, vflip: also flipped left-right or top-bottom. both: all four."""

FLIPS: tuple[Flips, ...] = get_args(Flips)
