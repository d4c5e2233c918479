"""Backends and precisions that `steelseg bench` can time on this machine.

For a run: torch and every installed runtime, with the exports of the run; exports that are missing,
or of an older checkpoint, are made in the caller's folder. For a bundle: the format it holds. Half
precision is included where the machine supports it.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from steelseg.config.export_formats import EXPORT_FORMATS
from steelseg.errors import CheckpointError, ConfigError
from steelseg.export.convert import as_input, convert
from steelseg.export.exported import export_folder, read_export
from steelseg.inference.backends.backend import load_backend
from steelseg.inference.forward import Network
from steelseg.inference.load_exported import load_exported
from steelseg.inference.members import Member
from steelseg.inference.model_source import ResolvedModel
from steelseg.models.build import restore_model
from steelseg.models.checkpoint import load_checkpoint
from steelseg.models.device import half_type, pick_device
from steelseg.run.bundle_manifest import read_manifest
from steelseg.run.run_folder import RunFolder

Files = dict[int, tuple[Path, int]]
"""The file of each fold, and the number that its input sizes must be multiples of."""


@dataclass(frozen=True)
class Candidate:
    """One backend and precision."""

    backend: str

    precision: str
    """fp32, bf16, fp16 or int8."""

    model: ResolvedModel

    command: str
    """The command line that sets it up."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"{self.backend} {self.precision}"


def bundle_candidates(
    folder: Path, plain: ResolvedModel, half: Callable[[], ResolvedModel]
) -> list[Candidate]:
    """Return the bundle as it is, and in half precision where the machine supports it.

    Args:
        folder: The bundle.
        plain: The bundle in full precision.
        half: Resolves it in half precision.
    """
    manifest = read_manifest(folder)
    command = f"steelseg predict {shlex.quote(str(folder))} --images DIR --output-dir DIR"
    found = [Candidate(manifest.backend, manifest.precision, plain, command)]
    if name := _half(manifest.backend, manifest.precision):
        found.append(Candidate(manifest.backend, name, half(), f"{command} inference.amp=true"))
    return found


def run_candidates(
    run: RunFolder,
    plain: ResolvedModel,
    half: Callable[[], ResolvedModel],
    *,
    folds: Sequence[int] | None,
    backends: Sequence[str],
    strips: Callable[[], list[NDArray[np.uint8]]],
    work: Path,
    tell: Callable[[str], None],
) -> list[Candidate]:
    """Return torch and each installed runtime, in every precision that the machine supports.

    Args:
        run: A run with trained folds.
        plain: The run in full precision.
        half: Resolves it in half precision.
        folds: The folds that the user named, for the commands; None if they named none.
        backends: Which to try.
        strips: Returns images_hwc to calibrate int8 on.
        work: An empty folder for missing exports.
        tell: Called with the reason for each backend that is left out.
    """
    place = shlex.quote(str(run.path))
    flags = f" --fold {' '.join(map(str, folds))}" if folds else ""
    half_model = cache(half)
    found = []
    if "torch" in backends:
        command = f"steelseg bundle {place}{flags}"
        found.append(Candidate("torch", "fp32", plain, command))
        if name := _half("torch", "fp32"):
            found.append(Candidate("torch", name, half_model(), f"{command} inference.amp=true"))
    for format in (f for f in EXPORT_FORMATS if f in backends):
        if absent := _absent(EXPORT_FORMATS[format].packages):
            tell(f"{format} is left out: {absent} is not installed.")
            continue
        try:
            exports = list(_exports(run, plain.folds, format, strips=strips, work=work, tell=tell))
        except ConfigError as error:
            tell(f"{format} is left out: {error}")
            continue
        for precision, files, is_there in exports:
            ask = f"--format {format}" + (" --int8" if precision == "int8" else "")
            make = "" if is_there else f"steelseg export {place} {ask}{flags} && "
            command = f"{make}steelseg bundle {place}{flags} --from {format}-{precision}"
            swapped = replace(plain, members=_members(plain, files, amp=False))
            found.append(Candidate(format, precision, swapped, command))
            if name := _half(format, precision):
                model = half_model()
                swapped = replace(model, members=_members(model, files, amp=True))
                found.append(Candidate(format, name, swapped, f"{command} inference.amp=true"))
    return found


def _absent(packages: Sequence[str]) -> str | None:
    """Return the first package that is not installed, if any."""
    return next((name for name in packages if find_spec(name) is None), None)


def _half(backend: str, precision: str) -> str | None:
    """Return the half precision that a backend supports here; None if none, or for int8."""
    if backend == "torch":
        half = half_type(pick_device())
        return None if half is None else {"torch.bfloat16": "bf16"}.get(str(half), "fp16")
    return load_backend(backend).half_precision() if precision == "fp32" else None


def _exports(
    run: RunFolder,
    folds: Sequence[int],
    format: str,
    *,
    strips: Callable[[], list[NDArray[np.uint8]]],
    work: Path,
    tell: Callable[[str], None],
) -> Iterator[tuple[str, Files, bool]]:
    """Yield each precision with its files, and whether they are existing exports of the run."""
    kind = EXPORT_FORMATS[format]
    there = {precision: _there(run, folds, format, precision) for precision in kind.precisions}
    made: dict[str, Files] = {}
    if not all(there.values()):
        wants_int8 = not there.get("int8", True)
        if wants_int8 and (absent := _absent(kind.int8_packages)):
            tell(f"{format} int8 is left out: {absent} is not installed.")
            wants_int8 = False
        made = _make(run, folds, format, strips() if wants_int8 else [], work)
    for precision, found in there.items():
        if files := found or made.get(precision):
            yield precision, files, found is not None


def _there(run: RunFolder, folds: Sequence[int], format: str, precision: str) -> Files | None:
    """Return the files of a run's export, if it is intact and has every fold."""
    try:
        export = read_export(export_folder(run, format, precision))
    except CheckpointError:
        return None
    files = {fold.fold: (export.path(fold), fold.multiple) for fold in export.record.folds}
    return files if files.keys() >= set(folds) else None


def _make(
    run: RunFolder,
    folds: Sequence[int],
    format: str,
    strips: Sequence[NDArray[np.uint8]],
    work: Path,
) -> dict[str, Files]:
    """Export folds without the checks of `steelseg export`: these are only timed."""
    made: dict[str, Files] = {}
    for fold in folds:
        model = restore_model(load_checkpoint(run.best_model(fold)))
        folder = work / f"{format}_{fold}"
        folder.mkdir()
        paths = convert(
            model,
            folder,
            format=format,
            channels=run.load_config().data.channels,
            calibration=[as_input(image_hwc, model) for image_hwc in strips],
        )
        for precision, path in paths.items():
            made.setdefault(precision, {})[fold] = path, model.multiple
    return made


def _members(model: ResolvedModel, files: Files, *, amp: bool) -> tuple[Member, ...]:
    """Return the networks of a run, loaded from exported files."""

    def load(path: Path, multiple: int, _: torch.device) -> Network:
        return load_exported(path, multiple=multiple, amp=amp)

    chosen = zip(model.members, (files[fold] for fold in model.folds), strict=True)
    return tuple(
        replace(member, name=str(file[0]), load=partial(load, *file), side_by_side=True)
        for member, file in chosen
    )
