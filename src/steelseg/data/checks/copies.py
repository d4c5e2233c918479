"""Find images of one folder that are copies of images in another: same bytes or near-duplicates.

Training on a copy of a held-out strip makes the score of that strip too good. Bytes identify copies
that `duplicates` cannot, such as black strips; `duplicates` finds those that were recompressed,
flipped or shifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steelseg.data.checks.duplicates import Thumbnail, find_matches, group_matches, make_thumbnail
from steelseg.data.formats.images import hash_image, map_images, read_image
from steelseg.progress import Progress, no_progress


@dataclass(frozen=True)
class Candidate:
    """An image that may be a copy."""

    sha256: str
    """SHA-256 of the file."""

    size: tuple[int, int]
    """Height and width, in pixels."""

    copy_of: str = ""
    """The image that it is a copy of, or ""."""

    is_same_file: bool = False
    """Whether both files have the same bytes."""


def find_copies(
    folder: Path,
    image_ids: Sequence[str],
    *,
    known_folder: Path,
    known_ids: Sequence[str],
    channels: int,
    progress: Progress = no_progress,
) -> dict[str, Candidate]:
    """Decode images and find those that are copies of known ones.

    Args:
        folder: Folder of the images.
        image_ids: The images.
        known_folder: Folder of the known images; names may occur in both folders.
        known_ids: The known images.
        channels: 1 for grayscale, 3 for RGB.
        progress: Shows how many images are decoded.

    Returns:
        The result for each image, by image_id, in the given order.

    Raises:
        DataError: if an image cannot be read.
    """
    # Known images sort first, so the first member of a group is known if any member is.
    paths = {f"0/{i}": known_folder / i for i in known_ids} | {
        f"1/{i}": folder / i for i in image_ids
    }

    def load(path: Path) -> tuple[str, tuple[int, int], Thumbnail]:
        image_hwc = read_image(path, channels=channels)
        height, width, _ = image_hwc.shape
        return hash_image(path), (height, width), make_thumbnail(image_hwc)

    results = map_images(load, list(paths.values()), title="find copies", progress=progress)
    loaded = dict(zip(paths, results, strict=True))
    hashes = {name: sha256 for name, (sha256, _, _) in loaded.items()}
    sizes = {name: size for name, (_, size, _) in loaded.items()}
    thumbnails = {name: thumbnail for name, (_, _, thumbnail) in loaded.items()}
    known_by_hash = {hashes[name]: name for name in paths if name.startswith("0/")}
    groups = group_matches(
        find_matches(thumbnails, sizes, lambda name: read_image(paths[name], channels=channels))
    )
    candidates = {}
    for image_id in image_ids:
        name = f"1/{image_id}"
        same, similar = known_by_hash.get(hashes[name], ""), groups.get(name, "")
        known = same or (similar if similar.startswith("0/") else "")
        candidates[image_id] = Candidate(
            hashes[name], sizes[name], known.removeprefix("0/"), bool(same)
        )
    return candidates
