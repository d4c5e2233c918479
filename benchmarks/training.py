"""Training steps beside the plain way: eager, float32, row-major, as most repositories train.

    python benchmarks/training.py [--encoders resnet18 efficientnet-b3] [--steps 2] [--rounds 2]
    python benchmarks/training.py --quality ROOT [--seeds 3] [--steps 80]

Both sides take the same crops, network, loss and rate; batches lie ready, because loading has a
benchmark of its own. The first form times whole steps, each side in a process of its own, in
turns; the best round counts. The second trains both on the same batches of a data set (its
first 3 of 4 images) and scores the rest: Dice of either side at each seed.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

HEIGHT, WIDTH, CLASSES = 256, 512, 4
LEARNING_RATE = 5e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "efficientnet-b3"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--quality", type=Path, metavar="ROOT")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(time_steps(args)))
    elif args.quality:
        print(json.dumps(quality(args), indent=1))
    else:
        print(json.dumps({name: compare(name, args) for name in args.encoders}, indent=1))


def compare(encoder, args):
    """Crops per second of both sides."""
    best = dict.fromkeys(SIDES, 0.0)
    words = ["--encoders", encoder, "--batch", str(args.batch), "--steps", str(args.steps)]
    words += ["--compile"] * args.compile
    for _ in range(args.rounds):
        for side in SIDES:
            command = [sys.executable, __file__, *words, "--side", side]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            best[side] = max(best[side], json.loads(out.splitlines()[-1]))
    return {
        **{f"{side}_crops_per_second": round(value, 2) for side, value in best.items()},
        "times_faster": round(best["ours"] / best["plain"], 2),
    }


def time_steps(args):
    """Crops per second of one side, its first step not counted."""
    step = SIDES[args.side](args.encoders[0], CLASSES, compiled=args.compile)
    images = torch.randint(0, 256, (args.batch, 1, HEIGHT, WIDTH), dtype=torch.uint8)
    masks = torch.rand(args.batch, CLASSES, HEIGHT, WIDTH).gt(0.95).to(torch.uint8)
    step.train([(images, masks, None)])
    begin = time.monotonic()
    step.train([(images, masks, None)] * args.steps)
    return args.batch * args.steps / (time.monotonic() - begin)


class Plain:
    """A loop as most repositories write it."""

    def __init__(self, encoder, classes, *, seed=0, compiled=False):
        import segmentation_models_pytorch as smp

        del compiled
        torch.manual_seed(seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = smp.Unet(encoder, encoder_weights=None, in_channels=1, classes=classes)
        self.model.to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.loss = loss_of(classes)

    def train(self, batches):
        self.model.train()
        for images, masks, _ in batches:
            logits = self.model(self.normalise(images))
            loss = self.loss(logits, masks.to(self.device), None)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            loss.item()

    def normalise(self, images):
        return (images.to(self.device).float() / 255 - 0.449) / 0.226

    def probs(self, images):
        self.model.eval()
        return self.model(self.normalise(images)).sigmoid()


class Ours:
    """What `steelseg train` does with a batch."""

    def __init__(self, encoder, classes, *, seed=0, compiled=False):
        from ready_batches import make_learner
        from steelseg.config.load import build_config

        settings = {
            "data": {"num_classes": classes},
            "model": {"encoder": encoder, "encoder_weights": "none"},
            "train": {
                "seed": seed,
                "compile": compiled,
                "scheduler": "none",
                "learning_rate": LEARNING_RATE,
                "pos_weight": (1.0,) * classes,
                "save_minutes": 0,
            },
        }
        self.config = build_config(settings, source="the benchmark")
        self.learner = make_learner(self.config)

    def train(self, batches):
        from ready_batches import train_on

        train_on(self.config, self.learner, batches)

    def probs(self, images):
        self.learner.model.eval()
        return self.learner.model(images.to(self.learner.device)).sigmoid()


SIDES = {"plain": Plain, "ours": Ours}


def loss_of(classes):
    from steelseg.models.losses import build_loss

    return build_loss("bce_dice_pos_weight", pos_weight=(1.0,) * classes)


def quality(args):
    """Dice of both sides after the same steps, at each seed."""
    train, held_out, classes = read_pairs(args.quality)
    dice = {side: [] for side in SIDES}
    for seed in range(args.seeds):
        for side, build in SIDES.items():
            step = build(args.encoders[0], classes, seed=seed)
            step.train(pick(train, args.batch, args.steps, seed))
            dice[side].append(round(score_of(step, held_out), 4))
            print(f"seed {seed}, {side}: {dice[side][-1]}", file=sys.stderr, flush=True)
    spread = np.ptp(dice["plain"])
    return {
        "encoder": args.encoders[0],
        "steps": args.steps,
        "dice_on_defects": dice,
        "mean_difference": round(float(np.mean(dice["ours"]) - np.mean(dice["plain"])), 4),
        "seed_to_seed_spread_of_plain": round(float(spread), 4),
    }


def read_pairs(root):
    """Images and masks of a data set whose images have one size."""
    from steelseg.data.formats.annotations import read_labels
    from steelseg.data.formats.images import list_images, read_image

    folder = root / "train_images"
    names = list_images(folder)
    images = [read_image(folder / name, channels=1) for name in names]
    sizes = {name: image.shape[:2] for name, image in zip(names, images, strict=True)}
    with (root / "train.csv").open(newline="") as file:
        classes = max(int(row["ClassId"]) for row in csv.DictReader(file))
    labels = read_labels(root / "train.csv", sizes, num_classes=classes)
    images_nchw = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    masks_nchw = torch.from_numpy(np.stack([labels.draw(name) for name in names])).to(torch.uint8)
    last = torch.arange(len(names)) % 4 == 3
    return (
        (images_nchw[~last], masks_nchw[~last]),
        (images_nchw[last], masks_nchw[last]),
        masks_nchw.shape[1],
    )


def pick(pairs, batch, steps, seed):
    """Random batches, padded to what the network takes."""
    images, masks = pairs
    rng = np.random.default_rng(seed)
    picks = [rng.choice(len(images), batch, replace=False) for _ in range(steps)]
    return [(pad(images[p]), pad(masks[p]), None) for p in picks]


def pad(tensor):
    """Repeat the edge until both sides are multiples of 32."""
    height, width = tensor.shape[-2:]
    rows = torch.arange(height + -height % 32).clamp(max=height - 1)
    columns = torch.arange(width + -width % 32).clamp(max=width - 1)
    return tensor[..., rows, :][..., columns]


def score_of(step, pairs):
    """Mean Dice at 0.5 over the (image, class) pairs that show a defect."""
    from steelseg.scoring.metrics import count_pixels, score

    counts = []
    with torch.inference_mode():
        for image, mask in zip(*pairs, strict=True):
            height, width = mask.shape[-2:]
            probs = step.probs(pad(image[None]))[0, :, :height, :width]
            counts.append(count_pixels((probs >= 0.5).cpu().numpy(), mask.bool().numpy()))
    return score(np.stack(counts)).overall.dice_positive


if __name__ == "__main__":
    main()
