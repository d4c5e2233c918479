"""The bench stage: how fast this machine predicts these strips, by backend and precision.

Reads  RUN or a bundle, image files
Writes nothing; exports that are missing are made in a temporary folder
"""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from steelseg.config.config import Config
from steelseg.data.folder import DataSet
from steelseg.data.formats.images import list_images, read_image
from steelseg.errors import ConfigError
from steelseg.export.acceptance import LARGEST_DIFFERENCE
from steelseg.export.bench_candidates import of_bundle, of_run
from steelseg.export.timing import Measured, measure
from steelseg.inference.model_source import resolve_model
from steelseg.models.device import pick_device
from steelseg.run.bundle_manifest import Backend, is_bundle
from steelseg.run.kinds import refuse_combined
from steelseg.run.run_folder import RunFolder

# int8 clips what it was not calibrated on, which matters to its masks more than to its speed.
_CALIBRATION = 32

# What is less faster is not worth other masks.
_WORTH_IT = 1.1


@dataclass(frozen=True)
class Result:
    """How one way to predict did."""

    backend: Backend
    precision: str
    command: str
    """What the user types to have it."""

    measured: Measured

    @property
    def name(self) -> str:
        """How the table calls it."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class Bench:
    """What was measured, and where."""

    machine: Mapping[str, str | int | None]
    strips: int
    rounds: int
    results: tuple[Result, ...]
    """The first is the one that differences are from: torch in full precision, of a run."""


def bench_run(
    place: Path,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
    images: Path | None = None,
    strips: int = 32,
    rounds: int = 3,
    backends: Sequence[Backend] = ("torch", "onnx", "openvino"),
) -> Bench:
    """Time every way to predict with a run or a bundle.

    Args:
        place: A run folder or a bundle.
        overrides: Settings to change, such as "inference.tta=hflip".
        folds: Which folds; None takes all.
        images: Folder of the strips; None takes data.root/test_images.
        strips: How many of them, taken evenly.
        rounds: Turns of each candidate.
        backends: Which to try, of a run.

    Raises:
        CheckpointError: if the run or the bundle cannot be used.
        ConfigError: if no folder of images is known, or a setting is wrong.
        DataError: if an image cannot be read.
    """
    refuse_combined(
        RunFolder(place),
        f"Time a bundle of it: steelseg bundle {place}; steelseg bench {place / 'bundle'}.",
    )
    # A cascade is left out: how much it saves depends on how many strips are clean.
    settings = [*overrides, "inference.cascade=false"]
    plain = resolve_model(place, [*settings, "inference.amp=false"], folds=folds)
    half = partial(resolve_model, place, [*settings, "inference.amp=true"], folds=folds)
    config = plain.config
    paths = _choose(config, images, strips)
    with TemporaryDirectory() as work:
        candidates = (
            of_bundle(place, plain, half)
            if is_bundle(place)
            else of_run(
                RunFolder(place),
                plain,
                half,
                folds=folds,
                backends=backends,
                strips=lambda: [
                    read_image(path, channels=config.data.channels) for path in paths[:_CALIBRATION]
                ],
                work=Path(work),
                tell=lambda text: print(text, file=sys.stderr),
            )
        )
        if not candidates:
            raise ConfigError(f"Of {', '.join(backends)} nothing is left to be timed.")
        measured = measure({c.name: c.model for c in candidates}, paths, rounds=rounds)
    results = tuple(Result(c.backend, c.precision, c.command, measured[c.name]) for c in candidates)
    return Bench(_machine(), len(paths), rounds, results)


def _choose(config: Config, images: Path | None, strips: int) -> list[Path]:
    """Some images of a folder, taken evenly."""
    if images is None and "root" not in config.data.model_fields_set:
        raise ConfigError("A bundle names no images. Give --images DIR, or data.root=DIR.")
    folder = images or DataSet(config.data.root).test_images
    names = list_images(folder)
    count = min(strips, len(names))
    return [folder / names[place * len(names) // count] for place in range(count)]


def _machine() -> dict[str, str | int | None]:
    """What the figures hold for."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if pick_device().type == "cuda" else None,
    }


def _processor() -> str:
    """Name of the processor, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(bench: Bench) -> str:
    """A table of what was measured, and which to choose."""
    header = ("", "strips/s", "times", "ms", "ms 95 %", "difference", "other masks")
    first = bench.results[0].measured.strips_per_second
    rows = [
        header,
        *(
            (
                result.name,
                f"{result.measured.strips_per_second:.2f}",
                f"{result.measured.strips_per_second / first:.2f}",
                f"{result.measured.latency_ms:.1f}",
                f"{result.measured.latency_95_ms:.1f}",
                f"{result.measured.difference:.1e}",
                f"{result.measured.masks_that_differ}/{result.measured.masks}",
            )
            for result in bench.results
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        " ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    ]
    where = ", ".join(
        f"{name} {value}" for name, value in bench.machine.items() if value is not None
    )
    title = f"{bench.strips} strips, {bench.rounds} rounds; {where}"
    return "\n".join([title, *lines, advice(bench.results)])


def advice(results: Sequence[Result]) -> str:
    """Which to choose, and how to get it: the fastest with the same masks, and what is faster."""
    rate = {result.name: result.measured.strips_per_second for result in results}
    same = [result for result in results if result.measured.difference <= LARGEST_DIFFERENCE]
    exact = max(same, key=lambda result: rate[result.name])
    fastest = max(results, key=lambda result: rate[result.name])
    gain = rate[fastest.name] / rate[exact.name]
    chosen = f"Choose {exact.name}, the fastest with the same masks: {exact.command}"
    if gain < _WORTH_IT:
        return chosen
    return (
        f"{chosen}\n{fastest.name} is {gain:.1f} times as fast, with other masks; if their Dice "
        f"is good enough: {fastest.command}"
    )
