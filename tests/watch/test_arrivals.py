import hashlib
import os
import socket
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.data.formats.images import read_image
from steelseg.errors import DataError
from steelseg.watch.arrivals import Arrivals
from torture import hostile_kinds

SETTLE, PATIENCE = 1.0, 10.0


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def arrivals(tmp_path, clock):
    return Arrivals(tmp_path, channels=1, settle=SETTLE, patience=PATIENCE, clock=clock)


def encoded(shade=90, suffix=".jpg"):
    pixels = np.random.default_rng(shade).normal(shade, 8, (16, 24)).clip(0, 255)
    return cv2.imencode(suffix, pixels.astype(np.uint8))[1].tobytes()


def names(arrivals):
    return [arrival.version.name for arrival in arrivals.poll()]


def later(arrivals, clock, seconds):
    """Poll, and again some seconds later."""
    first = list(arrivals.poll())
    clock.now += seconds
    return first + list(arrivals.poll())


def test_a_file_comes_once_it_stands_still(tmp_path, arrivals, clock):
    """Not when it is first seen: it could be half of itself."""
    (tmp_path / "a.jpg").write_bytes(encoded())

    assert names(arrivals) == []
    clock.now = 0.9
    assert names(arrivals) == []
    clock.now = 1.0
    (arrival,) = arrivals.poll()
    assert arrival.image_hwc.shape == (16, 24, 1)
    assert arrivals.waiting == 0
    clock.now = 50.0
    assert names(arrivals) == []


def test_a_file_written_for_long_comes_once_and_whole(tmp_path, arrivals, clock):
    """The writer may pause for longer than `settle`: half a JPEG does not decode."""
    content = encoded()
    for part in range(5):
        with (tmp_path / "a.jpg").open("ab") as file:
            file.write(content[part * len(content) // 5 : (part + 1) * len(content) // 5])
        if part < 4:
            assert later(arrivals, clock, 2.0) == []

    (arrival,) = later(arrivals, clock, 2.0)
    assert arrival.version.size == len(content)
    assert arrival.image_hwc is not None


def test_a_file_that_cannot_be_decoded_is_refused_after_patience(tmp_path, arrivals, clock):
    """With the reason that prediction would give; and looked at again when it has grown."""
    content = encoded()
    (tmp_path / "a.jpg").write_bytes(content[:-2])

    assert later(arrivals, clock, 1.0) == []
    clock.now += PATIENCE - 0.1
    assert names(arrivals) == []
    clock.now += 0.1
    (refused,) = arrivals.poll()
    assert refused.image_hwc is None
    assert "truncated" in refused.reason
    clock.now += 5 * PATIENCE
    assert names(arrivals) == []

    (tmp_path / "a.jpg").write_bytes(content)
    (arrival,) = later(arrivals, clock, 1.0)
    assert arrival.image_hwc is not None


def test_a_replaced_file_comes_again(tmp_path, arrivals, clock):
    """A camera may use a name for the next strip."""
    (tmp_path / "a.jpg").write_bytes(encoded(90))
    (first,) = later(arrivals, clock, 1.0)

    (tmp_path / "new").write_bytes(encoded(120))
    (tmp_path / "new").replace(tmp_path / "a.jpg")
    (second,) = later(arrivals, clock, 1.0)

    assert first.sha256 != second.sha256
    assert second.seen > first.seen


def test_temporary_and_hidden_names_are_left_alone(tmp_path, arrivals, clock):
    """Until the file is renamed, or moved in."""
    for name in ("a.jpg.tmp", ".b.jpg", "c.part", "notes.txt", "noend"):
        (tmp_path / name).write_bytes(encoded())
    assert later(arrivals, clock, 2.0) == []

    (tmp_path / "a.jpg.tmp").rename(tmp_path / "a.jpg")
    (tmp_path / "c.part").rename(tmp_path / "c.PNG")

    assert [a.version.name for a in later(arrivals, clock, 1.0)] == ["a.jpg", "c.PNG"]


def test_what_is_no_file_is_left_alone_and_said_once(
    tmp_path, arrivals, clock, capsys, monkeypatch
):
    """A folder, a link, a pipe and a socket with the names of images, and a name of no text."""
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "in.jpg").write_bytes(encoded())
    (tmp_path / "link.jpg").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "new\nline.jpg").write_bytes(encoded())
    with socket.socket(socket.AF_UNIX) as unix:
        # Of a path as long as the test's no socket can be made.
        monkeypatch.chdir(tmp_path)
        unix.bind("socket.jpg")

        assert later(arrivals, clock, 50.0) == []

    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5
    assert sum("not a regular file" in line for line in said) == 4
    assert sum("rename it" in line for line in said) == 1


def test_a_file_that_goes_before_it_is_read_is_named(tmp_path, arrivals, clock, capsys):
    """Nobody else would say that a strip was not looked at."""
    (tmp_path / "a.jpg").write_bytes(encoded())
    assert names(arrivals) == []
    (tmp_path / "a.jpg").unlink()

    assert later(arrivals, clock, 1.0) == []
    assert "'a.jpg' was renamed or deleted before" in capsys.readouterr().err
    assert arrivals.waiting == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights_comes_once_it_has_them(tmp_path, arrivals, clock, capsys):
    """It is never refused: rights come back without the content being touched."""
    (tmp_path / "a.jpg").write_bytes(encoded())
    (tmp_path / "a.jpg").chmod(0)
    assert later(arrivals, clock, 1.0) == []
    assert later(arrivals, clock, PATIENCE) == []
    assert "cannot be read" in capsys.readouterr().err

    (tmp_path / "a.jpg").chmod(0o600)
    assert len(later(arrivals, clock, PATIENCE)) == 1


def test_a_folder_that_goes_and_returns_loses_nothing(tmp_path, clock, capsys):
    """As a network share does."""
    folder = tmp_path / "share"
    folder.mkdir()
    arrivals = Arrivals(folder, channels=1, settle=SETTLE, patience=PATIENCE, clock=clock)
    (folder / "a.jpg").write_bytes(encoded())
    assert len(later(arrivals, clock, 1.0)) == 1

    folder.rename(tmp_path / "away")
    assert later(arrivals, clock, 1.0) == []
    (tmp_path / "away").rename(folder)
    (folder / "b.jpg").write_bytes(encoded(99))

    assert [a.version.name for a in later(arrivals, clock, 1.0)] == ["b.jpg"]
    assert capsys.readouterr().err.count("cannot be listed") == 1


def test_files_come_in_the_order_in_which_they_came(tmp_path, arrivals, clock):
    """Whatever their names; of those that lay there before, by their times."""
    for age, name in ((3, "b.png"), (1, "c.png"), (2, "a.png")):
        (tmp_path / name).write_bytes(encoded(suffix=".png"))
        os.utime(tmp_path / name, (100 - age, 100 - age))
    assert names(arrivals) == []
    (tmp_path / "0.png").write_bytes(encoded(suffix=".png"))
    os.utime(tmp_path / "0.png", (1, 1))
    clock.now = 0.1

    assert names(arrivals) == []
    clock.now = 1.1
    assert names(arrivals) == ["b.png", "a.png", "c.png", "0.png"]


def test_what_is_not_asked_for_comes_with_the_next_poll(tmp_path, arrivals, clock):
    """And what was given does not come twice."""
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(encoded())
    assert names(arrivals) == []
    clock.now = 1.0

    first = next(arrivals.poll())

    assert first.version.name == "a.jpg"
    assert names(arrivals) == ["b.jpg", "c.jpg"]


def test_what_was_done_before_is_not_read(tmp_path, clock):
    """A restart does not read the files of a month again."""
    (tmp_path / "a.jpg").write_bytes(encoded())
    (tmp_path / "b.jpg").write_bytes(encoded())
    arrivals = Arrivals(
        tmp_path,
        channels=3,
        settle=0,
        patience=0,
        is_known=lambda version: version.name == "a.jpg",
        clock=clock,
    )

    assert names(arrivals) == ["b.jpg"]


def read_or_refuse(path):
    """Give the pixels of a file, or why it is refused."""
    try:
        return read_image(path, channels=1)
    except DataError as error:
        return str(error)


def test_every_hostile_image_comes_to_what_prediction_makes_of_it(tmp_path, arrivals, clock):
    """The same pixels, or refused for the same reason, once; what is no file never comes."""
    chance = np.random.default_rng(0)
    strip = hostile_kinds.make_strip(chance)
    for number, kind in enumerate(hostile_kinds.FILES):
        (tmp_path / f"{number:02d}.jpg").write_bytes(kind(chance, strip)[0])
    for kind in hostile_kinds.ENTRIES:
        kind(tmp_path / f"{kind.__name__}.jpg")
    for name in (*hostile_kinds.GOOD_NAMES, *hostile_kinds.BAD_NAMES):
        (tmp_path / name).write_bytes(encoded())

    came = later(arrivals, clock, SETTLE)
    clock.now += PATIENCE
    came += arrivals.poll()

    for arrival in came:
        expected = read_or_refuse(tmp_path / arrival.version.name)
        if isinstance(expected, str):
            assert arrival.image_hwc is None
            assert arrival.reason in expected
        else:
            np.testing.assert_array_equal(arrival.image_hwc, expected)
    files = {f"{number:02d}.jpg" for number in range(len(hostile_kinds.FILES))}
    assert sorted(a.version.name for a in came) == sorted(files | set(hostile_kinds.GOOD_NAMES))
    clock.now += 9 * PATIENCE
    assert names(arrivals) == []


NAME = st.sampled_from(["a.jpg", "b.jpg"])
STEP = st.one_of(
    st.tuples(st.just("write"), NAME, st.sampled_from([60, 90, 120]), st.floats(0.1, 1.5)),
    st.tuples(st.just("touch"), NAME),
    st.tuples(st.just("delete"), NAME),
    st.tuples(st.just("wait"), st.floats(0, 12)),
)


@given(st.lists(STEP, max_size=25))
def test_whatever_a_camera_does_each_whole_version_comes_once(steps):
    """Held against what was written: nothing half comes, nothing twice, and the last all come."""
    clock, came = Clock(), []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        arrivals = Arrivals(folder, channels=1, settle=SETTLE, patience=PATIENCE, clock=clock)
        contents, version = {}, 0
        for kind, *rest in [*steps, ("wait", 1), *[("wait", PATIENCE)] * 2]:
            if kind == "wait":
                came += later(arrivals, clock, rest[0])
                continue
            path, version = folder / rest[0], version + 1
            if kind == "write":
                # Some are cut off; a share above 1 is the whole of it.
                content = encoded(rest[1])
                path.write_bytes(content[: int(rest[2] * len(content))])
            elif kind == "delete":
                path.unlink(missing_ok=True)
            if path.exists():
                os.utime(path, ns=(version, version))
                contents[path.name, version] = path.read_bytes()

        last = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    whole = {encoded(shade) for shade in (60, 90, 120)}
    keys = [(arrival.version.name, arrival.version.mtime_ns) for arrival in came]
    assert len(keys) == len(set(keys))
    for key, arrival in zip(keys, came, strict=True):
        assert arrival.sha256 == hashlib.sha256(contents[key]).hexdigest()
        assert (arrival.image_hwc is not None) == (contents[key] in whole)
    assert set(last.items()) <= set(keys)
    assert arrivals.waiting == 0
