"""The hash of every file of a data set, so that one flipped bit is found.

Many damaged JPEGs are sound JPEGs of another picture: only what the file was before can tell.
A manifest is a text as `sha256sum` writes it, so `cd data.root && sha256sum --check FILE` reads
it too: one line a file, 64 hex digits, two spaces, the path below data.root. It covers
train.csv, sample_submission.csv and the images; what else lies in the folder is not data.
Links, folders, pipes and names that no CSV can hold are left out:
`steelseg.data.checks.check` lists them.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from steelseg.data.fault import Fault
from steelseg.data.folder import DataSet
from steelseg.data.formats.images import is_image_name
from steelseg.errors import DataError
from steelseg.files.atomic import write_text
from steelseg.progress import Progress

_LINE = re.compile(r"(\\?)([0-9a-f]{64})  (.+)")


def hash_file(path: Path) -> str:
    """SHA-256 of a file, as hex.

    Raises:
        DataError: if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def write_manifest(
    path: Path, root: Path, *, progress: Progress = lambda loop, _length, _title: loop
) -> None:
    """Hash every file of the data set in `root` and write the manifest `path`.

    Raises:
        DataError: if a file cannot be read.
    """
    names = sorted(_names(root))
    lines = [
        _join(names[number], hash_file(root / names[number]))
        for number in progress(range(len(names)), len(names), "hash")
    ]
    write_text(path, "".join(lines))


def compare_manifest(
    path: Path, root: Path, *, progress: Progress = lambda loop, _length, _title: loop
) -> list[Fault]:
    """Hold the data set in `root` against a manifest.

    Returns:
        A Fault for every file that has changed, is missing, or was added.

    Raises:
        DataError: if the manifest or a file cannot be read.
    """
    known = read_manifest(path)
    there = set(_names(root))
    faults = [
        Fault(str(root / name), 0, f"the file is missing: it is in {path}.")
        for name in known.keys() - there
    ]
    names = sorted(there)
    for number in progress(range(len(names)), len(names), "hash"):
        name = names[number]
        if name not in known:
            faults.append(Fault(str(root / name), 0, f"the file was added: it is not in {path}."))
        elif hash_file(root / name) != known[name]:
            reason = f"the file has changed: its SHA-256 is not the one in {path}."
            faults.append(Fault(str(root / name), 0, reason))
    return faults


def read_manifest(path: Path) -> dict[str, str]:
    """Read the hash of each file, by its path below data.root.

    Raises:
        DataError: if the manifest cannot be read, a line is not an entry, or a name is duplicated.
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
    """Name the files of a data set that are there, as paths below `root`."""
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
    """One line; `sha256sum` marks a name with a backslash by one in front of the line."""
    escaped = name.replace("\\", "\\\\")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"
