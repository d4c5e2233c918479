"""Damaged and swapped checkpoints, given to `train --resume` and `predict`.

The run has trained two epochs of three. In nine of twenty trials both resumable checkpoints are
damaged: training must fail with one line before its first step and change no file. In one trial
only the newest is damaged: it must be set aside, and the result equal an undisturbed run. In five
`best_model` is damaged, and five call only `predict`: one line again. Swapped checkpoints come from
another fold, architecture, other settings or other masks, or are models without optimizer.
"""

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from steelseg.run.run_folder import RunFolder
from steelseg.training.fold_files import FoldFiles
from torture import commands, warm
from torture.damage import spoil
from torture.outcome import Outcome
from torture.tiny import Tiny, call, difference, refusal_fault

NAME = "a damaged or strange checkpoint is refused before the first step, or passed over"
COUNT = 700
QUICK = 12


_STRANGERS = {
    "other_fold": ["--fold", "1"],
    "other_architecture": ["model.arch=fpn"],
    "other_encoder": ["model.encoder=tu-mobilenetv3_small_050"],
    "other_loss": ["train.loss=dice"],
    "other_rate": ["train.learning_rate=0.01"],
    "other_classes": ["data.class_names=[a,b,c,d]"],
}


def run(count: int) -> Outcome:
    """Spoil checkpoints `count` times."""
    begin = time.monotonic()
    faults: list[str] = []
    with _open_bench(count) as bench:
        for trial in range(count):
            rng = random.Random(trial)
            kind, attempt = _KINDS[trial % len(_KINDS)]
            done, fault = attempt(bench, rng)
            if fault:
                faults.append(f"trial {trial}, {kind}, {done}: {fault}")
    seconds = time.monotonic() - begin
    return Outcome(count - len(faults), count, seconds, "; ".join(faults[:1]))


@dataclass(frozen=True)
class _Bench:
    """A run of two epochs, the same run gone on to three, and files of others."""

    tiny: Tiny
    before: Path
    straight: Path
    strangers: tuple[Path, ...]

    def fresh(self) -> FoldFiles:
        """A copy to be spoilt."""
        self.tiny.remove("run")
        shutil.copytree(self.before, self.tiny.folder / "run")
        return FoldFiles(RunFolder(self.tiny.folder / "run").fold(0))

    def resume(self) -> tuple[int, list[str]]:
        """Resume the copy; return the exit code and stderr."""
        return call(*self.tiny.train("run", "train.epochs=3"))


@contextmanager
def _open_bench(count: int) -> Iterator[_Bench]:
    """Train the runs for the trials."""
    shared = ("train.scheduler=reduce_on_plateau", "train.save_minutes=0")
    with tempfile.TemporaryDirectory() as folder:
        tiny = Tiny.make(Path(folder), *shared, "train.epochs=2")
        before = tiny.whole("before", tiny.train("before"))
        shutil.copytree(before, tiny.folder / "straight")
        straight = tiny.whole("straight", tiny.train("straight", "train.epochs=3"))
        strangers = [before / "fold_0" / "best_model.safetensors"]
        # A sample of a few trials has fewer strangers.
        for name, words in islice(_STRANGERS.items(), max(1, count // 100)):
            run = tiny.whole(name, [*tiny.train(name), *words])
            strangers += sorted(run.rglob("*.safetensors"))
        yield _Bench(tiny, before, straight, tuple(strangers))


def _spoil_all(bench: _Bench, rng: random.Random) -> tuple[str, str]:
    files = bench.fresh()
    done = spoil(files.resumable(), bench.strangers, rng)
    spoilt = _contents(files)
    fault = refusal_fault(*bench.resume())
    return done, fault or ("" if _contents(files) == spoilt else "a file was changed")


def _spoil_newest(bench: _Bench, rng: random.Random) -> tuple[str, str]:
    newest, before = bench.fresh().resumable()
    done = spoil([newest], [*bench.strangers, before], rng)
    # A process of one thread trains on, because threads change the last bits.
    command, output = bench.tiny.train("run", "train.epochs=3"), bench.tiny.output("run")
    code = warm.end(warm.begin(commands.run, command, output=output))
    told = [x for x in output.read_text().splitlines() if x.startswith(f"warning: {newest}")]
    if code or len(told) != 1 or "It is set aside" not in told[0]:
        return done, f"exit code {code}, it said {told}"
    return done, difference(bench.straight, bench.tiny.folder / "run")


def _spoil_best(bench: _Bench, rng: random.Random) -> tuple[str, str]:
    files = bench.fresh()
    # Without a copy of it in last/ there is nothing to make it anew from.
    for path in files.resumable()[1:]:
        path.unlink()
    done = spoil([files.best_model], bench.strangers[1:], rng)
    return done, refusal_fault(*bench.resume())


def _predict(bench: _Bench, rng: random.Random) -> tuple[str, str]:
    files = bench.fresh()
    done = spoil([files.best_model], (), rng)
    fault = refusal_fault(*call("predict", str(bench.tiny.folder / "run")))
    written = (bench.tiny.folder / "run" / "submission.csv").exists()
    return done, fault or ("submission.csv was written" if written else "")


def _contents(files: FoldFiles) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in files.folder.rglob("*.safetensors")}


_KINDS = [
    *[("both resumable", _spoil_all)] * 9,
    ("the newest", _spoil_newest),
    *[("best_model, to train", _spoil_best)] * 5,
    *[("best_model, to predict", _predict)] * 5,
]
