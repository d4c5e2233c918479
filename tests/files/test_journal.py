import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest

from steelseg.errors import DataError
from steelseg.files.journal import Entry, open_journal

IDENTITY = {"networks": ["5f3a"], "settings": {"sizes": (1, 2)}}


def entry(image_id, text="1 1"):
    return Entry(image_id, "00ff", {"csv": [text, ""]}, [])


@contextmanager
def killed(path, identity=IDENTITY):
    """Open a journal that stays as it is."""
    with suppress(KeyboardInterrupt), open_journal(path, identity) as journal:
        yield journal
        raise KeyboardInterrupt


def write_killed(path, *entries, identity=IDENTITY):
    """Leave a journal of some entries."""
    with killed(path, identity) as journal:
        for one in entries:
            journal.add(one)


def read(path, *image_ids):
    """Give the entries of some images, None for those without; the journal stays."""
    with killed(path) as journal:
        return [journal[i] if journal.has(i) else None for i in image_ids]


def test_what_was_added_is_there_again(tmp_path):
    """In a folder that is made on the way."""
    path = tmp_path / "new" / "a.journal"
    write_killed(path, entry("a"), entry("b", "7 7"))

    assert read(path, "a", "b", "c") == [entry("a"), entry("b", "7 7"), None]


def test_a_journal_that_was_used_up_is_gone(tmp_path):
    """The next prediction begins anew."""
    with open_journal(tmp_path / "a.journal", IDENTITY) as journal:
        journal.add(entry("a"))

    assert list(tmp_path.iterdir()) == []


def test_the_last_entry_of_an_image_holds(tmp_path):
    """It was predicted again, because it had changed."""
    write_killed(tmp_path / "a.journal", entry("a", "1 1"), entry("b"), entry("a", "9 9"))

    assert read(tmp_path / "a.journal", "a", "b") == [entry("a", "9 9"), entry("b")]


def test_a_journal_cut_anywhere_gives_whole_entries_and_goes_on(tmp_path):
    """Never half a row, whatever a kill or a power cut left."""
    path = tmp_path / "a.journal"
    write_killed(path, entry("a"), entry("b"))
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])

        found = read(path, "a", "b")
        write_killed(path, entry("c"))

        lines = whole[:end].count(b"\n")
        assert found == [entry("a") if lines > 1 else None, entry("b") if lines > 2 else None]
        assert read(path, "a", "b", "c") == [*found, entry("c")]


def test_no_changed_byte_passes_for_an_entry(tmp_path):
    """A disk that lost a block gives zeros."""
    path = tmp_path / "a.journal"
    write_killed(path, entry("a"), entry("b"))
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])

        lines = whole[:place].count(b"\n")
        expected = [entry("a") if lines > 1 else None, entry("b") if lines > 2 else None]
        assert read(path, "a", "b") == expected


def test_another_identity_begins_anew_and_says_so(tmp_path, capsys):
    """Rows of two networks in one file would look like those of one."""
    path = tmp_path / "a.journal"
    write_killed(path, entry("a"), identity={**IDENTITY, "networks": ["0000"]})

    assert read(path, "a") == [None]
    assert capsys.readouterr().err == (
        f"warning: {path} was written with other networks. Prediction starts over.\n"
    )


def test_one_process_writes_at_a_time(tmp_path):
    """Two would mix their lines; the second is told so."""
    path = tmp_path / "a.journal"
    code = (
        "import sys; from pathlib import Path; from steelseg.files.journal import *\n"
        f"with open_journal(Path({str(path)!r}), {{}}): print(flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()

        with (
            pytest.raises(DataError, match="another process writes to this folder"),
            open_journal(path, {}),
        ):
            pass

        other.stdin.close()
    assert other.returncode == 0


def test_a_link_in_its_place_is_not_followed(tmp_path):
    """The output folder may be a stranger's run."""
    (tmp_path / "precious").write_text("old")
    (tmp_path / "a.journal").symlink_to(tmp_path / "precious")

    with pytest.raises(OSError, match=r"a.journal"), open_journal(tmp_path / "a.journal", {}):
        pass

    assert (tmp_path / "precious").read_text() == "old"
