"""The same model, loss, epochs and fold in a plain loop, beside what a run reached.

    python benchmarks/plain_loop.py outputs/RUN [--fold 0]

The reference is what most repositories do: float32, Adam at a constant
rate, no augmentation, the weights of the last epoch. It trains on whole images of one size
and scores the held-out fold with threshold 0.5, as the run's validation does.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch

from steelseg.data.checks.check import load_labels
from steelseg.data.folds import read_folds
from steelseg.data.formats.images import read_image
from steelseg.models.losses import build_loss
from steelseg.models.model import build_model
from steelseg.run.run_folder import RunFolder
from steelseg.scoring.metrics import count_pixels, score


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--fold", type=int, default=0)
    args = parser.parse_args()
    run = RunFolder(args.run_dir)
    config = run.load_config()
    data, train = config.data, config.train

    labels = load_labels(data)
    folds = read_folds(run.folds_csv, image_ids=list(labels.sizes), num_folds=data.num_folds)
    folder = data.root / "train_images"
    images = {
        i: torch.from_numpy(read_image(folder / i, channels=data.channels)).permute(2, 0, 1)
        for i in labels.sizes
    }
    masks = {i: torch.from_numpy(labels.draw(i)) for i in labels.sizes}
    train_ids = [i for i in labels.sizes if folds[i] != args.fold]
    val_ids = [i for i in labels.sizes if folds[i] == args.fold]

    torch.manual_seed(train.seed)
    model = build_model(
        arch=config.model.arch,
        encoder=config.model.encoder,
        encoder_weights=config.model.encoder_weights,
        channels=data.channels,
        num_classes=data.num_classes,
        mean=data.channel_mean,
        std=data.channel_std,
    )
    loss = build_loss(train.loss, pos_weight=config.pos_weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=train.learning_rate)
    begin = time.monotonic()
    for epoch in range(train.epochs):
        model.train()
        order = np.random.default_rng(epoch).permutation(len(train_ids))
        for start in range(0, len(order) - 1, train.batch_size_train):
            ids = [train_ids[k] for k in order[start : start + train.batch_size_train]]
            batch = torch.stack([images[i] for i in ids])
            value = loss(model(batch), torch.stack([masks[i] for i in ids]).float(), None)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: {time.monotonic() - begin:.0f} s", flush=True)

    model.eval()
    counts = []
    with torch.inference_mode():
        for i in val_ids:
            probs = model(images[i][None]).sigmoid()[0]
            counts.append(count_pixels((probs >= 0.5).numpy(), masks[i].numpy()))
    plain = score(np.stack(counts)).overall

    with (run.fold(args.fold) / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    best = max(history, key=lambda row: float(row["val_dice"]))
    print("                 Dice on defects     Dice   false alarms   training s")
    print(
        f"plain loop       {plain.dice_positive:15.4f} {plain.dice:8.4f} {plain.false_alarms:14d}"
        f" {time.monotonic() - begin:12.0f}"
    )
    for name, row in (("ours, best epoch", best), ("ours, last epoch", history[-1])):
        seconds = sum(float(r["train_seconds"]) for r in history)
        print(
            f"{name} {float(row['val_dice_positive']):15.4f} {float(row['val_dice']):8.4f}"
            f" {int(float(row['val_false_alarms'])):14d} {seconds:12.0f}"
        )


if __name__ == "__main__":
    main()
