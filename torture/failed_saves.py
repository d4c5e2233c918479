"""A disk that is full or broken at every system call of a save.

As in `killed_saves`, but the call fails: open, write, mkdir and rename with "no space left", fsync,
close and unlink with "input/output error". In further trials the file size is limited, so that
writing the largest file fails at that byte. The command must end with one line that says why, or
not need the call; rerun without the fault, it must reach the result of an undisturbed run.
"""

import time

from torture import warm
from torture.outcome import Outcome
from torture.saving import Saving, open_saving, some
from torture.system_calls import MISSING as MISSING
from torture.system_calls import Point, go_on_with_error
from torture.tiny import newest

NAME = "a full or broken disk at any call of a save costs no checkpoint"
COUNT = 10_000
QUICK = 3

_SIZES = 40


def run(count: int) -> Outcome:
    """Let `count` saves fail, at all places if there are fewer."""
    begin = time.monotonic()
    with open_saving() as saving:
        # What is printed goes elsewhere than to the disk of the run, and locks are a courtesy.
        points = [p for p in saving.points() if f"{saving.run}/" in p.where and p.call != "flock"]
        largest = newest(saving.straight).stat().st_size
        sizes = [largest * part // _SIZES for part in range(1, _SIZES)]
        chosen = some([*points, *sizes], count)
        faults = [f"{place}: {fault}" for place in chosen if (fault := _fault(saving, place))]
    note = "; ".join([f"{len(points)} calls and {len(sizes)} sizes", *faults[:1]])
    return Outcome(len(chosen) - len(faults), len(chosen), time.monotonic() - begin, note)


def _fault(saving: Saving, place: Point | int) -> str:
    """Make a save fail at one point; return what is wrong then, or after resuming."""
    if isinstance(place, Point):
        process = saving.stopped()
        go_on_with_error(process, place, _error(place), saving.log)
        is_needed = place.call not in ("unlink", "unlinkat", "close")
    else:
        process = saving.limited(place)
        is_needed = True
    code, said = warm.end(process), saving.said()
    if code not in (0, 1) or (code == 0 and is_needed):
        return f"exit code {code}"
    if code == 1 and (len(said) != 1 or not said[0].startswith("error: ")):
        return f"it said {said}"
    return saving.fault_after_resuming()


def _error(point: Point) -> str:
    """Return the error of such a call."""
    return "EIO" if point.call in ("fsync", "close", "unlink", "unlinkat") else "ENOSPC"
