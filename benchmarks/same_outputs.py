"""Compare what two versions of steelseg compute: the same commands on the same data.

    python benchmarks/same_outputs.py REVISION

Runs each command with the code of REVISION (checked out beside the repository) and with that of
the working tree, and compares weights, out-of-fold predictions, thresholds, scores, exchange
files and submission.csv. A run of a move or a clean-up shall differ in nothing: prints a line for
each file, and exits with 1 where one differs. Needs about three minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import zarr
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
DATA = "--num-train 24 --num-test 6 --height 64 --width 256 --min-per-class 3"
SIZE = (
    "data.root=data data.img_height=64 data.img_width=256 data.num_folds=2 model.arch=linknet "
    "model.encoder=tu-resnet10t model.encoder_weights=none train.epochs=2 train.batch_size_train=4"
)
CROPS = "data.mode=crops data.crop_height=64 data.crop_width=128 data.crop_stride=64"
LEARNS = (
    "train.encoder_rate=0.5 train.sampling=balanced train.ema_decay=0.999 train.optimizer=adamw "
    "train.scheduler=one_cycle "
    "train.augmentation=light train.centre_defects=0.5 model.presence_head=true inference.gate=soft"
)
COMMANDS = (
    f"synth data {DATA}",
    f"run configs/smoke.yaml {SIZE} {CROPS} --out full",
    f"run configs/smoke.yaml {SIZE} {CROPS} {LEARNS} inference.tta=both --out gated",
    f"train configs/classifier.yaml {SIZE} --out looks",
    "oof looks",
    "ensemble full gated --out both",
    "tune both",
    "evaluate both",
    "predict both --images data/test_images --output-dir both_out --overlays",
    "bundle gated",
    "predict gated/bundle --images data/test_images --output-dir bundle_out --format coco",
)
COMPARED = ("*.safetensors", "*.csv", "*.png", "postprocess.json", "predictions.json")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="commit to compare with")
    revision = parser.parse_args().revision
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before", Path(folder) / "after"
        code = Path(folder) / "code"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(code), revision], check=True)
        try:
            run_commands(code, before)
        finally:
            subprocess.run([*git, "remove", "--force", str(code)], check=True)
        run_commands(ROOT, after)
        sys.exit(compare(before, after))


def run_commands(code, place):
    """Run every command in `place` with the code of a checkout."""
    place.mkdir()
    (place / "configs").symlink_to(ROOT / "configs")
    environment = {**os.environ, "PYTHONPATH": str(code / "src")}
    start = "import sys; from steelseg.cli import main; sys.exit(getattr(main, 'main', main)())"
    for words in map(partial(former_spelling, code), COMMANDS):
        command = [sys.executable, "-c", start, *words.split()]
        ended = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            sys.exit(f"steelseg {words} with {code}:\n{ended.stdout}{ended.stderr}")


def former_spelling(code, words):
    """Write a command as the version in `code` spells its settings."""
    settings = "".join(p.read_text() for p in (code / "src" / "steelseg").rglob("*train.py"))
    if "average: Literal" in settings:
        words = words.replace("train.ema_decay", "train.average=ema train.ema_decay")
    return words


def compare(before, after):
    """Print a line for each file; 1 where one differs or is missing."""
    files = {p.relative_to(before) for pattern in COMPARED for p in before.rglob(pattern)}
    files |= {p.relative_to(after) for pattern in COMPARED for p in after.rglob(pattern)}
    stores = {p.relative_to(before) for p in before.rglob("oof_predictions.zarr")}
    # history.csv holds seconds; logs, environment.json and bundles hold times and versions.
    compared = sorted(p for p in files if p.name != "history.csv") + sorted(stores)
    different = 0
    for path in compared:
        is_same = (after / path).exists() and (before / path).exists()
        is_same = is_same and content(before / path) == content(after / path)
        different += not is_same
        print("same  " if is_same else "DIFFER", path)
    print(f"{len(compared) - different} of {len(compared)} files are the same")
    return int(different > 0)


def content(path):
    """Comparable content: of weights and predictions the numbers, without their header."""
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        # An optimizer numbers its tensors by parameter group; which groups there are may change.
        names = {name: name.split(".")[-1] if name[:9] == "optimizer" else name for name in tensors}
        return sorted((names[name], a.shape, a.tobytes()) for name, a in tensors.items())
    if path.suffix == ".zarr":
        return np.asarray(zarr.open_array(str(path), mode="r")[:]).tobytes()
    if path.name == "postprocess.json":
        facts = json.loads(path.read_text())
        facts.pop("models", None)  # hashes of checkpoints, whose headers hold the settings' names
        facts.pop("tune", None)  # the settings by name, and names change
        return json.dumps(facts, sort_keys=True)
    return path.read_bytes()


if __name__ == "__main__":
    main()
