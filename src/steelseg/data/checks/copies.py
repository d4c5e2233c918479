"""Images of one folder that are copies of images in another: the same bytes, or look alike.

What is learnt from a copy of a held-out strip flatters the score of that strip. Bytes tell of
copies that `duplicates` cannot, black strips and bare ones; `duplicates` tells of those that were
recompressed, flipped or moved. One that looks like a copy counts as one.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from steelseg.data.checks.duplicates import Thumbnail, find_matches, group_matches, make_thumbnail
from steelseg.data.formats.images import hash_image, read_image
from steelseg.progress import Progress


@dataclass(frozen=True)
class Candidate:
    """An image that may be a copy."""

    sha256: str
    """Of its file."""

    size: tuple[int, int]
    """Height and width, in pixels."""

    copy_of: str = ""
    """The image that it is a copy of; "" of none."""

    is_same_file: bool = False
    """Whether both have the same bytes."""


@dataclass(frozen=True)
class _Seen:
    """What is kept of an image once it was decoded."""

    sha256: str
    size: tuple[int, int]
    thumbnail: Thumbnail


def find_copies(
    folder: Path,
    image_ids: Sequence[str],
    *,
    known_folder: Path,
    known_ids: Sequence[str],
    channels: int,
    progress: Progress = lambda loop, _length, _title: loop,
) -> dict[str, Candidate]:
    """Decode images and find those that are copies of known ones.

    Args:
        folder: Where the images are.
        image_ids: The images.
        known_folder: Where the known ones are; both may have images of one name.
        known_ids: The known ones.
        channels: 1 for grey, 3 for RGB.
        progress: Shows how far the decoding is.

    Returns:
        What was found of each image, by image_id, in their order.

    Raises:
        DataError: if an image cannot be read.
    """
    # The known ones sort first, so the first member of a group is known if any is.
    paths = {f"0/{i}": known_folder / i for i in known_ids} | {
        f"1/{i}": folder / i for i in image_ids
    }
    seen = _look_at(paths, channels, progress)
    by_digest = {seen[name].sha256: name for name in paths if name.startswith("0/")}
    groups = group_matches(
        find_matches(
            {name: one.thumbnail for name, one in seen.items()},
            {name: one.size for name, one in seen.items()},
            lambda name: read_image(paths[name], channels=channels),
        )
    )
    found = {}
    for image_id in image_ids:
        one = seen[name := f"1/{image_id}"]
        same, alike = by_digest.get(one.sha256, ""), groups.get(name, "")
        known = same or (alike if alike.startswith("0/") else "")
        found[image_id] = Candidate(one.sha256, one.size, known.removeprefix("0/"), bool(same))
    return found


def _look_at(paths: dict[str, Path], channels: int, progress: Progress) -> dict[str, _Seen]:
    """Hash and decode every image, on every core."""

    def look(path: Path) -> _Seen:
        image_hwc = read_image(path, channels=channels)
        height, width, _ = image_hwc.shape
        return _Seen(hash_image(path), (height, width), make_thumbnail(image_hwc))

    names = list(paths)
    pool = ThreadPoolExecutor()
    try:
        results = pool.map(look, paths.values())
        return {
            names[number]: next(results)
            for number in progress(range(len(names)), len(names), "look for copies")
        }
    finally:
        # Ctrl-C need not wait for thousands of images.
        pool.shutdown(cancel_futures=True)
