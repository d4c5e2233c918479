"""SIGKILL at random moments of a training, which is then rerun until it is complete.

A trial is `steelseg train --resume`, `oof` and `predict`. It is killed once, and every second trial
twice, at moments spread evenly over the duration of an undisturbed one. Every step saves, so that
many kills hit a save.
"""

import random
import tempfile
import time
from pathlib import Path

from torture import commands, warm
from torture.outcome import Outcome
from torture.tiny import Tiny, difference

NAME = "killed at random moments, a run resumes to the same bits"
COUNT = 100
QUICK = 1


def run(count: int) -> Outcome:
    """Kill `count` runs."""
    begin = time.monotonic()
    rng = random.Random(6)
    faults: list[str] = []
    kills = 0
    with tempfile.TemporaryDirectory() as folder:
        tiny = Tiny.make(Path(folder))
        straight = tiny.whole("straight", *tiny.pipeline("straight"))
        undisturbed = time.monotonic()
        tiny.whole("timed", *tiny.pipeline("timed"))
        seconds = time.monotonic() - undisturbed
        for trial in range(count):
            while not _kill(tiny, seconds * rng.random()):
                # It was through before.
                tiny.remove("killed")
            kills += 1 + (trial % 2 and _kill(tiny, seconds * rng.random()))
            if fault := _finish(tiny, straight):
                faults.append(f"trial {trial}: {fault}")
            tiny.remove("killed")
    note = f"{kills} kills over the {seconds:.1f} s of a run; " + "; ".join(faults[:1])
    return Outcome(count - len(faults), count, time.monotonic() - begin, note.rstrip("; "))


def _kill(tiny: Tiny, delay: float) -> bool:
    """Start or resume the run and kill it after a while; whether it still ran."""
    process = warm.begin(commands.run, *tiny.pipeline("killed"), output=tiny.output("killed"))
    process.join(delay)
    process.kill()
    return warm.end(process) < 0


def _finish(tiny: Tiny, straight: Path) -> str:
    """Run to the end; return what differs from an undisturbed run."""
    process = warm.begin(commands.run, *tiny.pipeline("killed"), output=tiny.output("killed"))
    if code := warm.end(process):
        return f"exit code {code}: {tiny.output('killed').read_text().splitlines()[-1]}"
    return difference(straight, tiny.folder / "killed")
