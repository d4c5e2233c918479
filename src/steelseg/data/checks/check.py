"""Holding a data set against the rules, every fault at once.

`inspect` decodes every image and parses every row; what it finds wrong comes back as a list.
Strips that look alike are no fault: they come back as matches, and as remarks for a reader.
`load_labels`, for stages whose data were inspected before or are decoded next, does the same but
for decoding: images are walked from start to end. Nothing is written and nothing is repaired.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from steelseg.config.config import DataConfig
from steelseg.data.checks.duplicates import (
    Match,
    Thumbnail,
    describe_conflicts,
    find_matches,
    group_matches,
    make_thumbnail,
)
from steelseg.data.fault import Fault
from steelseg.data.folder import DataSet
from steelseg.data.formats.annotations import Labels, Row, parse_rows, read_rows
from steelseg.data.formats.images import list_images, measure_image, read_image
from steelseg.data.formats.sample_submission import inspect_sample
from steelseg.errors import DataError
from steelseg.progress import Progress
from steelseg.progress import progress as show

# Pairs with equal masks that remarks name; those that differ are all named.
_MOST_REMARKS = 20


@dataclass(frozen=True)
class Inspection:
    """What a data set holds and what is wrong with it."""

    labels: Labels
    """The labels of every readable training image."""

    num_test_images: int
    """Images in test_images/; 0 without the folder."""

    faults: tuple[Fault, ...]
    """Everything that is wrong, by file and row."""

    matches: tuple[Match, ...] = ()
    """Training images that look alike, where they were looked for."""

    @property
    def groups(self) -> dict[str, str]:
        """The first image of its group for every training image that looks like another."""
        return group_matches(self.matches)

    @property
    def remarks(self) -> list[str]:
        """What a reader may want to look at, a sentence each: classes and look-alikes."""
        return _unseen(self.labels) + _remarks(self.labels, self.matches)

    @property
    def summary(self) -> str:
        """What the data set holds, in a line."""
        labels = self.labels
        clean = sum(not labels.class_ids(image_id) for image_id in labels.sizes)
        masks = [sum(key[1] == k for key in labels.runs) for k in range(1, labels.num_classes + 1)]
        num_groups = len(set(self.groups.values()))
        groups = f"{num_groups} group{'s' if num_groups > 1 else ''}"
        alike = f"; {len(self.groups)} look alike, in {groups}" if num_groups else ""
        return (
            f"{len(labels.sizes)} training images, {clean} of them clean; "
            f"masks of class 1 to {labels.num_classes}: {', '.join(map(str, masks))}; "
            f"{self.num_test_images} test images{alike}"
        )


def inspect(
    root: Path,
    *,
    num_classes: int,
    img_height: int | None,
    img_width: int | None,
    channels: int,
    group_duplicates: bool = True,
    decode: bool = True,
    progress: Progress = lambda loop, _length, _title: loop,
) -> Inspection:
    """Decode every image, parse every row and collect what is wrong.

    Args:
        root: Folder with train.csv and train_images/; test_images/ and sample_submission.csv
            are held against each other where they are.
        num_classes: Highest ClassId.
        img_height: Height that every image must have, in pixels; None allows any.
        img_width: Width that every image must have, in pixels; None allows any.
        channels: 1 for grey, 3 for RGB.
        group_duplicates: Whether to look for training images that look alike.
        decode: False walks the files without decoding them; nothing is found to look alike.
        progress: Shows how far the decoding is.
    """
    data_set = DataSet(root)
    train_images, test_images = data_set.train_images, data_set.test_images
    faults: list[Fault] = []
    train_ids = _names(train_images, faults)
    test_ids = _names(test_images, faults) if test_images.exists() else []
    paths = [train_images / name for name in train_ids] + [test_images / n for n in test_ids]
    expected = img_height, img_width
    sizes, thumbnails = _measure_all(
        paths,
        expected,
        channels=channels,
        num_thumbnails=len(train_ids) if group_duplicates else 0,
        decode=decode,
        faults=faults,
        progress=progress,
    )
    train_sizes = {
        name: sizes[train_images / name] for name in train_ids if train_images / name in sizes
    }
    labels, bad_rows = inspect_rows(
        data_set.train_csv, train_images, train_ids, train_sizes, num_classes=num_classes
    )
    faults += bad_rows + _sample_faults(data_set.sample_submission, test_images, test_ids)
    matches = find_matches(
        {path.name: thumbnail for path, thumbnail in thumbnails.items()},
        train_sizes,
        lambda image_id: read_image(train_images / image_id, channels=channels),
    )
    return Inspection(labels, len(test_ids), tuple(sorted(faults)), tuple(matches))


def inspect_rows(
    train_csv: Path,
    folder: Path,
    image_ids: Sequence[str],
    sizes: Mapping[str, tuple[int, int]],
    *,
    num_classes: int,
) -> tuple[Labels, list[Fault]]:
    """Hold every row of train.csv against the rules and the images.

    Args:
        train_csv: The file.
        folder: Where the images are, for the faults.
        image_ids: Every image there.
        sizes: Height and width of those that are sound.
        num_classes: Highest ClassId.

    Returns:
        The labels of the good rows, and a Fault for every bad one.
    """
    rows, bad_rows = read_rows(train_csv, num_classes=num_classes)
    labels, bad_masks = parse_rows(train_csv, rows, sizes, num_classes=num_classes)
    return labels, bad_rows + bad_masks + _absent(train_csv, folder, rows, image_ids)


def inspect_data(data: DataConfig, *, decode: bool = True) -> Inspection:
    """Inspect the data set that the settings name, with progress on stderr."""
    return inspect(
        data.root,
        num_classes=data.num_classes,
        img_height=data.img_height,
        img_width=data.img_width,
        channels=data.channels,
        group_duplicates=data.group_duplicates,
        decode=decode,
        progress=show,
    )


def load_labels(data: DataConfig) -> Labels:
    """Read the labels of the data set that the settings name, or refuse it.

    Images are not decoded, and those that look alike are not looked for; `inspect_data` does both.

    Raises:
        DataError: with a line for every fault.
    """
    return refuse_faults(data.root, inspect_data(data, decode=False)).labels


def refuse_faults(root: Path, inspection: Inspection) -> Inspection:
    """Give back an inspection that found nothing, else raise DataError with all it found."""
    if faults := inspection.faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise DataError("\n".join([f"{count} in {root}:", *map(str, faults)]))
    return inspection


def _names(folder: Path, faults: list[Fault]) -> list[str]:
    """List a folder of images; a missing or empty one is a fault."""
    try:
        return list_images(folder)
    except DataError as error:
        faults.append(Fault(str(folder), 0, str(error).removeprefix(f"{folder} ")))
        return []


def _measure_all(
    paths: Sequence[Path],
    expected: tuple[int | None, int | None],
    *,
    channels: int,
    num_thumbnails: int,
    decode: bool,
    faults: list[Fault],
    progress: Progress,
) -> tuple[dict[Path, tuple[int, int]], dict[Path, Thumbnail]]:
    """Decode every image, or walk it, and append a Fault for each bad one.

    Returns:
        The sizes of the good images, and the thumbnails of those among the first
        `num_thumbnails`.
    """
    sizes: dict[Path, tuple[int, int]] = {}
    thumbnails: dict[Path, Thumbnail] = {}

    def measure(index: int) -> tuple[tuple[int, int], Thumbnail | None] | Fault:
        try:
            if not decode:
                return measure_image(paths[index]), None
            image_hwc = read_image(paths[index], channels=channels)
        except DataError as error:
            return Fault(str(paths[index]), 0, str(error).removeprefix(f"{paths[index]}: "))
        height, width, _ = image_hwc.shape
        wanted = index < num_thumbnails
        return (height, width), make_thumbnail(image_hwc) if wanted else None

    # Decoding leaves the interpreter lock, so threads use every core.
    pool = ThreadPoolExecutor()
    try:
        results = pool.map(measure, range(len(paths)))
        for index in progress(range(len(paths)), len(paths), "check"):
            path = paths[index]
            match next(results):
                case Fault() as fault:
                    faults.append(fault)
                case size, _ if _differs(size, expected):
                    faults.append(Fault(str(path), 0, _size_fault(size, expected)))
                case size, thumbnail:
                    sizes[path] = size
                    if thumbnail is not None:
                        thumbnails[path] = thumbnail
    finally:
        # Ctrl-C need not wait for thousands of images.
        pool.shutdown(cancel_futures=True)
    return sizes, thumbnails


def _differs(size: tuple[int, int], expected: tuple[int | None, int | None]) -> bool:
    """Whether a size is not the one in the settings."""
    return any(e is not None and e != s for s, e in zip(size, expected, strict=True))


def _size_fault(size: tuple[int, int], expected: tuple[int | None, int | None]) -> str:
    """Say that an image has another size than its masks."""
    wanted = "x".join("any" if side is None else str(side) for side in expected)
    return (
        f"the image is {size[0]}x{size[1]}, but masks are {wanted} "
        "(data.img_height x data.img_width; null for any)."
    )


def _absent(
    train_csv: Path, folder: Path, rows: Sequence[Row], image_ids: Sequence[str]
) -> list[Fault]:
    """Name the images that rows label but the folder does not hold."""
    if not image_ids:
        # The folder itself is at fault; a line for every row would hide that.
        return []
    there = set(image_ids)
    return [
        Fault(str(train_csv), row.line, f"{row.image_id} is not in {folder}.")
        for row in rows
        if row.image_id not in there
    ]


def _sample_faults(path: Path, folder: Path, image_ids: Sequence[str]) -> list[Fault]:
    """Hold sample_submission.csv, where there is one, against the test images."""
    if not path.exists():
        return []
    sample, faults = inspect_sample(path)
    if not folder.exists():
        reason = f"there is no such folder, but {path} names {len(sample.lines)} images of it."
        return [*faults, Fault(str(folder), 0, reason)]
    if not image_ids:
        return faults
    there = set(image_ids)
    return faults + [
        Fault(str(path), line, f"{image_id} is not in {folder}.")
        for image_id, line in sample.lines.items()
        if image_id not in there
    ]


def _unseen(labels: Labels) -> list[str]:
    """Name the classes that no mask shows: perhaps the settings count too many."""
    shown = {class_id for _, class_id in labels.runs}
    return [
        f"no mask is of class {class_id}, and data.num_classes={labels.num_classes}."
        for class_id in range(1, labels.num_classes + 1)
        if class_id not in shown
    ]


def _remarks(labels: Labels, matches: Sequence[Match]) -> list[str]:
    """Name the images that look alike: all whose masks differ, some of the others."""
    differ, agree = [], []
    for match in matches:
        masks = labels.draw(match.first), labels.draw(match.second)
        if conflicts := describe_conflicts(match, *masks):
            differ.append(f"{match}, but {'; '.join(conflicts)}.")
        else:
            agree.append(f"{match}, with the same masks.")
    more = len(agree) - _MOST_REMARKS
    rest = [f"{more} more pairs look alike, with the same masks."] if more > 0 else []
    return differ + agree[:_MOST_REMARKS] + rest
