"""What each technique of docs/guides/recipes.md is worth, alone, beside the baseline's recipe.

    python benchmarks/recipes.py ROOT WORK [--best] [--rows NAME ...] [--seeds 0 1] [--folds 0]
                                 [--epochs 5] [--set section.name=value ...] [--threads 1]
                                 [--unlabelled DIR] [--start FILE] [--untuned]

Every row trains the folds with the same network, data, order of samples and number of steps as
the first one does, but for the settings of the row, at each seed; predicts the strips that the
folds hold out, tunes thresholds and sizes on them, and scores them cross-fitted. The first row is
the baseline's recipe, and the others add to it; with --best (and a WORK of its own) it is
configs/best.yaml, and the others leave a part of it out. Differences are paired by strip and seed,
their 95 % interval is drawn over strips. Some rows differ from another in prediction alone and
share its training; some are the mean of several trainings; pseudo-labels are of the strips in
--unlabelled, by `baseline`. With --untuned (and a WORK of its own) all are read at 0.5, for sets
so small that tuning leaves nothing. What is done is kept in WORK and not done again; WORK may be
named again with more rows. Prints a table; WORK/recipes.json holds it too.
"""

import argparse
import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

BEST_YAML = Path(__file__).resolve().parents[1] / "configs" / "best.yaml"

# The baseline's optimizer, rate, schedule and loss; the network is small, for two cores.
BASELINE = (
    "data.num_folds=4",
    "data.img_height=null",
    "data.img_width=null",
    "model.arch=linknet",
    "model.encoder=tu-resnet10t",
    "model.encoder_weights=none",
    "train.optimizer=adam",
    "train.learning_rate=5e-4",
    "train.scheduler=reduce_on_plateau",
    "train.loss=bce_dice_pos_weight",
    "train.augmentation=flips",
)
# No flips, no gate, and post-processing left to tuning.
PLAIN = (
    "inference.tta=none",
    "inference.gate=none",
    "postprocess.threshold=null",
    "postprocess.min_size=null",
    "postprocess.min_area=null",
    "postprocess.top_threshold=null",
    "postprocess.gate=null",
)
UNTUNED = (
    "postprocess.threshold=0.5",
    "postprocess.min_size=0",
    "postprocess.min_area=0",
    "postprocess.top_threshold=0",
)
GATED = ("model.presence_head=true",)


@dataclass(frozen=True)
class Row:
    """One technique."""

    settings: tuple[str, ...] = ()
    """Of the training, beside the baseline's."""

    reading: tuple[str, ...] = ()
    """Of prediction and tuning alone."""

    after: str = ""
    """A row whose run must be there: `{run}` in the settings is its folder."""

    members: tuple[tuple[str, ...], ...] = ()
    """Settings of other trainings on the same folds, to be combined with the row's own."""

    weights: str = "equal"
    """Of the members."""


SECOND_SEED = ("train.seed={other}", "data.fold_seed={seed}")
OTHER_ARCH = ("model.arch=fpn",)


def _steps(*steps: str) -> Row:
    """Flips and other steps of augmentation."""
    return Row((f"train.augmentation=[{', '.join(['flips', *steps])}]",))


ROWS = {
    "baseline": Row(),
    "threshold 0.5, untuned": Row(reading=UNTUNED),
    "two flips at prediction": Row(reading=("inference.tta=both",)),
    "presence head, no gate": Row(GATED),
    "gate, hard": Row(GATED, ("inference.gate=hard",)),
    "gate, soft": Row(GATED, ("inference.gate=soft",)),
    "adamw, one_cycle, 2e-3": Row(
        (
            "train.optimizer=adamw",
            "train.weight_decay=0.01",
            "train.scheduler=one_cycle",
            "train.learning_rate=2e-3",
        )
    ),
    "adam, cosine": Row(("train.scheduler=cosine",)),
    "best epoch by best_threshold_dice": Row(("train.monitor=best_threshold_dice",)),
    "loss: 0.5 bce + 0.5 dice": Row(("train.loss=0.5 bce + 0.5 dice",)),
    "loss: 0.5 bce + 0.5 image_dice": Row(("train.loss=0.5 bce + 0.5 image_dice",)),
    "loss: 0.5 focal + 0.5 dice": Row(("train.loss=0.5 focal + 0.5 dice",)),
    "loss: 0.5 bce + 0.5 tversky": Row(("train.loss=0.5 bce + 0.5 tversky",)),
    "loss: 0.5 bce + 0.5 focal_tversky": Row(("train.loss=0.5 bce + 0.5 focal_tversky",)),
    "loss: 0.5 bce + 0.5 jaccard": Row(("train.loss=0.5 bce + 0.5 jaccard",)),
    "loss: 0.5 bce + 0.5 lovasz": Row(("train.loss=0.5 bce + 0.5 lovasz",)),
    "later loss: 0.5 bce + 0.5 lovasz": Row(
        ("train.later_loss=0.5 bce + 0.5 lovasz", "train.later_loss_epoch={late}")
    ),
    "later loss: symmetric_lovasz": Row(
        ("train.later_loss=0.5 bce + 0.5 symmetric_lovasz", "train.later_loss_epoch={late}")
    ),
    "sampling: balanced": Row(("train.sampling=balanced",)),
    "sampling: positives, hard gate": Row(
        (*GATED, "train.sampling=positives"), ("inference.gate=hard",)
    ),
    "sampling: hard negatives": Row(("train.hard_negatives={run}",), after="baseline"),
    "augmentation: brightness": _steps("0.5 brightness"),
    "augmentation: gamma": _steps("0.5 gamma"),
    "augmentation: noise": _steps("0.5 noise"),
    "augmentation: blur": _steps("0.3 blur"),
    "augmentation: jpeg": _steps("0.3 jpeg"),
    "augmentation: shift_scale": _steps("0.5 shift_scale"),
    "augmentation: conveyor_shift": _steps("0.5 conveyor_shift"),
    "augmentation: black_ends": _steps("0.2 black_ends"),
    "augmentation: defect_blackout": _steps("0.2 defect_blackout"),
    "augmentation: defect_paste": _steps("0.3 defect_paste"),
    "weights: ema": Row(("train.ema_decay=0.99",)),
    "rate of the encoder 0.3": Row(("train.encoder_rate=0.3",)),
    "batch normalisation frozen": Row(("train.freeze_batch_norm=true",)),
    "encoder from scratch": Row(("model.encoder_weights=none",)),
    "from another data set": Row(("model.init_from={start}",)),
    "mean of two seeds": Row(members=(SECOND_SEED,)),
    "mean of two architectures": Row(members=(OTHER_ARCH,)),
    "mean of three runs": Row(members=(SECOND_SEED, OTHER_ARCH)),
    "three runs, greedy": Row(members=(SECOND_SEED, OTHER_ARCH), weights="greedy"),
    "pseudo-labels": Row(("train.pseudo_labels={run}/pseudo",), after="baseline"),
}

# What configs/best.yaml is without one of its parts.
WITHOUT = {
    "best.yaml": Row(),
    "no gate": Row(reading=("inference.gate=none",)),
    "one view": Row(reading=("inference.tta=none",)),
    "no presence head": Row(("model.presence_head=false",), ("inference.gate=none",)),
    "the baseline's loss": Row(("train.loss=bce_dice_pos_weight",)),
    "the baseline's optimizer": Row(
        (
            "train.optimizer=adam",
            "train.weight_decay=0",
            "train.learning_rate=5e-4",
            "train.scheduler=reduce_on_plateau",
        )
    ),
    "sampling: all": Row(("train.sampling=all",)),
    "crops on the grid": Row(("train.centre_defects=0",)),
    "flips alone": Row(("train.augmentation=flips",)),
    "no weight averaging": Row(("train.ema_decay=0",)),
    "best epoch by dice": Row(("train.monitor=dice",)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--best", action="store_true", help="leave parts out of configs/best.yaml")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, *WITHOUT], metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING", help="for every row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--unlabelled", type=Path, metavar="DIR", help="for pseudo-labels")
    parser.add_argument("--start", type=Path, metavar="FILE", help="weights of another data set")
    parser.add_argument("--untuned", action="store_true", help="read every row at 0.5")
    args = parser.parse_args()
    rows = WITHOUT if args.best else ROWS
    args.first = next(iter(rows))
    needed = {"pseudo-labels": args.unlabelled, "from another data set": args.start}
    args.rows = args.rows or [n for n in rows if needed.get(n, True)]
    if strangers := set(args.rows) - set(rows):
        parser.error(f"{', '.join(sorted(strangers))}: of the other table")
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for name in dict.fromkeys([args.first, *args.rows]):
            if not scores_of(args.work, name, seed).exists():
                judge(args, name, seed)
    names = [n for n in rows if all(scores_of(args.work, n, s).exists() for s in args.seeds)]
    answers = {name: beside_first(args, name) for name in names}
    text = json.dumps(
        {
            "common": common_settings(args),
            "seeds": args.seeds,
            "folds": args.folds,
            "rows": answers,
        },
        indent=1,
    )
    (args.work / "recipes.json").write_text(text + "\n")
    print(table(answers))


def common_settings(args):
    """What all rows share; later ones win."""
    with (args.root / "train.csv").open(newline="") as file:
        classes = max(int(row["ClassId"]) for row in csv.DictReader(file))
    own = [f"data.root={args.root}", f"data.num_classes={classes}"]
    own += [f"train.epochs={args.epochs}", "train.passes=1"]
    return [*(() if args.best else BASELINE), *own, *args.set]


def scores_of(work, name, seed):
    """Where the scores of a row are kept."""
    return work / "scores" / f"{slug(name)}_{seed}.csv"


def run_of(work, settings, seed):
    """The run folder of a training, shared by rows that train alike."""
    return work / (slug(" ".join(settings)) or "baseline") / str(seed)


def slug(text):
    """A file name made of a row's words."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in text).strip("_")


def judge(args, name, seed):
    """Train where that was not done, predict, tune and score."""
    from steelseg import api

    row = (WITHOUT if args.best else ROWS)[name]
    if name == "pseudo-labels":
        label(args, seed)
    run = train(args, row.settings, seed, after=row.after)
    reading = (*(() if args.best else PLAIN), *(UNTUNED if args.untuned else ()), *row.reading)
    if row.members:
        run = combine(args, row, run, seed)
    else:
        api.oof(run, reading, folds=args.folds)
    (run / "postprocess.json").unlink(missing_ok=True)
    if UNTUNED[0] in reading:
        api.evaluate(run, reading)
    else:
        api.tune(run, reading)
        api.evaluate(run)
    scores = scores_of(args.work, name, seed)
    scores.parent.mkdir(exist_ok=True)
    shutil.copyfile(run / "scores.csv", scores)


def train(args, settings, seed, *, after=""):
    """Train by these settings, or go on, unless that was done; give the run folder."""
    from steelseg import api
    from steelseg.config.load import build_config, load_config

    words = {
        "run": run_of(args.work, ROWS[after].settings if after else (), seed),
        "late": str(max(2, round(args.epochs * 0.7))),
        "seed": seed,
        "other": seed + 100,
        "start": args.start,
    }
    run = run_of(args.work, settings, seed)
    if not all((run / f"fold_{fold}" / "oof_predictions.zarr").exists() for fold in args.folds):
        own = [setting.format(**words) for setting in settings]
        lines = [*common_settings(args), f"train.seed={seed}", *own]
        config = load_config(BEST_YAML, lines) if args.best else build_config({}, lines)
        api.train(config, run, folds=args.folds, resume=(run / "config.yaml").exists())
    return run


def combine(args, row, run, seed):
    """Make one run of several that held out the same strips."""
    from steelseg import api

    runs = [run, *(train(args, settings, seed) for settings in row.members)]
    for each in runs:
        api.oof(each, PLAIN, folds=args.folds)
    combined = (
        args.work / f"{row.weights}_{len(runs)}" / slug(" ".join(row.members[-1])) / str(seed)
    )
    shutil.rmtree(combined, ignore_errors=True)
    api.ensemble(runs, combined, weights=row.weights)
    return combined


def label(args, seed):
    """Let the baseline's networks label other strips, unless that was done."""
    from steelseg import api

    run = run_of(args.work, (), seed)
    if not (run / "pseudo" / "index.json").exists():
        api.oof(run, PLAIN, folds=args.folds)
        api.tune(run, PLAIN)
        api.pseudo(run, images=args.unlabelled)


def beside_first(args, name):
    """Figures of a row, mean over the seeds, and their paired differences from the first row."""
    from steelseg.run.scores_csv import read_scores
    from steelseg.scoring.intervals import draw_figures, interval
    from steelseg.scoring.metrics import flatten, score

    both = {}
    for side in (args.first, name):
        counts = [read_scores(scores_of(args.work, side, s)).counts_nc3 for s in args.seeds]
        figures = [flatten(score(c), prefix="") for c in counts]
        both[side] = figures, [draw_figures(c) for c in counts]
    (base, base_draws), (own, own_draws) = both[args.first], both[name]
    answer = {"false_alarms": [int(f["false_alarms"]) for f in own]}
    for figure in ("dice", "dice_positive"):
        pairs = zip(own_draws, base_draws, strict=True)
        draws = np.mean([a[figure] - b[figure] for a, b in pairs], axis=0)
        low, high = interval(draws)
        answer[figure] = {
            "seeds": [round(f[figure], 4) for f in own],
            "difference": round(
                float(np.mean([f[figure] for f in own]))
                - float(np.mean([f[figure] for f in base])),
                4,
            ),
            "interval": [round(low, 4), round(high, 4)],
        }
    return answer


def table(rows):
    """The rows as Markdown."""
    lines = [
        "| technique | Dice | difference | Dice on defects | difference | false alarms |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = []
        for figure in ("dice", "dice_positive"):
            value = row[figure]
            low, high = value["interval"]
            cells += [
                f"{np.mean(value['seeds']):.4f}",
                f"{value['difference']:+.4f} [{low:+.4f}, {high:+.4f}]",
            ]
        alarms = " ".join(map(str, row["false_alarms"]))
        lines.append(f"| {name} | {' | '.join(cells)} | {alarms} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
