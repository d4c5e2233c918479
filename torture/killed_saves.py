"""SIGKILL at every system call by which the files of an epoch are saved.

strace lists the calls from the start of the second epoch's save until the command ends: best
model, history, resumable checkpoint, removal of old ones, log. The run is then repeated for each
call and killed as it enters the call. Every file must load, old or new, and the same command must
reach the result of an undisturbed run without skipping a checkpoint.
"""

import time

from steelseg.errors import CheckpointError
from steelseg.models.checkpoint import load_checkpoint
from torture import warm
from torture.outcome import Outcome
from torture.saving import Saving, open_saving, some
from torture.system_calls import MISSING as MISSING
from torture.system_calls import Point, go_on_with_kill

NAME = "killed at any system call of a save, the old or the new one loads"
COUNT = 10_000
QUICK = 2


def run(count: int) -> Outcome:
    """Kill a save at `count` of its calls, or at all if there are fewer."""
    begin = time.monotonic()
    with open_saving() as saving:
        points = saving.points()
        chosen = some(points, count)
        faults = [f"{point}: {fault}" for point in chosen if (fault := _fault(saving, point))]
    note = "; ".join([f"{len(points)} calls in a save", *faults[:1]])
    return Outcome(len(chosen) - len(faults), len(chosen), time.monotonic() - begin, note)


def _fault(saving: Saving, point: Point) -> str:
    """Kill a save at one call; return what is wrong then, or after resuming."""
    process = saving.stopped()
    go_on_with_kill(process, point, saving.log)
    if warm.end(process) != -9:
        return "it was not killed"
    try:
        for path in saving.run.rglob("*.safetensors"):
            load_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return saving.fault_after_resuming()
