import errno
import json
import os

import pytest

from steelseg.errors import ConfigError, DataError
from steelseg.watch.arrivals import FileVersion
from steelseg.watch.results import Results

FILE = {"name": "a.jpg", "size": 10, "mtime_ns": 5, "sha256": "cd"}
LINE = {"image_id": "a.jpg", "sha256": "ab", "files": [FILE], "defects": []}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "results.jsonl"


def test_what_has_a_line_is_known_now_and_after_a_restart(path):
    """By the strip's name and content, and by its file's size and time."""
    with Results(path) as results:
        assert not results.has_strip("a.jpg", "ab")
        results.add(LINE)
        assert results.has_strip("a.jpg", "ab")
    with Results(path) as results:
        assert results.has_strip("a.jpg", "ab")
        assert not results.has_strip("a.jpg", "other")
        assert results.has_file(FileVersion("a.jpg", 10, 5))
        assert not results.has_file(FileVersion("a.jpg", 10, 6))
        results.add(LINE | {"sha256": "x"})
    assert [json.loads(line)["sha256"] for line in path.read_text().splitlines()] == ["ab", "x"]


@pytest.mark.parametrize("kept", range(1, 30, 7))
def test_a_line_that_a_kill_cut_short_is_removed(path, kept):
    """Its strip is predicted again; a reader never sees two halves as one line."""
    with Results(path) as results:
        results.add(LINE)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept])

    with Results(path) as results:
        assert path.read_bytes() == whole
        assert results.size == len(whole)


def test_a_damaged_line_is_an_error_that_names_it(path):
    """What it stood for is not known, and nothing is thrown away in silence."""
    with Results(path) as results:
        results.add(LINE)
    content = path.read_bytes()
    path.write_bytes(content + b"{}\n" + content)

    with pytest.raises(DataError, match=r"results.jsonl:2: the line is damaged"):
        Results(path)

    path.write_bytes(content)
    Results(path).__exit__()


def test_a_refused_strip_is_known_by_its_reason_and_its_files_are_not(path):
    """A piece that comes late, or another model, can still make a strip of them."""
    with Results(path) as results:
        results.add(LINE | {"refused": "piece 2 did not arrive."})

        assert results.has_strip("a.jpg", "ab", "piece 2 did not arrive.")
        assert not results.has_strip("a.jpg", "ab")
        assert not results.has_file(FileVersion("a.jpg", 10, 5))


def test_two_processes_cannot_write_to_one_file(path):
    """Each would give a line to every strip."""
    with Results(path), pytest.raises(ConfigError, match="another steelseg watch"):
        Results(path)
    Results(path).__exit__()


def test_a_full_disk_leaves_whole_lines(path, monkeypatch):
    """A part that was written is taken back, so that the next line begins a line."""
    with Results(path) as results:
        results.add(LINE)
        whole = path.read_bytes()
        write = os.write

        def fail(handle, content):
            write(handle, content[:7])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", fail)
        with pytest.raises(OSError, match="No space left") as caught:
            results.add(LINE | {"sha256": "x"})
        monkeypatch.undo()

        assert caught.value.filename == str(path)
        assert path.read_bytes() == whole
        assert not results.has_strip("a.jpg", "x")
        results.add(LINE | {"sha256": "y"})
    assert len(path.read_text().splitlines()) == 2
