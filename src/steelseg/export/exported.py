"""An export of a run: networks in the format of another runtime, and the record of their checks.

    RUN/export/openvino-int8/
      export.json              the record, with the SHA-256 of every file
      fold_0.xml  fold_0.bin   the network of fold 0

`read_export` returns it only if every file is intact and every network is still that of its fold: a
fold that was trained further needs a new export.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from steelseg.config.export_formats import EXPORT_FORMATS
from steelseg.errors import CheckpointError
from steelseg.files.json_file import read_json
from steelseg.files.sha256 import sha256_file
from steelseg.models.checkpoint import read_header
from steelseg.run.run_folder import RunFolder

EXPORT_JSON = "export.json"

Precision = Literal["fp32", "int8"]
Check = Literal["difference", "dice", "speed"]

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_FileName = Annotated[str, Field(pattern=r"^fold_[0-9]+\.[a-z0-9]+$")]


def _is_a_format(name: str) -> str:
    """Raise ValueError unless the name is an export format."""
    if name not in EXPORT_FORMATS:
        raise ValueError(f"{name!r} is not an export format; known are {', '.join(EXPORT_FORMATS)}")
    return name


class _Record(BaseModel):
    """Read-only once built, unknown names refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Figures(_Record):
    """Figures of one network on the held-out strips."""

    difference: float
    """Largest difference of its probabilities from the original's."""

    pairs_that_differ: int
    """Pairs of strip and class whose mask differs from the original's."""

    pairs: int
    """All pairs of strip and class."""

    dice: float
    """Mean over all pairs, as in the competition."""

    dice_per_class: tuple[float, ...]
    """Mean over the pairs of each class."""

    strips_per_second: float
    """Speed of the median batch, without decoding and post-processing."""


class ExportedFold(_Record):
    """The network of one fold."""

    fold: int = Field(ge=0)

    checkpoint_sha256: _Digest
    """SHA-256 of the checkpoint that it was made from."""

    files: dict[_FileName, _Digest]
    """SHA-256 of each of its files."""

    multiple: int = Field(ge=1)
    """The number that its input sizes must be multiples of."""

    height: int | None
    """Height of the images that it accepts, in pixels; null accepts any."""

    width: int | None
    """Width of the images that it accepts, in pixels; null accepts any."""

    calibration: tuple[str, ...]
    """image_ids that int8 was calibrated on."""

    strips: int
    """Number of held-out strips that it was compared on."""

    figures: dict[str, Figures]
    """Figures of the original, of fp32 in this format, and of int8."""

    waived: tuple[Check, ...]
    """Checks that it failed and that were allowed to fail."""

    packages: dict[str, str]
    """Versions of the packages that made it."""


class ExportRecord(_Record):
    """The content of export.json."""

    format: Annotated[str, AfterValidator(_is_a_format)]
    precision: Precision
    class_names: tuple[str, ...]
    channels: int
    folds: tuple[ExportedFold, ...] = Field(min_length=1)


class Export(_Record):
    """An export whose files are intact."""

    folder: Path
    record: ExportRecord

    def path(self, fold: ExportedFold) -> Path:
        """Return the file for `load_exported`."""
        return self.folder / network_names(fold.fold, self.record.format)[0]


def network_names(fold: int, format: str) -> tuple[str, ...]:
    """Return the names of the files of a fold; the first is the file to load."""
    return tuple(f"fold_{fold}{end}" for end in EXPORT_FORMATS[format].suffixes)


def export_folder(run: RunFolder, format: str, precision: str) -> Path:
    """Return the folder of an export of a run."""
    return run.path / "export" / f"{format}-{precision}"


def read_export(folder: Path) -> Export:
    """Read an export of a run, and verify its files and that they are of the run's checkpoints.

    Args:
        folder: RUN/export/FORMAT-PRECISION.

    Raises:
        CheckpointError: if it is missing or damaged, or a fold has another best model now.
    """
    export = Export(folder=folder, record=read_record(folder))
    for fold in export.record.folds:
        verify_fold(export, fold)
    return export


def read_record(folder: Path) -> ExportRecord:
    """Read export.json, or raise CheckpointError."""
    path = folder / EXPORT_JSON
    if not path.exists():
        raise CheckpointError(f"There is no {path}. Make it: {_command(folder)}.")
    remedy = f"Make it again: {_command(folder)}."
    return read_json(path, ExportRecord.model_validate, remedy=remedy, error=CheckpointError)


def verify_fold(export: Export, fold: ExportedFold) -> None:
    """Raise CheckpointError unless a fold's files are intact and of the run's checkpoint."""
    folder, command = export.folder, _command(export.folder)
    expected = network_names(fold.fold, export.record.format)
    if fold.files.keys() != set(expected):
        raise CheckpointError(
            f"{folder / EXPORT_JSON} is damaged: fold {fold.fold} has other files than "
            f"{', '.join(sorted(expected))}. Make it again: {command}."
        )
    for name, digest in fold.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing. Make it again: {command}.")
        if sha256_file(path) != digest:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 is not that of {EXPORT_JSON}. "
                f"Make it again: {command}."
            )
    checkpoint = RunFolder(folder.parent.parent).best_model(fold.fold)
    if read_header(checkpoint)[1] != fold.checkpoint_sha256:
        raise CheckpointError(
            f"{folder} was made from another {checkpoint}. Export again: {command}."
        )


def record_text(record: ExportRecord) -> str:
    """Return the content of export.json."""
    return json.dumps(record.model_dump(mode="json"), indent=1) + "\n"


def _command(folder: Path) -> str:
    """Return the command that makes an export."""
    format, _, precision = folder.name.partition("-")
    flags = f"--format {format}" + (" --int8" if precision == "int8" else "")
    return f"steelseg export {folder.parent.parent} {flags}"
