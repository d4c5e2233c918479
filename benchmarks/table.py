"""Every speed that is promised, measured on this machine and printed as one table.

    python benchmarks/table.py WORK [--rows loading rle startup memory training prediction]

WORK keeps the synthetic strips and runs that the rows need; what is there is used again. A row
that needs trained networks trains them briefly first, which takes most of the time. Each row is a
script of this folder, both sides in one run; its whole answer goes to WORK/ROW.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# Half-size strips train four times as fast; what they teach is enough to compare by. There are so
# many because a first look that may miss 2 % is judged by hundreds of held-out defects.
SYNTH = ["--num-train", 600, "--num-test", 1, "--height", 128, "--width", 800]
SYNTH += ["--min-per-class", 40]
STRIPS = ["--num-train", 80, "--num-test", 60, "--seed", 1]
HALF = ["data.img_height=128", "data.img_width=800", "data.num_folds=2"]
SMALL = [*HALF, "model.encoder_weights=none"]
# As many steps as the 11 epochs of the configuration are on a few dozen strips.
LARGE = ["model.arch=unet", "model.encoder=efficientnet-b3", "train.epochs=1"]
LARGE += ["train.loss=0.5 bce + 0.5 image_dice"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for name, words in (("data", SYNTH), ("strips", STRIPS)):
        if not (args.work / name).exists():
            steelseg("synth", args.work / name, *words)
    print(f"{'what':<44} {'reference':>12} {'ours':>12} {'ratio':>8}  target")
    for row in args.rows:
        for what, reference, ours, ratio, target in ROWS[row](args.work):
            print(f"{what:<44} {reference:>12} {ours:>12} {ratio:>8}  {target}", flush=True)


def loading(work):
    answer = script(work, "loading", work / "strips", "--augmentation", "flips")["flips"]
    both = answer["reference"], answer["precropped"], answer["precropped_to_reference"]
    for name, what, target in (
        ("samples_per_second", "loading, samples/s", ">= 20"),
        ("added_mb", "loading, added memory, MB", "<= 0.4"),
    ):
        yield what, *(side[name]["median"] for side in both), target


def rle(work):
    answer = script(work, "rle", work / "strips" / "train.csv")
    seconds = [round(sum(answer[f"{side}_seconds"]), 3) for side in ("kaggle", "steelseg")]
    yield "RLE, decode and encode, s", *seconds, answer["times_faster_both"], ">= 3"


def startup(work):
    answer = script(work, "startup")
    times = answer["python_pass_ms"], answer["steelseg_help_ms"], answer["times_as_long"]
    yield "python -c pass, steelseg --help, ms", *times, "<= 4"


def memory(work):
    answer = script(work, "prediction_memory", work / "strips" / "test_images", "--threads", 2)
    peaks = answer["few"]["peak_mb"], answer["many"]["peak_mb"], answer["more_mb"]
    yield "prediction, 100 and 5,000 strips, MB", *peaks, "<= 50 MB more"


def training(work):
    for encoder, answer in script(work, "training").items():
        sides = (answer[f"{side}_crops_per_second"] for side in ("plain", "ours"))
        target = {"resnet18": ">= 2.5", "efficientnet-b3": ">= 1.8"}[encoder]
        yield f"training, unet/{encoder}, crops/s", *sides, answer["times_faster"], target


def prediction(work):
    large = trained(work, "large", "demo", LARGE)
    small = trained(work, "small", "classifier", SMALL)
    if not (large / "cascade.json").exists():
        steelseg("cascade", large, "--first", small, "--miss-rate", 0.02)
    for run in (small, large):
        for format, precision in (("openvino", "fp32"), ("openvino", "int8"), ("onnx", "fp32")):
            # A first look is bundled in full precision.
            if run == small and precision == "int8":
                continue
            if not (run / "export" / f"{format}-{precision}").exists():
                words = ["--int8"] if precision == "int8" else []
                steelseg("export", run, "--format", format, *words, "--strips", 40)
    strips = work / "strips"
    words = ["--images", strips / "train_images", "--labels", strips / "train.csv"]
    answer = script(work, "prediction", large, *words)
    sides = answer["sides"]
    reference = sides["reference"]["strips_per_second"]
    targets = {"openvino-fp32": ">= 3", "openvino-int8": ">= 6", "openvino-int8, cascade": ">= 9"}
    for name, side in sides.items():
        speeds = reference, side["strips_per_second"], side["times_faster"]
        yield f"prediction, {name}, strips/s", *speeds, targets.get(name, "")


ROWS = {
    "loading": loading,
    "rle": rle,
    "startup": startup,
    "memory": memory,
    "training": training,
    "prediction": prediction,
}


def trained(work, name, config, settings):
    """A run with one fold and its predictions; one that was stopped goes on."""
    run, root = work / name, f"data.root={work / 'data'}"
    if not (run / "scores.csv").exists():
        store = f"data.precropped_dir={work / 'store'}"
        path = HERE.parent / "configs" / f"{config}.yaml"
        words = [root, store, *settings]
        makes_masks = config != "classifier"
        if makes_masks:
            steelseg("precrop", path, *words)
        steelseg("train", path, *words, "--out", run, "--fold", 0, "--resume")
        steelseg("oof", run, "--fold", 0)
        if makes_masks:
            steelseg("tune", run)
        steelseg("evaluate", run)
    return run


def script(work, name, *words):
    """Run a script of this folder and keep its answer."""
    command = [sys.executable, HERE / f"{name}.py", *words]
    out = subprocess.run([str(w) for w in command], check=True, stdout=subprocess.PIPE, text=True)
    (work / f"{name}.json").write_text(out.stdout)
    return json.loads(out.stdout)


def steelseg(*words):
    """Run a command, its results to stderr, so that stdout holds the table alone."""
    command = shutil.which("steelseg", path=str(Path(sys.executable).parent)) or "steelseg"
    subprocess.run([command, *map(str, words)], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
