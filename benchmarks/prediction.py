"""Prediction from image files to submission rows, beside a plain reading of the baseline.

    python benchmarks/prediction.py RUN --images DIR [--labels CSV] [--strips 32] [--clean 0.47]
                                    [--rounds 2] [--threads 2]

`reference` loops over the strips as most repositories do: OpenCV decodes, the network runs in eager
float32 and row-major, each class is thresholded, its components are filtered one by one, the usual
function writes the run lengths. Ours is `steelseg predict` with bundles of one fold: torch's
checkpoint and whatever RUN/export holds, and each with the first look of RUN/cascade.json where
there is one. Every side has the same weights, threshold 0.5, min_size 200, strips and threads;
each runs in a process of its own, in turns, and the best round counts, without its start-up. Rows
that are not the reference's are counted.

What a first look spares hangs on how many strips are clean. With --labels, the train.csv of DIR,
strips are chosen so that the share --clean of them is, 0.47 as in Kaggle's training set; DIR should
be strips that no network was trained on. What the first look misses and skips of them is counted,
beside its cross-fitted figures of RUN/cascade.json. Prints JSON.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch

FOLD = 0
THRESHOLD, MIN_SIZE = 0.5, 200
SETTINGS = [
    f"postprocess.threshold={THRESHOLD}",
    f"postprocess.min_size={MIN_SIZE}",
    "postprocess.min_area=0",
    "postprocess.top_threshold=0",
]
EXPORTS = ("onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--strips", type=int, default=32)
    parser.add_argument("--clean", type=float, default=0.47)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.side:
        name, folder = args.side
        print(json.dumps(one_side(args, name, Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        sides = bundle_sides(args.run_dir, Path(folder))
        print(json.dumps(compare(args, sides, Path(folder)), indent=1))


def bundle_sides(run_dir, folder):
    """A bundle of each kind of network, plain and with the first look."""
    from steelseg.api import bundle

    sides = {"reference": None}
    made = ["torch", *(name for name in EXPORTS if (run_dir / "export" / name).is_dir())]
    looks = ["false", "true"] if (run_dir / "cascade.json").exists() else ["false"]
    for name in made:
        for look in looks:
            side = f"{name}, cascade" if look == "true" else name
            settings = [*SETTINGS, f"inference.cascade={look}"]
            sides[side] = bundle(run_dir, settings, out=folder / side, folds=[FOLD], made_from=name)
    return sides


def compare(args, sides, folder):
    """Seconds of each side, and how its rows differ from the reference's."""
    seconds = {side: [] for side in sides}
    rows = {}
    common = ["--images", args.images, "--strips", args.strips, "--threads", args.threads]
    if args.labels:
        common += ["--labels", args.labels, "--clean", args.clean]
    for _ in range(args.rounds):
        for side in sides:
            words = [args.run_dir, *common, "--side", side, folder]
            command = [sys.executable, __file__, *map(str, words)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            answer = json.loads(out.splitlines()[-1])
            seconds[side].append(answer["seconds"])
            rows[side] = answer["rows"]
    best = {side: min(values) for side, values in seconds.items()}
    shown = sum(bool(row) for row in rows["reference"].values())
    return {
        "strips": args.strips,
        "threads": args.threads,
        "mix": mix(args),
        "first_look": first_look(args),
        "reference_rows_with_a_mask": f"{shown} of {len(rows['reference'])}",
        "sides": {
            side: {
                "strips_per_second": round(args.strips / best[side], 2),
                "times_faster": round(best["reference"] / best[side], 2),
                "rows_that_differ": sum(rows[side][k] != v for k, v in rows["reference"].items()),
            }
            for side in sides
        },
    }


def defective(args):
    """Names of the images that have a defect."""
    with args.labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert "ImageId" in rows[0], "expected a train.csv of the form ImageId,ClassId,EncodedPixels"
    return {row["ImageId"] for row in rows if row["EncodedPixels"]}


def choose(args):
    """The strips, the same in every process: any, or so many clean ones, as they lie by name."""
    paths = sorted(args.images.iterdir())
    if not args.labels:
        return [paths[place % len(paths)] for place in range(args.strips)]
    found = defective(args)
    clean = round(args.strips * args.clean)
    groups = (([p for p in paths if p.name not in found], clean),)
    groups += (([p for p in paths if p.name in found], args.strips - clean),)
    chosen = [group[place % len(group)] for group, count in groups for place in range(count)]
    return sorted(chosen, key=lambda path: path.name)


def mix(args):
    """How many of the strips are clean; None where nobody knows."""
    if not args.labels:
        return None
    clean = sum(path.name not in defective(args) for path in choose(args))
    return {"clean": clean, "defective": args.strips - clean, "share_clean": clean / args.strips}


def first_look(args):
    """What the first look does, cross-fitted where it was chosen and counted on these strips."""
    cascade = args.run_dir / "cascade.json"
    if not cascade.exists():
        return None
    known = json.loads(cascade.read_text())
    answer = {name: known[name] for name in ("cut", "miss_rate", "cross_fitted")}
    if args.labels:
        found = defective(args)
        skipped = [path.name for path in choose(args) if is_skipped(args.run_dir, path)]
        missed = sum(name in found for name in skipped)
        answer["these_strips"] = {"missed": missed, "skipped": len(skipped) - missed}
    return answer


@cache
def is_skipped(run_dir, path):
    """Whether the first look finds a strip clean."""
    from steelseg.data.formats.images import read_image
    from steelseg.inference.forward import forward_plan
    from steelseg.scoring.screening import defect_score_of

    first, looks = looker(run_dir)
    image_hwc = read_image(path, channels=first.config.data.channels)
    batch = (("",), image_hwc[None])
    ((*_, probs_chw, presence_c),) = looks.predict_ungated([batch], forward_plan(first.config))
    by_presence = first.config.model.is_classifier
    return defect_score_of(probs_chw, presence_c, by_presence=by_presence) < first.cut


@cache
def looker(run_dir):
    """The first look of a run, loaded."""
    from steelseg.inference.ensemble import Ensemble
    from steelseg.inference.model_source import resolve_model

    first = resolve_model(run_dir).screener
    return first, Ensemble([first.member], sequential=False, device=torch.device("cpu"))


def one_side(args, name, folder):
    """Seconds and rows of one side, once it is warm."""
    paths = choose(args)
    predict = reference(args.run_dir) if name == "reference" else ours(folder / name)
    with tempfile.TemporaryDirectory() as out:
        # Linked once each, so that a few strips can stand for many.
        images = Path(out) / "images"
        images.mkdir()
        for place, path in enumerate(paths):
            (images / f"{place:05d}{path.suffix}").hardlink_to(copy_of(path, Path(out)))
        warm = Path(out) / "warm"
        warm.mkdir()
        (warm / paths[0].name).hardlink_to(copy_of(paths[0], Path(out)))
        predict(warm, Path(out) / "first")
        begin = time.monotonic()
        predict(images, Path(out) / "second")
        seconds = time.monotonic() - begin
        with (Path(out) / "second" / "submission.csv").open(newline="") as file:
            rows = {row["ImageId_ClassId"]: row["EncodedPixels"] for row in csv.DictReader(file)}
    return {"seconds": seconds, "rows": rows}


def copy_of(path, folder):
    """A copy in a folder, made once."""
    copy = folder / path.name
    if not copy.exists():
        copy.write_bytes(path.read_bytes())
    return copy


def ours(bundle):
    """`steelseg predict` with a bundle."""
    from steelseg.inference.predictor import Predictor
    from steelseg.prediction.predict import predict_folder

    predictor = Predictor(bundle)
    return lambda images, out: predict_folder(predictor, out, images=images)


def reference(run_dir):
    """The plain loop with the weights of the run."""
    import segmentation_models_pytorch as smp

    from steelseg.models.checkpoint import load_checkpoint
    from steelseg.run.run_folder import RunFolder

    config = RunFolder(run_dir).load_config()
    weights = load_checkpoint(RunFolder(run_dir).best_model(FOLD)).model
    model = smp.create_model(
        config.model.arch,
        encoder_name=config.model.encoder,
        encoder_weights=None,
        in_channels=config.data.channels,
        classes=config.data.num_classes,
    )
    model.load_state_dict({k.removeprefix("network."): v.clone() for k, v in weights.items()})
    model.eval()
    mean, std = (np.array(x) for x in (config.data.channel_mean, config.data.channel_std))
    flag = cv2.IMREAD_GRAYSCALE if config.data.channels == 1 else cv2.IMREAD_COLOR_RGB

    def predict(images, out):
        rows = []
        for path in sorted(images.iterdir()):
            image = cv2.imread(str(path), flag)
            image = image.reshape(*image.shape[:2], -1)
            image = ((image.astype(np.float32) / 255 - mean) / std).astype(np.float32)
            batch = torch.from_numpy(image.transpose(2, 0, 1).copy()).unsqueeze(0)
            with torch.no_grad():
                probs = torch.sigmoid(model(batch)).numpy()[0]
            for channel, prob in enumerate(probs):
                rows.append((f"{path.name}_{channel + 1}", usual_encode(usual_filter(prob))))
        out.mkdir()
        with (out / "submission.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("ImageId_ClassId", "EncodedPixels"), *rows])

    return predict


def usual_filter(prob):
    """Threshold, then keep the components of `MIN_SIZE` and more."""
    mask = cv2.threshold(prob, THRESHOLD, 1, cv2.THRESH_BINARY)[1]
    count, components = cv2.connectedComponents(mask.astype(np.uint8))
    kept = np.zeros(mask.shape, np.float32)
    for number in range(1, count):
        component = components == number
        if component.sum() >= MIN_SIZE:
            kept[component] = 1
    return kept


def usual_encode(mask):
    """Run lengths as every notebook writes them."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


if __name__ == "__main__":
    main()
