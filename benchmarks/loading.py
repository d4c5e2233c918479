"""Samples per second and memory of the three training modes, side by side.

    python benchmarks/loading.py ROOT [--samples 800]

ROOT holds train.csv and train_images/. One worker process loads samples as training does, and
nothing else happens to them. Each mode gets a process of its own, and modes take turns. The store
goes to a temporary folder. All files are read once before, so they come out of the page cache,
not from a disk.

Memory is what loader and worker hold at most above the process before it had either, while batches
wait for a slow network. `own_mb` is proportional set size: a page that both share counts once.
`store_mapped_mb` are pages of the store, which the system drops when memory is short; what the
page cache holds of the image files in the other modes does not show. A worker's heap grows over its
first 80 batches or so, then stays. Memory is read from Linux's /proc.
"""

import argparse
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from steelseg.config import DataConfig
from steelseg.data.annotations import read_labels
from steelseg.data.check import load_labels
from steelseg.data.dataset import EpochBatches, FolderReader, SampleDataset, collate, list_samples
from steelseg.data.store import build_store, open_store
from steelseg.data.transforms import find_augmentation

MODES = ("full", "crops", "precropped")
RATIOS = ("samples_per_second", "own_mb")
CHANNELS = 1
BATCHES_HELD = 12


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--samples", type=int, default=800, help="samples a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop", type=int, nargs=3, default=(256, 512, 256), metavar="PX",
                        help="height, width and stride")  # fmt: skip
    parser.add_argument("--num-classes", type=int, default=4)
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    print(json.dumps(measure(args) if args.mode else compare(args), indent=1))


def compare(args):
    """Measure the modes in turn, in processes of their own."""
    data = DataConfig(root=args.root, num_classes=args.num_classes, img_height=None, img_width=None)
    labels = load_labels(data)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        build_store(Path(folder), root=args.root, image_ids=list(labels.sizes), channels=CHANNELS)
        seconds = time.monotonic() - begin
        store_bytes = (Path(folder) / "strips.bin").stat().st_size
        rounds = [
            {mode: in_own_process(mode, folder) for mode in MODES} for _ in range(args.rounds)
        ]
    files = sum((args.root / "train_images" / i).stat().st_size for i in labels.sizes)
    per_strip = len(list_samples(labels, list(labels.sizes), crop=args.crop)) / len(labels.sizes)
    return {
        "strips": len(labels.sizes),
        "crops_a_strip": round(per_strip, 2),
        "samples": args.samples,
        "rounds": args.rounds,
        "image_files_mb": megabytes(files),
        "store_mb": megabytes(store_bytes),
        "store_seconds": round(seconds, 2),
        **{mode: with_median([r[mode] for r in rounds]) for mode in MODES},
        "precropped_to_crops": with_median(
            [{name: r["precropped"][name] / r["crops"][name] for name in RATIOS} for r in rounds]
        ),
    }


def in_own_process(mode, folder):
    """Measure one mode in a new process."""
    words = [sys.executable, *sys.argv, "--mode", mode, "--store", folder]
    return json.loads(subprocess.check_output(words))


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
    """Load samples of one mode: one epoch for the time, one for the memory."""
    strips = json.loads((args.store / "index.json").read_text())["strips"]
    sizes = {strip["image_id"]: (strip["height"], strip["width"]) for strip in strips}
    labels = read_labels(args.root / "train.csv", sizes, num_classes=args.num_classes)
    bare = memory(args.store)
    windows = list_samples(labels, list(sizes), crop=None if args.mode == "full" else args.crop)
    drawn = np.random.default_rng(0).integers(len(windows), size=args.samples)
    dataset = SampleDataset(
        labels,
        [windows[k] for k in drawn],
        source(args, list(sizes)),
        augmentation=find_augmentation("flips"),
        seed=0,
    )
    order = EpochBatches(args.samples, args.batch_size, seed=0)
    loader = DataLoader(
        dataset, batch_sampler=order, collate_fn=collate, num_workers=1, persistent_workers=True
    )
    speed = samples_per_second(loader)
    order.epoch = 1
    own, mapped = most_memory(loader, args.store, pause=2 * args.batch_size / speed)
    return {
        "samples_per_second": round(speed, 1),
        "own_mb": megabytes(own - bare[0]),
        "store_mapped_mb": megabytes(mapped),
    }


def source(args, image_ids):
    """Where windows come from in the mode."""
    if args.mode == "precropped":
        return open_store(args.store, root=args.root, image_ids=image_ids, channels=CHANNELS)
    return FolderReader(args.root / "train_images", CHANNELS)


def samples_per_second(loader):
    """Time an epoch from its first batch on, so that starting the worker does not count."""
    batches = iter(loader)
    next(batches)
    begin = time.monotonic()
    count = sum(len(images) for images, _, _ in batches)
    return count / (time.monotonic() - begin)


def most_memory(loader, store, *, pause):
    """The most that `memory` gives over some batches, each held for `pause` seconds."""
    own = mapped = 0
    for _ in islice(loader, BATCHES_HELD):
        time.sleep(pause)
        own, mapped = (max(pair) for pair in zip((own, mapped), memory(store), strict=True))
    return own, mapped


def memory(store):
    """Bytes of this process and its workers: their own, and of the store's mapped file."""
    own = mapped = 0
    for pid in [os.getpid(), *(child.pid for child in multiprocessing.active_children())]:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        own += kib_of("Pss_Anon", rollup) + kib_of("Pss_Shmem", rollup)
        maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text(),
                        flags=re.MULTILINE)  # fmt: skip
        path = str(store / "strips.bin")
        mapped += sum(kib_of("Pss", m.splitlines()) for m in maps if path in m)
    return 1024 * own, 1024 * mapped


def kib_of(name, lines):
    """One figure of smaps."""
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def megabytes(count):
    """Bytes as MB."""
    return round(count / 1e6, 1)


if __name__ == "__main__":
    main()
