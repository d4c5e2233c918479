"""Hash every file of a data set, to detect even a single flipped bit.

Many damaged JPEGs are valid JPEGs of a different picture, which only a hash can detect. A manifest
has the format of `sha256sum`, so `cd data.root && sha256sum --check FILE` reads it too: one line
per file with 64 hex digits, two spaces and the path relative to data.root. It covers train.csv,
sample_submission.csv and the images; other files are ignored. Links, folders, pipes and names that
cannot be written to a CSV file are left out: `steelseg.data.checks.check` reports them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from steelseg.data.fault import Fault
from steelseg.data.folder import DataSet
from steelseg.data.formats.images import is_image_name
from steelseg.errors import DataError
from steelseg.files.atomic import write_text
from steelseg.files.sha256 import sha256_file
from steelseg.progress import Progress, no_progress

_LINE = re.compile(r"(\\?)([0-9a-f]{64})  (.+)")


def write_manifest(path: Path, root: Path, *, progress: Progress = no_progress) -> None:
    """Hash every file of the data set in `root` and write the manifest to `path`.

    Raises:
        DataError: if a file cannot be read.
    """
    names = sorted(_names(root))
    lines = [_join(name, sha256_file(root / name)) for name in progress(names, len(names), "hash")]
    write_text(path, "".join(lines))


def compare_manifest(path: Path, root: Path, *, progress: Progress = no_progress) -> list[Fault]:
    """Compare the data set in `root` with a manifest.

    Returns:
        A Fault for every file that has changed, is missing, or was added.

    Raises:
        DataError: if the manifest or a file cannot be read.
    """
    known = read_manifest(path)
    existing = set(_names(root))
    faults = [
        Fault(str(root / name), 0, f"the file is missing: it is in {path}.")
        for name in known.keys() - existing
    ]
    names = sorted(existing)
    for name in progress(names, len(names), "hash"):
        if name not in known:
            faults.append(Fault(str(root / name), 0, f"the file was added: it is not in {path}."))
        elif sha256_file(root / name) != known[name]:
            reason = f"the file has changed: its SHA-256 differs from {path}."
            faults.append(Fault(str(root / name), 0, reason))
    return faults


def read_manifest(path: Path) -> dict[str, str]:
    """Read a manifest: the hash of each file, by its path relative to data.root.

    Raises:
        DataError: if the manifest cannot be read, a line is invalid, or a name is duplicated.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a manifest: it is not UTF-8 text.") from None
    hashes: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise DataError(f"{path}:{number}: {line[:60]!r} is not a SHA-256 and a file name.")
        name = parts[3].replace("\\\\", "\\") if parts[1] else parts[3]
        if name in hashes:
            raise DataError(f"{path}:{number}: {name} is duplicated.")
        hashes[name] = parts[2]
    return hashes


def _names(root: Path) -> Iterator[str]:
    """Yield the existing files of a data set, as paths relative to `root`."""
    data_set = DataSet(root)
    for table in (data_set.train_csv, data_set.sample_submission):
        if table.is_file():
            yield table.name
    for folder in (data_set.train_images, data_set.test_images):
        for path in folder.glob("*"):
            is_plain = path.name.isprintable() and path.is_file() and not path.is_symlink()
            if is_plain and is_image_name(path.name):
                yield f"{folder.name}/{path.name}"


def _join(name: str, digest: str) -> str:
    """Format a line; `sha256sum` starts it with a backslash if the name contains one."""
    escaped = name.replace("\\", "\\\\")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"
