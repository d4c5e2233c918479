"""Near-duplicates planted among synthetic strips: kept together, merged by mistake, seconds.

    python benchmarks/duplicates.py [--strips 2000 --copies 200 --height 256 --width 1600]

Every copy is of a strip drawn by lot and changed in one way or two: recompressed as JPEG of
quality 50 to 95, light 0.98 to 1.02, moved by one pixel, flipped. Masks move along; every
seventh copy loses its masks, which `steelseg check` must tell. Copies that are not recompressed
are PNG files, so that they are changed in no other way.
"""

import argparse
import csv
import tempfile
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from steelseg.data.checks.check import inspect
from steelseg.data.checks.duplicates import FLIPS, compare_grain, make_thumbnail
from steelseg.data.formats import rle
from steelseg.data.formats.images import read_image
from steelseg.data.synthetic.dataset import make_dataset

KINDS = ("jpeg", "light", "shift", "flip")
RECIPES = [*((kind,) for kind in KINDS), *combinations(KINDS, 2)]


def change(image_hwc, recipe, rng):
    """Change an image, or masks in its channels alike; gives it and the quality of its JPEG."""
    quality = int(rng.integers(50, 96))
    light = float(rng.uniform(0.98, 1.02))
    down, right = ((0, 1), (0, -1), (1, 0), (-1, 0))[rng.integers(4)]
    flip = ("hflip", "vflip", "both")[rng.integers(3)]
    if "light" in recipe and image_hwc.dtype == np.uint8:
        image_hwc = np.clip(image_hwc * light + 0.5, 0, 255).astype(np.uint8)
    if "shift" in recipe:
        # The line that comes in repeats the one beside it.
        padded = np.pad(image_hwc, ((1, 1), (1, 1), (0, 0)), mode="edge")
        height, width = image_hwc.shape[:2]
        image_hwc = padded[1 - down : 1 - down + height, 1 - right : 1 - right + width]
    if "flip" in recipe:
        image_hwc = np.moveaxis(np.moveaxis(image_hwc, -1, 0)[FLIPS[flip]], 0, -1)
    return image_hwc, quality if "jpeg" in recipe else None


def plant(root, copies, rng):
    """Add copies to a set; gives the original of each, and the copies that lost masks."""
    folder, origins, conflicts = root / "train_images", {}, set()
    originals = sorted(path.name for path in folder.iterdir())
    with (root / "train.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    runs = {(image_id, int(class_id)): text for image_id, class_id, text in rows}
    for number in range(copies):
        original, seed = str(rng.choice(originals)), int(rng.integers(2**32))
        recipe = RECIPES[number % len(RECIPES)]
        image_hwc = read_image(folder / original, channels=1)
        changed, quality = change(image_hwc, recipe, np.random.default_rng(seed))
        name = f"{rng.integers(16**9):09x}_{'_'.join(recipe)}{'.jpg' if quality else '.png'}"
        flags = [cv2.IMWRITE_JPEG_QUALITY, quality] if quality else []
        cv2.imwrite(str(folder / name), changed, flags)
        origins[name] = original
        height, width = image_hwc.shape[:2]
        masks = {c: runs[original, c] for c in (1, 2, 3, 4) if (original, c) in runs}
        if number % 7 == 6:
            conflicts |= {name} if masks else set()
            continue
        for class_id, text in masks.items():
            mask = rle.decode(text, height, width)[..., None]
            moved, _ = change(mask, recipe, np.random.default_rng(seed))
            rows.append([name, class_id, rle.encode(moved[..., 0])])
    with (root / "train.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return origins, conflicts


def timed_check(root, height, width, *, group_duplicates):
    """Inspect a set; gives the inspection and its seconds."""
    begin = time.perf_counter()
    inspection = inspect(
        root,
        num_classes=4,
        img_height=height,
        img_width=width,
        channels=1,
        group_duplicates=group_duplicates,
    )
    assert not inspection.faults
    return inspection, time.perf_counter() - begin


def print_margins(folder, origins):
    """Print how alike copies are, and the strips that are no copies but look most alike."""
    image_ids = sorted(path.name for path in folder.iterdir())
    thumbnails = [make_thumbnail(read_image(folder / i, channels=1)) for i in image_ids]
    flat = np.stack(thumbnails).reshape(len(image_ids), -1)
    turned = [np.stack([t[f] for t in thumbnails]).reshape(flat.shape) for f in FLIPS.values()]
    similarity = np.stack([flat @ other.T for other in turned])
    family = np.array([origins.get(i, i) for i in image_ids])
    kin = family[:, None] == family
    grains = {True: [], False: []}
    tops = {True: [], False: []}
    for related in (True, False):
        best = np.where(kin == related, similarity, -1.0).max(axis=0)
        np.fill_diagonal(best, -1.0)
        pairs = np.dstack(np.unravel_index(np.argsort(-best, axis=None), best.shape))[0]
        pairs = [(a, b) for a, b in pairs if a < b and best[a, b] > -1]
        for a, b in pairs if related else pairs[:300]:
            flip = list(FLIPS)[int(similarity[:, a, b].argmax())]
            images = (read_image(folder / image_ids[k], channels=1) for k in (a, b))
            tops[related].append(best[a, b])
            grains[related].append(compare_grain(*images, flip)[1])
    for name, of in (("thumbnails", tops), ("grain", grains)):
        print(f"similarity of {name}: copies at least {min(of[True]):.2f}", end="")
        print(f" (1 % below {np.percentile(of[True], 1):.2f}),", end="")
        print(f" others at most {max(of[False]):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strips", type=int, default=2000)
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    size = args.height, args.width
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "input"
        make_dataset(
            root, num_train=args.strips, num_test=1, height=size[0], width=size[1], seed=args.seed
        )
        origins, lost = plant(root, args.copies, np.random.default_rng(args.seed))
        _, plain = timed_check(root, *size, group_duplicates=False)
        inspection, seconds = timed_check(root, *size, group_duplicates=True)
        groups = inspection.groups
        kept = Counter({True: 0, False: 0})
        for copy, original in origins.items():
            together = copy in groups and groups[copy] == groups.get(original)
            kept[together] += 1
            if not together:
                print(f"parted: {copy} from {original}")
        families = {}
        for image_id, group in groups.items():
            families.setdefault(group, set()).add(origins.get(image_id, image_id))
        merged = sum(len(names) for names in families.values() if len(names) > 1)
        told = {n for m in inspection.remarks if " differs: " in m for n in lost if n in m}
        false_alarms = sum(
            " differs: " in m and not any(n in m for n in lost) for m in inspection.remarks
        )
        print(f"{args.strips} strips of {size[0]}x{size[1]}, {args.copies} copies planted")
        print(f"kept together: {kept[True]} of {args.copies}, {kept[True] / args.copies:.1%}")
        print(f"false merges: {merged} of {args.strips} strips, {merged / args.strips:.2%}")
        print(f"copies without their masks: {len(told)} of {len(lost)} told")
        print(f"told of masks that are equal: {false_alarms}")
        print(f"seconds: {plain:.1f} without the search, {seconds:.1f} with it")
        print_margins(root / "train_images", origins)


if __name__ == "__main__":
    main()
