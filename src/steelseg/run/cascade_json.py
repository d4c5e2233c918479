"""cascade.json: the cheap network that screens strips, and its cutoff."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steelseg.files.atomic import write_text
from steelseg.files.json_file import read_json


@dataclass(frozen=True)
class Cascade:
    """The content of cascade.json, without the report."""

    first: str
    """The run that screens, relative to the folder of cascade.json."""

    fold: int
    """Its fold that screens."""

    sha256: str
    """SHA-256 of the checkpoint of that fold."""

    cut: float
    """Strips with a lower defect score are skipped."""


def write_cascade(path: Path, cascade: Cascade, report: Mapping[str, Any]) -> None:
    """Write cascade.json, with a report of scores."""
    write_text(path, json.dumps({**asdict(cascade), **report}, indent=1) + "\n")


def read_cascade(path: Path) -> Cascade | None:
    """Read cascade.json.

    Returns:
        Its content; None without the file.

    Raises:
        DataError: if it is damaged.
    """
    if not path.exists():
        return None
    return read_json(path, _parse, remedy="Recreate it with: steelseg cascade RUN.")


def _parse(content: Mapping[str, Any]) -> Cascade:
    return Cascade(
        first=str(content["first"]),
        fold=int(content["fold"]),
        sha256=str(content["sha256"]),
        cut=float(content["cut"]),
    )
