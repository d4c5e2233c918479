import numpy as np
import pytest

from steelseg.errors import ConfigError
from steelseg.watch import pieces
from steelseg.watch.arrivals import Arrival, FileVersion
from steelseg.watch.pieces import Joiner

PATTERN = r"(?P<strip>.+)_(?P<piece>\d+)"


def arrival(name, shade=1, *, width=4, height=2):
    image = np.full((height, width, 1), shade, np.uint8)
    return Arrival(FileVersion(name, 100, shade), f"sha of {name} {shade}", 0.0, image)


def take(joiner, *arrivals, now=0.0):
    return [strip for one in arrivals for strip in joiner.add(one, now)]


def test_without_a_pattern_every_file_is_a_strip():
    """Under its own name, which keeps its suffix."""
    (strip,) = take(Joiner(None, count=None, patience=9), arrival("coil7_1.jpg"))

    assert strip.image_id == "coil7_1.jpg"
    assert strip.sha256 == "sha of coil7_1.jpg 1"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_counted_strip_is_whole_with_its_last_piece(first, order):
    """In whatever order the pieces come, they lie by their numbers."""
    joiner = Joiner(PATTERN, count=3, patience=9)
    pieces = [arrival(f"coil7_{first + k:04d}.png", 10 + k, width=3 + k) for k in order]

    assert take(joiner, *pieces[:2]) == []
    assert joiner.waiting == 1
    (strip,) = take(joiner, pieces[2])

    assert strip.image_id == "coil7"
    assert strip.image_hwc[0, :, 0].tolist() == [10] * 3 + [11] * 4 + [12] * 5
    assert [version.name[6:10] for version, _ in strip.files] == [
        f"{first + k:04d}" for k in range(3)
    ]
    assert joiner.waiting == 0


def test_the_names_may_say_how_many_pieces_there_are():
    """Strips of different lengths, pieces mixed; a file that fits no pattern is a strip."""
    joiner = Joiner(r"(?P<strip>.+)_(?P<piece>\d+)of(?P<of>\d+)", count=None, patience=9)

    strips = take(
        joiner,
        arrival("a_1of2.jpg"),
        arrival("b_1of1.jpg"),
        arrival("whole.jpg"),
        arrival("a_2of2.jpg"),
    )

    assert [strip.image_id for strip in strips] == ["b", "whole.jpg", "a"]


def test_without_a_count_a_strip_ends_when_no_more_pieces_come():
    """Every piece starts the wait anew."""
    joiner = Joiner(PATTERN, count=None, patience=9)
    take(joiner, arrival("a_1.jpg", 1), now=0)
    take(joiner, arrival("a_2.jpg", 2), now=8)

    assert list(joiner.end(16.9)) == []
    (strip,) = joiner.end(17)
    assert strip.image_hwc.shape == (2, 8, 1)
    assert list(joiner.end(99)) == []


@pytest.mark.parametrize(("count", "missing"), [(None, "piece 2"), (5, "pieces 2, 4, 5")])
def test_a_strip_with_a_gap_is_refused_once_and_joined_when_the_piece_comes(count, missing):
    """A gap would move every defect behind it."""
    joiner = Joiner(PATTERN, count=count, patience=9)
    take(joiner, arrival("a_1.jpg"), arrival("a_3.jpg"))

    (refused,) = joiner.end(9)
    assert refused.image_hwc is None
    assert refused.reason == f"{missing} did not arrive."
    assert list(joiner.end(99)) == []

    late = take(joiner, *(arrival(f"a_{k}.jpg") for k in (2, 4, 5)), now=100)
    late += joiner.end(109)
    assert [strip.image_hwc.shape for strip in late] == [(2, 20, 1)]


def test_pieces_that_fit_no_strip_are_refused():
    """Heights that differ, numbers beyond the count, numbers that no strip has."""
    joiner = Joiner(PATTERN, count=2, patience=9)

    strips = take(
        joiner,
        arrival("a_1.jpg", height=2),
        arrival("a_2.jpg", height=3),
        arrival("b_3.jpg"),
        arrival(f"c_{10**30}.jpg"),
    )

    assert [strip.image_id for strip in strips] == ["a", "b_3.jpg", f"c_{10**30}.jpg"]
    assert "heights: 2 and 3 pixels" in strips[0].reason
    assert "piece '3' of at most 2" in strips[1].reason
    assert all(strip.image_hwc is None for strip in strips)


def test_a_strip_of_too_many_pixels_is_refused(monkeypatch):
    """As a file of as many is."""
    monkeypatch.setattr(pieces, "MAX_PIXELS", 15)

    (strip,) = take(Joiner(PATTERN, count=2, patience=9), arrival("a_1.jpg"), arrival("a_2.jpg"))

    assert "more than 15 pixels" in strip.reason


def test_strips_that_never_become_whole_do_not_pile_up():
    """Of a camera that loses a piece of each, the last few are kept for late pieces."""
    joiner = Joiner(PATTERN, count=2, patience=0)
    for number in range(30):
        take(joiner, arrival(f"s{number}_1.jpg"))
        list(joiner.end(1.0))

    assert take(joiner, arrival("s0_2.jpg")) == []
    assert len(take(joiner, arrival("s29_2.jpg"))) == 1


@pytest.mark.parametrize(
    ("pattern", "count", "message"),
    [
        ("(", None, "is not a regular expression"),
        (r"(?P<strip>.+)_\d+", None, "has no group 'piece'"),
        (None, 3, "--piece-count needs --pieces"),
    ],
)
def test_a_wrong_pattern_is_refused(pattern, count, message):
    with pytest.raises(ConfigError, match=message):
        Joiner(pattern, count=count, patience=9)
