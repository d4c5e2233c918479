import os

import pytest

from steelseg.errors import DataError
from steelseg.files.lock import lock, open_locked


def test_one_process_at_a_time_opens_a_locked_file(tmp_path):
    """The lock ends with the file descriptor, however the process ends."""
    path = tmp_path / "journal"
    handle = open_locked(path, in_use=DataError("in use"))

    with pytest.raises(DataError, match="in use"):
        open_locked(path, in_use=DataError("in use"))
    os.close(handle)
    os.close(open_locked(path, in_use=DataError("in use")))


def test_a_file_system_without_locks_is_told_from_a_lock_of_another(tmp_path, monkeypatch):
    """Some network folders have no locks; one process can still write there."""

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    with (tmp_path / "a").open("w") as file, (tmp_path / "a").open() as other:
        assert lock(file.fileno()) is True
        assert lock(other.fileno()) is False
        monkeypatch.setattr("fcntl.flock", refuse)
        assert lock(other.fileno()) is None
    os.close(open_locked(tmp_path / "a", in_use=DataError("in use")))


def test_a_link_is_not_followed(tmp_path):
    """The folder may be one that others can write to."""
    (tmp_path / "link").symlink_to(tmp_path / "victim")

    with pytest.raises(OSError, match="link"):
        open_locked(tmp_path / "link", in_use=DataError("in use"))
    assert not (tmp_path / "victim").exists()
