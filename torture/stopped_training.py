"""SIGTERM and Ctrl-C at random moments of a training.

Both signals in turn, to the process alone and to its whole group, without and with processes that
load samples. The command must end within 10 s with 143 or 130 and leave a checkpoint; resumed, it
must end as an undisturbed run.
"""

import os
import random
import signal
import tempfile
import time
from itertools import product
from multiprocessing.process import BaseProcess
from pathlib import Path

from torture import commands, warm
from torture.outcome import Outcome
from torture.tiny import Tiny, difference

NAME = "SIGTERM and Ctrl-C: a checkpoint, 143 or 130 within 10 s, resumed to the same bits"
COUNT = 40
QUICK = 2

_SECONDS = 10
# Seconds of training before it is stopped, at most; 12 epochs take 1.7 on a fast machine.
_LONGEST_WAIT = 0.6
_WAYS = tuple(product((signal.SIGTERM, signal.SIGINT), (os.kill, os.killpg), (0, 2)))


def run(count: int) -> Outcome:
    """Stop `count` trainings."""
    begin = time.monotonic()
    rng = random.Random(6)
    faults: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        # Saved now and then only, so that a stop has something to lose.
        tiny = Tiny.make(Path(folder), "train.save_minutes=10", "train.epochs=12")
        straight = {
            workers: tiny.whole(str(workers), tiny.train(str(workers), _workers(workers)))
            for workers in (0, 2)
        }
        for trial in range(count):
            # An odd stride visits every way, whatever the count.
            signum, send, workers = _WAYS[trial * 3 % len(_WAYS)]
            seconds, fault = _stop(
                tiny, straight[workers], signum, send, workers, _LONGEST_WAIT * rng.random()
            )
            slowest = max(slowest, seconds)
            if fault:
                faults.append(f"{signum.name} by {send.__name__}, {workers} workers: {fault}")
            tiny.remove("run")
    note = "; ".join([f"slowest end {slowest:.1f} s", *faults[:1]])
    return Outcome(count - len(faults), count, time.monotonic() - begin, note)


def _stop(
    tiny: Tiny, straight: Path, signum: int, send, workers: int, delay: float
) -> tuple[float, str]:
    """Stop one training; return how long it took to end, and what went wrong."""
    command = tiny.train("run", _workers(workers))
    process = warm.begin(commands.run, command, output=tiny.output("run"))
    _wait_for_training(process, tiny.output("run"))
    process.join(delay)
    begin = time.monotonic()
    send(process.pid, signum)
    code = warm.end(process)
    seconds = time.monotonic() - begin
    lines = tiny.output("run").read_text().splitlines()
    if code != 128 + signum or seconds > _SECONDS:
        return seconds, f"exit code {code} after {seconds:.1f} s: {lines[-1]}"
    if not list((tiny.folder / "run" / "fold_0" / "last").glob("epoch_*.safetensors")):
        return seconds, "no checkpoint"
    output = tiny.output("resumed")
    if code := warm.end(warm.begin(commands.run, command, output=output)):
        return seconds, f"exit code {code} of resuming"
    return seconds, difference(straight, tiny.folder / "run")


def _workers(number: int) -> str:
    return f"train.num_workers={number}"


def _wait_for_training(process: BaseProcess, output: Path) -> None:
    """Wait until the training reports that it starts."""
    while process.exitcode is None:
        if output.exists() and "training samples" in output.read_text():
            return
        time.sleep(0.005)
