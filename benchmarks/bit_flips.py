"""One flipped bit in a JPEG: what OpenCV makes of it, and what `steelseg` does.

    python benchmarks/bit_flips.py FOLDER [--images 40] [--flips 25]

FOLDER holds JPEG files. Prints, for bits of headers and of scans, how often each side refuses the
file, gives the same pixels, or other pixels without a word.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from steelseg.data.formats.images import decode_image, list_images
from steelseg.errors import DataError


def opencv(content):
    """Grey pixels, or None if OpenCV refuses."""
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags)


def steelseg(content):
    """Grey pixels, or None if `steelseg` refuses."""
    try:
        return decode_image(content, channels=1)[..., 0]
    except DataError:
        return None


def outcome(found, sound):
    if found is None:
        return "refused"
    return "same pixels" if np.array_equal(found, sound) else "other pixels"


def count(contents, *, part, flips):
    """Flip bits of one part of each file, and count what comes of it."""
    chance = np.random.default_rng(0)
    counts = {side.__name__: Counter() for side in (opencv, steelseg)}
    for content in contents:
        sound = steelseg(content)
        scan = content.rindex(b"\xff\xda") + 14
        begin, end = (0, scan) if part == "header" else (scan, len(content) - 2)
        for bit in chance.integers(8 * begin, 8 * end, flips):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            for side in (opencv, steelseg):
                counts[side.__name__][outcome(side(bytes(damaged)), sound)] += 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--flips", type=int, default=25, help="bits of each part of an image")
    args = parser.parse_args()
    names = [name for name in list_images(args.folder) if name.endswith(".jpg")][: args.images]
    contents = [(args.folder / name).read_bytes() for name in names]
    parts = ("header", "scan")
    found = {part: count(contents, part=part, flips=args.flips) for part in parts}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
