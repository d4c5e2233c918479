"""A training that takes a second, and the comparison of two of them."""

import csv
import io
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steelseg.cli import main as cli
from steelseg.config.load import build_config, dump_config
from steelseg.data.synthetic.dataset import make_dataset
from steelseg.models.checkpoint import load_checkpoint
from steelseg.run.oof_store import read_oof
from steelseg.run.run_folder import RunFolder
from steelseg.training.fold_files import FoldFiles
from torture import warm
from torture.commands import Command, run

SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"mode": "crops", "img_height": 32, "img_width": 96, "num_folds": 2}
    | {"crop_height": 32, "crop_width": 64, "crop_stride": 32},
    "model": {"arch": "linknet", "encoder": "tu-test_resnet", "encoder_weights": "none"},
    "train": {"batch_size_train": 4, "batch_size_val": 4, "num_workers": 0, "amp": False}
    # Every step is saved: more to be hit.
    | {"epochs": 3, "save_minutes": 1e-6, "scheduler": "one_cycle", "augmentation": "light"},
}


@dataclass(frozen=True)
class Tiny:
    """A made-up data set with its settings, and runs of them, in one folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *overrides: str, num_test: int = 4) -> "Tiny":
        """Write data and settings."""
        make_dataset(folder / "data", num_train=16, num_test=num_test, height=32, width=96)
        content = SETTINGS | {"data": SETTINGS["data"] | {"root": str(folder / "data")}}
        (folder / "config.yaml").write_text(dump_config(build_config(content, overrides)))
        return cls(folder)

    def train(self, name: str, *settings: str) -> Command:
        """Return the command that starts or resumes a run."""
        config, out = self.folder / "config.yaml", self.folder / name
        return ["train", str(config), "--fold", "0", "--out", str(out), "--resume", *settings]

    def pipeline(self, name: str) -> list[Command]:
        """The commands from nothing, or a killed run, to a submission."""
        out = str(self.folder / name)
        return [self.train(name), ["oof", out], ["predict", out]]

    def output(self, name: str) -> Path:
        """Return the output of the processes of a run."""
        return self.folder / f"{name}.txt"

    def whole(self, name: str, *commands: Command) -> "Path":
        """Run commands that nothing disturbs, and give the run folder."""
        code = warm.end(warm.begin(run, *commands, output=self.output(name)))
        assert code == 0, self.output(name).read_text()
        return self.folder / name

    def remove(self, name: str) -> None:
        """Make room for the next run."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        self.output(name).unlink(missing_ok=True)


def call(*words: str | Path) -> tuple[int, list[str]]:
    """Run a command in this process; its exit code and the lines of its stderr."""
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = cli.main([str(word) for word in words])
    return code, said.getvalue().splitlines()


def refusal_fault(code: int, lines: Sequence[str]) -> str:
    """Return what is wrong with a refusal; "" if it is one line of error and exit code 1.

    A warning may come first: damage within the weights is found only when they are loaded, after
    the warning that a run is not tuned.
    """
    errors = [line for line in lines if not line.startswith("warning: ")]
    if code == 1 and len(errors) == 1 and errors[0].startswith("error: "):
        return ""
    return f"exit code {code}, it said {lines}"


def difference(one: Path, other: Path) -> str:
    """Name the first thing in which two runs of one fold differ; "" if they are alike.

    Looks at weights, optimizer and state of the best and the last model, history, held-out
    predictions and submission. Times may differ. No half-written file may lie about.
    """
    first, second = RunFolder(one), RunFolder(other)
    for file in (first.best_model(0), newest(one)):
        if odd := checkpoint_difference(file, other / file.relative_to(one)):
            return f"{file.name}: {odd}"
    if _history(first) != _history(second):
        return "history.csv"
    if first.oof(0).exists() and not _same_oof(first, second):
        return "the held-out predictions"
    submissions = [run.path / "submission.csv" for run in (first, second)]
    if submissions[0].exists() and submissions[0].read_bytes() != submissions[1].read_bytes():
        return "submission.csv"
    left = sorted(p.name for p in other.rglob("*") if ".partial" in p.name)
    return f"{left[0]} was left" if left else ""


def newest(run: Path) -> Path:
    """The newest resumable checkpoint of a run."""
    return FoldFiles(RunFolder(run).fold(0)).resumable()[0]


def checkpoint_difference(one: Path, other: Path) -> str:
    """Name the first thing in which two checkpoints differ."""
    first, second = load_checkpoint(one), load_checkpoint(other)
    for part in ("model", "optimizer"):
        tensors, others = getattr(first, part), getattr(second, part)
        if tensors.keys() != others.keys():
            return part
        for key, tensor in tensors.items():
            if not torch.equal(tensor, others[key]):
                return f"{part}.{key}"
    return "" if _timeless(first.state) == _timeless(second.state) else "state"


def _timeless(state: Any) -> str:
    """A state as text, without the seconds that an epoch took; the text has one NaN."""
    rows = [
        {name: x for name, x in row.items() if "seconds" not in name}
        for row in state.get("history", ())
    ]
    return repr({**state, "history": rows})


def _history(run: RunFolder) -> list[dict[str, str]]:
    with (run.fold(0) / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: x for name, x in row.items() if "seconds" not in name} for row in rows]


def _same_oof(first: RunFolder, second: RunFolder) -> bool:
    pairs = zip(read_oof(first.oof(0)), read_oof(second.oof(0)), strict=True)
    return all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in pairs)
