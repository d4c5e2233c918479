"""Samples per second and added memory of the training modes beside a plain reading of the baseline.

    python benchmarks/loading.py ROOT [--seconds 4] [--rounds 3]

ROOT holds train.csv and train_images/. `reference` is `baseline_reference.py`: crops decoded on the
fly by one worker process. `full`, `crops` and `precropped` are ours with one worker, as training
loads. Nothing else happens to the batches. Every measurement has a process of its own, and sides
take turns. The store goes to a temporary folder. All files are read once before, so they come out
of the page cache, not from a disk.

`added_mb` is the most that loading adds to the process as it was before it read any label, while
batches are read once and then held, as by a slow network: the memory that only this process and
its worker hold, each page counted once. `mapped_mb` is the part of it that page tables show. It
misses shared memory on its way from a worker process, which an open file holds and nobody maps.
The unique set sizes that the system gives for each of the two would not add up: pages that a forked
worker shares with its parent are in neither. Files are read, not mapped, so their pages are the
system's on every side. Memory is read from Linux's /proc.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

from torch.utils.data import DataLoader

from baseline_reference import BATCH_SIZE, CROP_STRIDE, CROP_WIDTH, NUM_CLASSES, CropDataset
from steelseg.data.augment.steps import find_augmentation
from steelseg.data.formats.annotations import read_labels
from steelseg.data.formats.images import list_images, read_image
from steelseg.data.samples.dataset import EpochBatches, FolderReader, SampleDataset, list_samples
from steelseg.data.samples.precropped_store import build_store, open_store
from steelseg.models.libc import keep_freed_memory
from steelseg.training.loader import BatchLoader

SIDES = ("reference", "full", "crops", "precropped")
FIGURES = ("samples_per_second", "added_mb", "mapped_mb")
BATCHES_HELD = 24


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--seconds", type=float, default=4, help="a measurement, at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1, help="of ours")
    parser.add_argument("--augmentation", choices=("none", "flips"), nargs="+",
                        default=["flips", "none"])  # fmt: skip
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    print(json.dumps(measure(args) if args.side else compare(args), indent=1))


def compare(args):
    """Measure the sides in turn, in processes of their own."""
    image_ids = list_images(args.root / "train_images")
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        build_store(Path(folder), root=args.root, image_ids=image_ids, channels=args.channels)
        seconds = time.monotonic() - begin
        report = {
            "strips": len(image_ids),
            "batch_size": BATCH_SIZE,
            "channels": args.channels,
            "store_mb": megabytes((Path(folder) / "strips.bin").stat().st_size),
            "store_seconds": round(seconds, 2),
        }
        for augmentation in args.augmentation:
            rounds = [
                {side: in_own_process(side, folder, augmentation) for side in SIDES}
                for _ in range(args.rounds)
            ]
            report[augmentation] = {
                **{side: with_median([r[side] for r in rounds]) for side in SIDES},
                "precropped_to_reference": ratio("precropped", "reference", rounds),
                "precropped_to_crops": ratio("precropped", "crops", rounds),
                "crops_to_reference": ratio("crops", "reference", rounds),
            }
    return report


def in_own_process(side, folder, augmentation):
    """Measure one side in a new process."""
    words = [sys.executable, *sys.argv, "--side", side, "--store", folder]
    return json.loads(subprocess.check_output([*words, "--augmentation", augmentation]))


def ratio(one, other, rounds):
    """One side's figures over the other's, round by round."""
    return with_median([{name: r[one][name] / r[other][name] for name in FIGURES} for r in rounds])


def with_median(rows):
    """Each figure of the rounds, and their median."""
    return {
        name: {
            "median": round(statistics.median(row[name] for row in rows), 2),
            "rounds": [round(row[name], 2) for row in rows],
        }
        for name in rows[0]
    }


def measure(args):
    """Load epochs of one side for the time, then some batches for the memory."""
    bare = memory()
    make = reference_epochs if args.side == "reference" else our_epochs
    epoch = make(args)
    speed = samples_per_second(epoch, args.seconds)
    most = most_memory(epoch(), pause=3 * BATCH_SIZE / speed)
    added = {name: megabytes(most[name] - bare[name]) for name in bare}
    return {"samples_per_second": round(speed, 1), **added}


def reference_epochs(args):
    """A function that gives the baseline's batches of one more epoch."""
    image_ids = list_images(args.root / "train_images")
    dataset = CropDataset(args.root, image_ids, flips=args.augmentation == ["flips"])
    loader = DataLoader(
        dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=1, persistent_workers=True
    )
    return partial(iter, loader)


def our_epochs(args):
    """A function that gives our batches of one more epoch, loaded as training does."""
    keep_freed_memory()
    folder = args.root / "train_images"
    image_ids = list_images(folder)
    sizes = {i: read_image(folder / i, channels=1).shape[:2] for i in image_ids}
    labels = read_labels(args.root / "train.csv", sizes, num_classes=NUM_CLASSES)
    crop = None if args.side == "full" else (256, CROP_WIDTH, CROP_STRIDE)
    windows = FolderReader(folder, args.channels)
    if args.side == "precropped":
        windows = open_store(
            args.store, root=args.root, image_ids=image_ids, channels=args.channels
        )
    augmentation = find_augmentation(*args.augmentation)
    samples = list_samples(labels, image_ids, crop=crop)
    dataset = SampleDataset(labels, samples, windows, augmentation=augmentation, seed=0)
    order = EpochBatches(len(samples), BATCH_SIZE, seed=0)
    loader = BatchLoader(dataset, order, num_workers=1, pin_memory=False)

    def epoch():
        order.epoch += 1
        return iter(loader)

    return epoch


def samples_per_second(epoch, seconds):
    """Time whole epochs, after one that starts the worker and warms up."""
    count_samples(epoch())
    count, begin = 0, time.monotonic()
    while time.monotonic() - begin < seconds:
        count += count_samples(epoch())
    return count / (time.monotonic() - begin)


def count_samples(batches):
    """Take every batch and let it go."""
    return sum(len(batch[0]) for batch in batches)


def most_memory(batches, *, pause):
    """The most that `memory` gives over some batches, each read and held for `pause` seconds."""
    rows = []
    for batch in islice(batches, BATCHES_HELD):
        for tensor in batch[:2]:
            tensor.numpy().max()
        time.sleep(pause)
        rows.append(memory())
    return {name: max(row[name] for row in rows) for name in rows[0]}


def memory():
    """Bytes that this process and its workers hold alone: all, and those that are mapped."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:] for pid in pids]
    private, shared = (
        1024 * sum(kib_of(name, rollup) for rollup in rollups) for name in ("Pss_Anon", "Pss_Shmem")
    )
    return {"added_mb": private + max(shared, open_segments(pids)), "mapped_mb": private + shared}


def open_segments(pids):
    """Bytes of the shared memory that these processes hold open, mapped or not."""
    sizes = {}
    for path in (file for pid in pids for file in Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):  # closed meanwhile
            if str(path.readlink()).startswith("/dev/shm/"):
                stat = path.stat()
                sizes[stat.st_ino] = 512 * stat.st_blocks
    return sum(sizes.values())


def kib_of(name, lines):
    """One figure of smaps_rollup."""
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def megabytes(count):
    """Bytes as MB."""
    return round(count / 1e6, 1)


if __name__ == "__main__":
    main()
