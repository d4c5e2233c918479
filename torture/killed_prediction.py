"""SIGKILL at random moments of a prediction, which is then rerun until it is complete.

A trial predicts 1,000 strips and is killed one to three times. In every second trial nothing else
changes, and the last command must say how many strips it need not predict again. In the others the
network, the threshold or an image changes before the last command. In both cases each file must
equal that of an undisturbed prediction, byte for byte, and must not exist before the end.
"""

import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from steelseg.files.journal import JOURNAL
from torture import commands, warm
from torture.commands import Command
from torture.outcome import Outcome
from torture.tiny import Tiny

NAME = "a killed prediction goes on to the same bytes, and never mixes with another"
COUNT = 20
QUICK = 2

# A sample of a few trials has fewer.
_STRIPS = 1000
_STRIPS_A_TRIAL = 50

# What the last command has besides; "image" changes a file instead.
_CHANGES: dict[str, Command] = {
    "nothing": [],
    "network": ["--fold", "1"],
    "threshold": ["postprocess.threshold=0.45"],
    "image": [],
}

_FILES = ("submission.csv", "predictions.jsonl")


def run(count: int) -> Outcome:
    """Kill `count` predictions."""
    begin = time.monotonic()
    faults: list[str] = []
    kills = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench.make(Path(folder), count)
        for trial in range(count):
            rng = random.Random(trial)
            change = _change_of(trial)
            times = rng.randint(1, 3)
            faults += [f"trial {trial}: {x}" for _ in range(times) if (x := bench.kill(rng))]
            if fault := bench.finish(change):
                faults.append(f"trial {trial}, {change} changed: {fault}")
            kills += times
            bench.tiny.remove("out")
    note = f"{kills} kills over the {bench.seconds:.1f} s that {bench.strips:,} strips take"
    note = "; ".join([note, *faults[:1]])
    return Outcome(count - len(faults), count, time.monotonic() - begin, note)


def _change_of(trial: int) -> str:
    """Nothing in every second trial, else one after the other."""
    return list(_CHANGES)[trial // 2 % 3 + 1 if trial % 2 else 0]


@dataclass(frozen=True)
class _Bench:
    """A trained run and its undisturbed predictions."""

    tiny: Tiny

    strips: int

    straight: Mapping[str, Mapping[str, bytes]]
    """The files, by the change that was made."""

    seconds: float
    """How long a prediction takes."""

    @classmethod
    def make(cls, folder: Path, count: int) -> "_Bench":
        """Train two folds for an epoch, and predict in every way that so many trials need."""
        strips = min(_STRIPS, _STRIPS_A_TRIAL * count)
        tiny = Tiny.make(folder, "train.epochs=1", "train.save_minutes=0", num_test=strips)
        tiny.whole("run", tiny.train("run"), [*tiny.train("run"), "--fold", "1"])
        straight = {}
        for change in dict.fromkeys(map(_change_of, range(count))):
            with _changed(tiny, change):
                begin = time.monotonic()
                straight[change] = _contents(tiny.whole("out", _predict(tiny, change)))
                seconds = time.monotonic() - begin
            tiny.remove("out")
        submissions = {files["submission.csv"] for files in straight.values()}
        assert len(submissions) == len(straight), "a change changed nothing"
        return cls(tiny, strips, straight, seconds)

    def kill(self, rng: random.Random) -> str:
        """Start or continue, kill it after a while, and return what is wrong then."""
        process = self._begin("nothing")
        process.join(self.seconds * rng.random())
        process.kill()
        if warm.end(process) == 0:
            # It was through: the next one starts again.
            self.tiny.remove("out")
            return ""
        there = _contents(self.tiny.folder / "out")
        whole = {name: content == self.straight["nothing"][name] for name, content in there.items()}
        return "" if all(whole.values()) else f"half of {whole} is there"

    def finish(self, change: str) -> str:
        """Run to the end, with or without a change; return what is wrong."""
        journal = self.tiny.folder / "out" / JOURNAL
        known = journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0
        self.tiny.output("out").unlink(missing_ok=True)
        with _changed(self.tiny, change):
            code = warm.end(self._begin(change))
        said = self.tiny.output("out").read_text()
        if code or journal.exists():
            return f"exit code {code}: {said.splitlines()[-1:]}"
        if known > 0 and not any(line in said for line in self._expected(change, known)):
            return f"{known} were known, it said {said.splitlines()[:1]}"
        is_same = _contents(self.tiny.folder / "out") == self.straight[change]
        return "" if is_same else "other files than those of a whole prediction"

    def _begin(self, change: str) -> BaseProcess:
        command = _predict(self.tiny, change)
        return warm.begin(commands.run, command, output=self.tiny.output("out"))

    def _expected(self, change: str, known: int) -> list[str]:
        """Return what the last command may print; one of these is required."""
        if change in ("network", "threshold"):
            return ["Prediction starts over."]
        counts = (known, known - 1) if change == "image" else (known,)
        return [f"{x} of {self.strips} images were predicted before" for x in counts if x]


def _predict(tiny: Tiny, change: str) -> Command:
    places = [str(tiny.folder / "run"), "--output-dir", str(tiny.folder / "out")]
    return ["predict", *places, "--format", "jsonl", "--fold", "0", *_CHANGES[change]]


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in _FILES if (folder / name).exists()}


@contextmanager
def _changed(tiny: Tiny, change: str) -> Iterator[None]:
    """Replace the first strip, if that is the change of this trial."""
    if change != "image":
        yield
        return
    first, *_, last = sorted((tiny.folder / "data" / "test_images").iterdir())
    content = first.read_bytes()
    first.write_bytes(last.read_bytes())
    try:
        yield
    finally:
        first.write_bytes(content)
