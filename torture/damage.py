"""Damage files: flipped bits, truncation, other files under their names.

`spoil` does not depend on the content of the files, and always changes their bytes.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

Change = Callable[[bytes, random.Random], bytes]


def _flip_bit(content: bytes, rng: random.Random) -> bytes:
    # The first kilobytes hold headers, so half of the flips go there.
    place = rng.randrange(min(len(content), rng.choice((4096, len(content)))))
    changed = bytearray(content)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_bits(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(2, 64)):
        content = _flip_bit(content, rng)
    return content


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _empty(_: bytes, __: random.Random) -> bytes:
    return b""


def _append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randint(1, 5000))


def _zero_block(content: bytes, rng: random.Random) -> bytes:
    """Overwrite a block with zeros, as a file system does that lost it."""
    begin = rng.randrange(len(content)) // 4096 * 4096
    block = content[begin : begin + 4096]
    return content[:begin] + bytes(len(block)) + content[begin + len(block) :]


def _noise_block(content: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(content))
    block = content[begin : begin + 512]
    return content[:begin] + rng.randbytes(len(block)) + content[begin + len(block) :]


def _cut_out(content: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(content))
    return content[:begin] + content[begin + rng.randint(1, 4096) :]


CHANGES: dict[str, Change] = {
    "one bit": _flip_bit,
    "some bits": _flip_bits,
    "cut short": _truncate,
    "empty": _empty,
    "appended": _append,
    "a block of zeros": _zero_block,
    "a block of noise": _noise_block,
    "cut out": _cut_out,
}


def spoil(files: Sequence[Path], strangers: Sequence[Path], rng: random.Random) -> str:
    """Spoil each of some files, all in one way.

    Args:
        files: The files.
        strangers: Whole files of the same kind that belong elsewhere, to be put in their places.
        rng: Decides.

    Returns:
        What was done.
    """
    if strangers and rng.random() < 0.3:
        stranger = rng.choice(strangers)
        for file in files:
            file.write_bytes(stranger.read_bytes())
        return f"{stranger.parent.parent.name}/{stranger.name} in its place"
    name = rng.choice(list(CHANGES))
    for file in files:
        before = content = file.read_bytes()
        while content == before:
            content = CHANGES[name](before, rng)
        file.write_bytes(content)
    return name
