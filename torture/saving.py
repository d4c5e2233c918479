"""A training that stops itself before an epoch is saved, repeatedly at the same point."""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from torture import commands, warm
from torture.system_calls import Point, list_points, wait_until_stopped
from torture.tiny import Tiny, difference

_EPOCHS = 2


@dataclass(frozen=True)
class Saving:
    """The second of two epochs, about to be saved; the first lies in the run folder."""

    tiny: Tiny
    straight: Path
    """A run that nothing disturbed."""

    @property
    def run(self) -> Path:
        """The run of the trial at hand."""
        return self.tiny.folder / "run"

    @property
    def log(self) -> Path:
        """For strace."""
        return self.tiny.folder / "strace.txt"

    def stopped(self) -> BaseProcess:
        """Start over and give the process that is about to save."""
        process = self._again(commands.run_stopped_at_save, _EPOCHS)
        wait_until_stopped(process)
        return process

    def limited(self, size: int) -> BaseProcess:
        """Start over with a process that can write no more than `size` bytes into a file."""
        return self._again(commands.run_with_small_files, size)

    def _again(self, work: Callable[..., int], *args: object) -> BaseProcess:
        """Resume a process with the run as it was before the save."""
        self.tiny.remove("run")
        if (self.tiny.folder / "before").exists():
            shutil.copytree(self.tiny.folder / "before", self.run)
        return warm.begin(work, *args, self.tiny.train("run"), output=self.tiny.output("run"))

    def points(self) -> list[Point]:
        """The system calls from there to the end of the command."""
        return list_points(self.stopped(), self.log)

    def said(self) -> list[str]:
        """Return the last output of the current process."""
        lines = self.tiny.output("run").read_text().splitlines()
        return [line for line in lines if line.startswith(("error", "Traceback"))]

    def fault_after_resuming(self) -> str:
        """Run to the end; return what differs from an undisturbed run."""
        output = self.tiny.output("resumed")
        output.unlink(missing_ok=True)
        code = warm.end(warm.begin(commands.run, self.tiny.train("run"), output=output))
        text = output.read_text()
        if code or "set aside" in text:
            return text.splitlines()[-1]
        return difference(self.straight, self.run)


@contextmanager
def open_saving() -> Iterator[Saving]:
    """Make data, the undisturbed run, and one that was killed before its second epoch is saved."""
    with TemporaryDirectory() as folder:
        tiny = Tiny.make(Path(folder), f"train.epochs={_EPOCHS}")
        saving = Saving(tiny, tiny.whole("straight", tiny.train("straight")))
        process = saving.stopped()
        process.kill()
        warm.end(process)
        saving.run.rename(tiny.folder / "before")
        yield saving


def some(points: Sequence[Point], count: int) -> list[Point]:
    """All points, or a seeded choice of them in their order."""
    chosen = random.Random(6).sample(range(len(points)), min(count, len(points)))
    return [points[number] for number in sorted(chosen)]
