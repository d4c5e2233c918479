"""The bench stage: how fast this machine predicts these strips, by backend and precision.

Reads  RUN or a bundle, image files
Writes nothing; missing exports are made in a temporary folder
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
from steelseg.config.export_formats import backends as all_backends
from steelseg.data.folder import DataSet
from steelseg.data.formats.images import list_images, read_image
from steelseg.errors import ConfigError
from steelseg.export.bench_candidates import bundle_candidates, run_candidates
from steelseg.export.parity import LARGEST_DIFFERENCE
from steelseg.export.timing import Measured, measure
from steelseg.inference.model_source import resolve_model
from steelseg.models.device import pick_device
from steelseg.run.bundle_manifest import is_bundle
from steelseg.run.kinds import refuse_combined
from steelseg.run.run_folder import RunFolder
from steelseg.scoring.metrics import text_table

# Few, because calibration matters to the masks of int8 and not to its speed.
_CALIBRATION = 32

# A smaller gain in speed does not justify different masks.
_LEAST_GAIN = 1.1


@dataclass(frozen=True)
class Result:
    """Figures of one backend and precision."""

    backend: str
    precision: str
    command: str
    """The command line that sets it up."""

    measured: Measured

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class Bench:
    """Figures of all candidates on one machine."""

    machine: Mapping[str, str | int | None]
    strips: int
    rounds: int
    results: tuple[Result, ...]
    """The first is the reference for differences: of a run, torch in full precision."""


def bench_run(
    place: Path,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
    images: Path | None = None,
    strips: int = 32,
    rounds: int = 3,
    backends: Sequence[str] | None = None,
) -> Bench:
    """Time a run or a bundle with every backend and precision.

    Args:
        place: A run folder or a bundle.
        overrides: Settings to change, such as "inference.tta=hflip".
        folds: Folds to use; None takes all.
        images: Folder of the strips; None takes data.root/test_images.
        strips: Number of strips, evenly spaced.
        rounds: Timing rounds of each candidate.
        backends: Backends to try, for a run; None tries all.

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
    backends = all_backends() if backends is None else backends
    paths = _choose(config, images, strips)
    with TemporaryDirectory() as work:
        candidates = (
            bundle_candidates(place, plain, half)
            if is_bundle(place)
            else run_candidates(
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
            raise ConfigError(f"None of {', '.join(backends)} can be timed.")
        measured = measure({c.name: c.model for c in candidates}, paths, rounds=rounds)
    results = tuple(Result(c.backend, c.precision, c.command, measured[c.name]) for c in candidates)
    return Bench(_machine(), len(paths), rounds, results)


def _choose(config: Config, images: Path | None, strips: int) -> list[Path]:
    """Return evenly spaced images of a folder."""
    if images is None and "root" not in config.data.model_fields_set:
        raise ConfigError("A bundle has no images. Give --images DIR, or data.root=DIR.")
    folder = images or DataSet(config.data.root).test_images
    names = list_images(folder)
    count = min(strips, len(names))
    return [folder / names[place * len(names) // count] for place in range(count)]


def _machine() -> dict[str, str | int | None]:
    """Describe this machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if pick_device().type == "cuda" else None,
    }


def _processor() -> str:
    """Return the name of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(bench: Bench) -> str:
    """Draw the figures as a text table, with a recommendation."""
    header = ("", "strips/s", "times", "ms", "ms 95 %", "difference", "other masks")
    first = bench.results[0].measured.strips_per_second
    rows = [
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
    ]
    where = ", ".join(
        f"{name} {value}" for name, value in bench.machine.items() if value is not None
    )
    title = f"{bench.strips} strips, {bench.rounds} rounds; {where}"
    return "\n".join([title, text_table([header, *rows]), advice(bench.results)])


def advice(results: Sequence[Result]) -> str:
    """Recommend the fastest candidate with the same masks, and any that is faster without them."""
    rate = {result.name: result.measured.strips_per_second for result in results}
    same = [result for result in results if result.measured.difference <= LARGEST_DIFFERENCE]
    exact = max(same, key=lambda result: rate[result.name])
    fastest = max(results, key=lambda result: rate[result.name])
    gain = rate[fastest.name] / rate[exact.name]
    chosen = f"Choose {exact.name}, the fastest with the same masks: {exact.command}"
    if gain < _LEAST_GAIN:
        return chosen
    return (
        f"{chosen}\n{fastest.name} is {gain:.1f} times as fast, with different masks; if their "
        f"Dice is good enough: {fastest.command}"
    )
