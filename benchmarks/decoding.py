"""Decoding strips: `steelseg` with its walk and its strictness beside OpenCV, in turns.

    python benchmarks/decoding.py FOLDER

FOLDER holds JPEG or PNG files. Prints processor time a file, in ms, for grey and RGB, the ratio
of the medians, and in how many files a pixel differs.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import cv2
import numpy as np

from steelseg.data.formats.images import decode_image, list_images

FLAGS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR_RGB}


def decode_by_opencv(content, *, channels):
    """Decode as OpenCV does it alone."""
    flag = FLAGS[channels] | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(content, np.uint8), flag)


def compare(contents, *, channels, rounds):
    """Time both, one round each at a time."""
    seconds = {decode_by_opencv: [], decode_image: []}
    for _ in range(rounds):
        for decode, taken in seconds.items():
            begun = time.process_time()
            for content in contents:
                decode(content, channels=channels)
            taken.append((time.process_time() - begun) / len(contents))
    opencv_ms, steelseg_ms = (1000 * statistics.median(taken) for taken in seconds.values())
    differing = sum(
        not np.array_equal(
            decode_by_opencv(content, channels=channels).reshape(-1),
            decode_image(content, channels=channels).reshape(-1),
        )
        for content in contents
    )
    return {
        "channels": channels,
        "files": len(contents),
        "opencv_ms": round(opencv_ms, 3),
        "steelseg_ms": round(steelseg_ms, 3),
        "ratio": round(steelseg_ms / opencv_ms, 3),
        "files_that_differ": differing,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    contents = [(args.folder / name).read_bytes() for name in list_images(args.folder)]
    found = [compare(contents, channels=channels, rounds=args.rounds) for channels in FLAGS]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
