"""NaN and infinities in input, loss, gradient, weight, statistic, moment or averaged weights.

Each is injected at some step of a training that saves after every step, with and without gradient
clipping. The command must report where in one line and keep only finite checkpoints; resumed
without the fault, it must reach the result of an undisturbed run.
"""

import math
import random
import tempfile
import time
from itertools import cycle, islice, product
from pathlib import Path

from steelseg.models.checkpoint import load_checkpoint
from torture import injection, warm
from torture.commands import run as run_commands
from torture.outcome import Outcome
from torture.tiny import Tiny, difference

NAME = "what is not a number is never saved, and the last good checkpoint is kept"
COUNT = 42
QUICK = 2


def run(count: int) -> Outcome:
    """Try `count` faults."""
    begin = time.monotonic()
    rng = random.Random(6)
    ways = list(product(injection.PLACES, (math.nan, math.inf, -math.inf), (0, 1)))
    rng.shuffle(ways)
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        tinies = {
            clip: Tiny.make(
                Path(folder) / str(clip), f"train.gradient_clip={clip}", "train.ema_decay=0.999"
            )
            for clip in (0, 1)
        }
        straight = {clip: t.whole("straight", t.train("straight")) for clip, t in tinies.items()}
        for place, value, clip in islice(cycle(ways), count):
            step = rng.randint(1, 10)
            if fault := _fault(tinies[clip], straight[clip], place, value, step):
                faults.append(f"{value} in the {place} at step {step}, clip {clip}: {fault}")
            tinies[clip].remove("run")
    seconds = time.monotonic() - begin
    return Outcome(count - len(faults), count, seconds, "; ".join(faults[:1]))


def _fault(tiny: Tiny, straight: Path, place: str, value: float, step: int) -> str:
    """Inject a value; return what is wrong then, or after resuming without it."""
    output = tiny.output("run")
    process = warm.begin(injection.run_with, place, value, step, tiny.train("run"), output=output)
    code = warm.end(process)
    lines = [x for x in output.read_text().splitlines() if x.startswith(("error", "Traceback"))]
    if code != 1 or len(lines) != 1 or "error: fold 0, epoch" not in lines[0]:
        return f"exit code {code}, it said {lines}"
    for path in (tiny.folder / "run").rglob("*.safetensors"):
        checkpoint = load_checkpoint(path)
        for tensor in (*checkpoint.model.values(), *checkpoint.optimizer.values()):
            if not tensor.isfinite().all():
                return f"{path.name} is not finite"
    if code := warm.end(warm.begin(run_commands, tiny.train("run"), output=output)):
        return f"exit code {code} of resuming"
    return difference(straight, tiny.folder / "run")
