"""What durable saves cost a training: epochs with and without them, in turns, in one process.

    python benchmarks/saving.py [--encoder resnet18] [--strips 16] [--rounds 2]

Trains one fold of made-up strips of 256x1600, cut to crops of 256x512, as `steelseg train` does:
best model and resumable checkpoint after each epoch, and every ten minutes within one, hashed,
flushed and renamed. In every second epoch `save_checkpoint` does nothing. The first epoch warms
up. An epoch of the competition's strips is 800 times as long as one of 16 strips, and saves the
same files; the last figure is for that one.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

from steelseg.config.load import build_config
from steelseg.data.synthetic.dataset import make_dataset
from steelseg.training import fold_files, trainer
from steelseg.training.train import train_run

COMPETITION_STRIPS = 12_568


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="unet")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--strips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        figures = measure(args, Path(folder))
    print(json.dumps(figures, indent=1))


def measure(args, folder):
    """Train, and give the seconds of epochs and saves."""
    make_dataset(folder / "data", num_train=args.strips, num_test=1)
    clock = Clock()
    with (
        mock.patch.object(trainer, "save_checkpoint", clock.save),
        mock.patch.object(fold_files, "save_checkpoint", clock.save),
        mock.patch.object(trainer.FoldTrainer, "save_epoch", clock.epoch_saver()),
    ):
        train_run(settings(args, folder), folder / "run", folds=[0])
    # The first epoch warmed up.
    saved, unsaved, saves = clock.epochs[True][1:], clock.epochs[False], clock.saves[1:]
    per_epoch = statistics.median(saves)
    competition = statistics.median(unsaved) * COMPETITION_STRIPS / args.strips
    files = [path.stat().st_size for path in (folder / "run").rglob("*.safetensors")]
    return {
        "network": f"{args.arch}/{args.encoder}",
        "epochs_with_saves_s": [round(x, 2) for x in saved],
        "epochs_without_saves_s": [round(x, 2) for x in unsaved],
        "saving_s_per_epoch": [round(x, 2) for x in saves],
        "largest_file_mb": round(max(files) / 1e6),
        "share_of_these_epochs": round(per_epoch / statistics.median(saved), 4),
        "share_of_an_epoch_of_the_competition": round(per_epoch / competition, 6),
    }


class Clock:
    """Times epochs and saves; every second epoch saves nothing."""

    def __init__(self):
        self.epochs = {True: [], False: []}
        self.saves = []
        self._is_saving, self._spent, self._begin = True, 0.0, time.monotonic()
        self._save = fold_files.save_checkpoint

    def save(self, path, checkpoint):
        if self._is_saving:
            begin = time.monotonic()
            self._save(path, checkpoint)
            self._spent += time.monotonic() - begin

    def epoch_saver(self):
        """Give a method for `FoldTrainer` that times its own."""
        save_epoch = trainer.FoldTrainer.save_epoch

        def timed(fold_trainer, row):
            save_epoch(fold_trainer, row)
            now = time.monotonic()
            self.epochs[self._is_saving].append(now - self._begin)
            if self._is_saving:
                self.saves.append(self._spent)
            self._is_saving, self._spent, self._begin = not self._is_saving, 0.0, now

        return timed


def settings(args, folder):
    return build_config(
        {
            "data": {"root": folder / "data", "mode": "crops", "num_folds": 4},
            "model": {"arch": args.arch, "encoder": args.encoder, "encoder_weights": "none"},
            "train": {"epochs": 1 + 2 * args.rounds},
        }
    )


if __name__ == "__main__":
    main()
