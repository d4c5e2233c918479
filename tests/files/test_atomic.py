import fcntl
import os
import signal
import subprocess
import sys

import pytest

from steelseg.files.atomic import (
    remove_leftovers,
    replacing,
    replacing_folder,
    write_bytes,
    write_text,
)


class HalfWayError(Exception):
    """An interruption in the middle of a file."""


def write_half(path, mode="w", half="half"):
    with replacing(path, mode) as file:
        file.write(half)
        file.flush()
        raise HalfWayError


def test_the_file_is_there_when_the_block_ends(tmp_path):
    """Whole, and nothing beside it."""
    with replacing(tmp_path / "a.csv") as file:
        file.write("one\n")
        assert not (tmp_path / "a.csv").exists()

    assert (tmp_path / "a.csv").read_text() == "one\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_readers_see_the_old_content_until_the_block_ends(tmp_path):
    """A server may read while a run writes."""
    write_text(tmp_path / "a.csv", "old")

    with replacing(tmp_path / "a.csv") as file:
        file.write("new")
        file.flush()
        assert (tmp_path / "a.csv").read_text() == "old"

    assert (tmp_path / "a.csv").read_text() == "new"


@pytest.mark.parametrize(("mode", "half"), [("w", "half"), ("wb", b"half")])
def test_an_exception_leaves_the_old_content(tmp_path, mode, half):
    """Half a file under the right name is worse than none."""
    write_text(tmp_path / "a.csv", "old")

    with pytest.raises(HalfWayError):
        write_half(tmp_path / "a.csv", mode, half)

    assert (tmp_path / "a.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_an_exception_leaves_no_file_where_there_was_none(tmp_path):
    """Nor a temporary one."""
    with pytest.raises(HalfWayError):
        write_half(tmp_path / "a.csv")

    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_leaves_the_old_content(tmp_path):
    """`kill -9` runs no clean-up, so the name must change hands in one step."""
    write_text(tmp_path / "a.csv", "old")
    code = (
        "import os, sys, pathlib\n"
        "from steelseg.files.atomic import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write('half')\n"
        "    file.flush()\n"
        "    os._exit(9)\n"
    )

    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "a.csv"], check=False)

    assert ended.returncode == 9
    assert (tmp_path / "a.csv").read_text() == "old"


def test_folders_are_made_on_the_way(tmp_path):
    """outputs/NAME/fold_0 need not be there."""
    write_bytes(tmp_path / "a" / "b" / "c.bin", b"\x00\xff")

    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"\x00\xff"


def test_text_is_utf_8_and_line_ends_stay(tmp_path):
    """On every machine, whatever its language; csv writes its own line ends."""
    write_text(tmp_path / "a.txt", "\u00e9\r\n\n")

    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\r\n\n"


def test_text_that_cannot_be_written_leaves_nothing(tmp_path):
    """A lone surrogate is no UTF-8."""
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "\udcff")

    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_replaced(tmp_path):
    """The folder may hold someone's work."""
    (tmp_path / "a" / "b").mkdir(parents=True)

    with pytest.raises(OSError, match="a"):
        write_text(tmp_path / "a", "text")

    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "b").is_dir()


def test_the_file_is_as_open_to_others_as_any(tmp_path):
    """A temporary file of mode 600 would lock out the colleagues of a shared folder."""
    mask = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(mask)

    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """The device that is always full shows it: nothing is written, and the error names the file."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with replacing(path) as file:
            os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
            file.write("new" * 10_000)

    with pytest.raises(OSError, match="No space left") as caught:
        write()

    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def write_folder(path, text, error=None):
    """Replace a folder by one with a file in a folder."""
    with replacing_folder(path) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a.txt").write_text(text)
        if error:
            raise error


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    """Whole: what was in the old one is gone, and nothing lies beside it."""
    write_folder(tmp_path / "parent" / "x", "old")
    (tmp_path / "parent" / "x" / "more").write_text("more")

    write_folder(tmp_path / "parent" / "x", "new")

    assert (tmp_path / "parent" / "x" / "inner" / "a.txt").read_text() == "new"
    assert [p.name for p in (tmp_path / "parent").iterdir()] == ["x"]
    assert [p.name for p in (tmp_path / "parent" / "x").iterdir()] == ["inner"]


def test_an_exception_leaves_the_old_folder(tmp_path):
    """And removes what was begun."""
    write_folder(tmp_path / "x", "old")

    with pytest.raises(HalfWayError):
        write_folder(tmp_path / "x", "new", error=HalfWayError())

    assert (tmp_path / "x" / "inner" / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


DIES_WHILE_WRITING = """
import os, pathlib, signal, sys
from steelseg.files.atomic import replacing
with replacing(pathlib.Path(sys.argv[1])) as file:
    file.write("half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def partials(folder):
    return [path.name for path in folder.iterdir() if path.name.endswith(".partial")]


def test_what_a_killed_process_left_goes_at_the_next_write(tmp_path):
    """By any process, for any file of the folder; what a living one writes stays."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", DIES_WHILE_WRITING, tmp_path / name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("dead.csv", "alive.csv")
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"writing\n"
    writers[0].communicate()
    before = partials(tmp_path)

    write_text(tmp_path / "mine.csv", "text")

    after = partials(tmp_path)
    writers[1].communicate()
    assert [writer.returncode for writer in writers] == [-signal.SIGKILL] * 2
    assert len(before) == 2
    assert after == [f".alive.csv.{writers[1].pid}.partial"]


@pytest.mark.parametrize(
    "name", [".mine.partial", "a.1.partial", ".a.csv.partial.1", ".a.x.partial"]
)
def test_files_of_others_stay(tmp_path, name):
    """Only the names that are made here go; 4194304 is no process, as Linux counts."""
    ours = tmp_path / ".a.csv.4194305.partial"
    for path in (ours, tmp_path / name):
        path.write_text("text")

    write_text(tmp_path / "a.csv", "text")

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.csv", name])


def test_a_half_file_that_somebody_holds_stays(tmp_path):
    """A process of another machine has no number here, but its lock is seen."""
    path = tmp_path / ".a.csv.4194305.partial"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_text(tmp_path / "a.csv", "text")
        assert path.exists()


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path):
    """A run folder of others could overwrite any file with it."""
    (tmp_path / "precious").write_text("old")
    (tmp_path / f".a.csv.{os.getpid()}.partial").symlink_to(tmp_path / "precious")

    write_text(tmp_path / "a.csv", "new")

    assert (tmp_path / "precious").read_text() == "old"
    assert not (tmp_path / "a.csv").is_symlink()


def test_a_folder_that_was_moved_aside_returns(tmp_path):
    """Killed before the new one was in its place, a bundle must not be gone."""
    old = tmp_path / ".bundle.4194305.old"
    half = tmp_path / ".bundle.4194305.partial"
    for folder, text in ((old, "old"), (half, "half")):
        folder.mkdir()
        (folder / "a.txt").write_text(text)

    write_text(tmp_path / "b.txt", "text")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.txt", "bundle"]
    assert (tmp_path / "bundle" / "a.txt").read_text() == "old"


def test_an_old_folder_goes_when_the_new_one_is_there(tmp_path):
    """Killed before it was removed."""
    for name in (".bundle.4194305.old", "bundle"):
        (tmp_path / name).mkdir()

    write_text(tmp_path / "b.txt", "text")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.txt", "bundle"]


def test_a_folder_that_somebody_writes_stays(tmp_path):
    """Its lock is held while it is filled."""
    with replacing_folder(tmp_path / "bundle") as folder:
        (folder / "a.txt").write_text("text")
        ours = folder.with_name(".bundle.4194305.partial")
        folder.rename(ours)
        remove_leftovers.cache_clear()
        write_text(tmp_path / "b.txt", "text")
        assert (ours / "a.txt").exists()
        ours.rename(folder)

    assert (tmp_path / "bundle" / "a.txt").read_text() == "text"


REPLACE_OFTEN = """
import sys
from pathlib import Path

from steelseg.files.atomic import replacing_folder

for _ in range(100):
    with replacing_folder(Path(sys.argv[1])) as folder:
        for name in ("a", "b"):
            (folder / name).write_text(sys.argv[2])
"""


def test_two_processes_may_replace_the_same_folder(tmp_path):
    """Neither fails when the other comes between, and what is left is whole and of one of them."""
    path = tmp_path / "store"
    writers = [
        subprocess.Popen([sys.executable, "-c", REPLACE_OFTEN, str(path), text]) for text in "12"
    ]

    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert sorted(entry.name for entry in path.iterdir()) == ["a", "b"]
    assert (path / "a").read_text() == (path / "b").read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]
