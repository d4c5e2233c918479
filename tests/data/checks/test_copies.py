import cv2
import numpy as np
import pytest

from steelseg.data.checks.copies import find_copies
from steelseg.data.formats.images import read_image
from steelseg.errors import DataError


def write(path, image_hw, quality=95):
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), image_hw, [cv2.IMWRITE_JPEG_QUALITY, quality])


def strip(seed, height=64, width=256):
    return np.random.default_rng(seed).normal(90, 12, (height, width)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Give a folder of two labelled strips, and one of others."""
    known, more = tmp_path / "known", tmp_path / "more"
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        write(known / name, strip(seed))
    write(more / "a.jpg", strip(9))
    return known, more


def look(known, more):
    return find_copies(
        more,
        sorted(path.name for path in more.iterdir()),
        known_folder=known,
        known_ids=["a.jpg", "b.jpg"],
        channels=1,
    )


def test_copies_are_found_by_their_bytes_and_by_their_looks(folders):
    """Recompressed and flipped ones too; a strip of the same name is no copy for that."""
    known, more = folders
    (more / "same.jpg").write_bytes((known / "b.jpg").read_bytes())
    flipped = read_image(known / "a.jpg", channels=1)[:, ::-1, 0]
    write(more / "flipped.jpg", flipped, quality=80)

    found = look(known, more)

    assert {name: (one.copy_of, one.is_same_file) for name, one in found.items()} == {
        "a.jpg": ("", False),
        "flipped.jpg": ("a.jpg", False),
        "same.jpg": ("b.jpg", True),
    }
    assert found["a.jpg"].size == (64, 256)


def test_black_strips_are_told_apart_by_their_bytes(folders):
    """They have no grain to compare, so only the same file is a copy."""
    known, more = folders
    black = np.zeros((64, 256), np.uint8)
    write(known / "b.jpg", black)
    write(more / "black.jpg", black)
    write(more / "other.jpg", black, quality=50)

    found = look(known, more)

    assert found["black.jpg"].is_same_file
    assert not found["other.jpg"].copy_of


def test_copies_of_each_other_are_no_copies_of_labelled_strips(folders):
    """Only what is labelled counts."""
    known, more = folders
    (more / "b.jpg").write_bytes((more / "a.jpg").read_bytes())

    assert not any(one.copy_of for one in look(known, more).values())


def test_a_damaged_image_is_named(folders):
    """Before any network is asked."""
    known, more = folders
    (more / "cut.jpg").write_bytes((more / "a.jpg").read_bytes()[:200])

    with pytest.raises(DataError, match=r"cut\.jpg"):
        look(known, more)
