"""Decoding and encoding real masks, beside the functions that every Kaggle notebook copies.

    python benchmarks/rle.py ROWS/train.csv [--rounds 3]

Both sides do the same rows in turns; the best round of each counts. Ours refuses malformed text,
theirs takes it.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np

from steelseg.data.formats import rle

HEIGHT, WIDTH = 256, 1600


def kaggle_decode(text, shape):
    numbers = text.split()
    starts, lengths = (np.asarray(x, dtype=int) for x in (numbers[0::2], numbers[1::2]))
    starts = starts - 1
    ends = starts + lengths
    image = np.zeros(shape[0] * shape[1], dtype=np.uint8)
    for low, high in zip(starts, ends, strict=True):
        image[low:high] = 1
    return image.reshape(shape[::-1]).T


def kaggle_encode(mask):
    pixels = mask.T.flatten()
    pixels = np.concatenate([[0], pixels, [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train_csv", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with args.train_csv.open() as file:
        texts = [row["EncodedPixels"] for row in csv.DictReader(file)]
    sides = {
        "kaggle": (lambda text: kaggle_decode(text, (HEIGHT, WIDTH)), kaggle_encode),
        "steelseg": (lambda text: rle.decode(text, HEIGHT, WIDTH), rle.encode),
    }
    seconds = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, functions in sides.items():
            seconds[name].append(one_round(texts, *functions))
    best = {name: np.min(rounds, axis=0) for name, rounds in seconds.items()}
    ratio = best["kaggle"] / best["steelseg"]
    print(
        json.dumps(
            {
                "rows": len(texts),
                **{f"{name}_seconds": [round(float(s), 3) for s in best[name]] for name in best},
                "times_faster_decode": round(float(ratio[0]), 2),
                "times_faster_encode": round(float(ratio[1]), 2),
                "times_faster_both": round(float(best["kaggle"].sum() / best["steelseg"].sum()), 2),
            },
            indent=1,
        )
    )


def one_round(texts, decode, encode):
    """Processor seconds of decoding and of encoding; each mask is encoded once it is decoded."""
    decoding = encoding = 0.0
    for text in texts:
        start = time.process_time()
        mask = decode(text)
        middle = time.process_time()
        again = encode(mask)
        encoding += time.process_time() - middle
        decoding += middle - start
        assert again == text
    return decoding, encoding


if __name__ == "__main__":
    main()
