"""Check a data set and report every fault at once.

`inspect` decodes every image and parses every row, and returns what is wrong as a list.
Near-duplicate images are not a fault: they are returned as matches, and described in remarks.
`load_labels` does the same without decoding, for stages whose data were inspected before or are
decoded next. Nothing is written and nothing is repaired.
"""

from collections.abc import Mapping, Sequence
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
from steelseg.data.formats.images import list_images, map_images, measure_image, read_image
from steelseg.data.formats.sample_submission import inspect_sample
from steelseg.errors import DataError
from steelseg.progress import Progress, no_progress
from steelseg.progress import progress as show

# Remarks list this many pairs with equal masks; pairs whose masks differ are all listed.
_MOST_REMARKS = 20


@dataclass(frozen=True)
class Inspection:
    """Content and faults of a data set."""

    labels: Labels
    """The labels of every readable training image."""

    num_test_images: int
    """Number of images in test_images/; 0 without the folder."""

    faults: tuple[Fault, ...]
    """All faults, sorted by file and row."""

    matches: tuple[Match, ...] = ()
    """Near-duplicate training images; empty if they were not searched for."""

    @property
    def groups(self) -> dict[str, str]:
        """The first image of its group for each near-duplicate training image."""
        return group_matches(self.matches)

    @property
    def remarks(self) -> list[str]:
        """Sentences for the user about missing classes and near-duplicates."""
        return _missing_classes(self.labels) + _describe_matches(self.labels, self.matches)

    @property
    def summary(self) -> str:
        """The content of the data set in one line."""
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
    progress: Progress = no_progress,
) -> Inspection:
    """Decode every image, parse every row and collect all faults.

    Args:
        root: Folder with train.csv and train_images/; test_images/ and sample_submission.csv
            are compared with each other if they exist.
        num_classes: Highest ClassId.
        img_height: Height that every image must have, in pixels; None allows any.
        img_width: Width that every image must have, in pixels; None allows any.
        channels: 1 for grayscale, 3 for RGB.
        group_duplicates: Whether to search for near-duplicate training images.
        decode: False checks the structure of image files without decoding them, and does not
            search for near-duplicates.
        progress: Shows how many images are checked.
    """
    data_set = DataSet(root)
    train_images, test_images = data_set.train_images, data_set.test_images
    faults: list[Fault] = []
    train_ids = _list(train_images, faults)
    test_ids = _list(test_images, faults) if test_images.exists() else []
    paths = [train_images / name for name in train_ids] + [test_images / n for n in test_ids]
    expected = img_height, img_width
    sizes, thumbnails = _measure_all(
        paths,
        expected,
        channels=channels,
        folder_of_thumbnails=train_images if group_duplicates else None,
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
    """Check every row of train.csv and compare it with the images.

    Args:
        train_csv: The file.
        folder: Folder of the images, for the messages.
        image_ids: All images in the folder.
        sizes: Height and width of the readable images.
        num_classes: Highest ClassId.

    Returns:
        The labels of the valid rows, and a Fault for every other row.
    """
    rows, bad_rows = read_rows(train_csv, num_classes=num_classes)
    labels, bad_masks = parse_rows(train_csv, rows, sizes, num_classes=num_classes)
    return labels, bad_rows + bad_masks + _missing_images(train_csv, folder, rows, image_ids)


def inspect_data(data: DataConfig, *, decode: bool = True) -> Inspection:
    """Inspect the data set of the settings, with progress on stderr."""
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
    """Read the labels of the data set of the settings.

    Images are not decoded and near-duplicates are not searched for; `inspect_data` does both.

    Raises:
        DataError: with one line per fault.
    """
    return refuse_faults(data.root, inspect_data(data, decode=False)).labels


def refuse_faults(root: Path, inspection: Inspection) -> Inspection:
    """Return the inspection, or raise DataError with all its faults if it has any."""
    if faults := inspection.faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise DataError("\n".join([f"{count} in {root}:", *map(str, faults)]))
    return inspection


def _list(folder: Path, faults: list[Fault]) -> list[str]:
    """List the images of a folder; a missing or empty folder is a fault."""
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
    folder_of_thumbnails: Path | None,
    decode: bool,
    faults: list[Fault],
    progress: Progress,
) -> tuple[dict[Path, tuple[int, int]], dict[Path, Thumbnail]]:
    """Check every image and append a Fault for each bad one.

    Returns:
        The sizes of the good images, and the thumbnails of those in `folder_of_thumbnails`, if
        they are decoded.
    """

    def measure(path: Path) -> tuple[tuple[int, int], Thumbnail | None] | Fault:
        try:
            if not decode:
                return measure_image(path), None
            image_hwc = read_image(path, channels=channels)
        except DataError as error:
            return Fault(str(path), 0, str(error).removeprefix(f"{path}: "))
        height, width, _ = image_hwc.shape
        is_wanted = path.parent == folder_of_thumbnails
        return (height, width), make_thumbnail(image_hwc) if is_wanted else None

    sizes: dict[Path, tuple[int, int]] = {}
    thumbnails: dict[Path, Thumbnail] = {}
    results = map_images(measure, paths, title="check", progress=progress)
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, Fault):
            faults.append(result)
            continue
        size, thumbnail = result
        if any(e is not None and e != s for s, e in zip(size, expected, strict=True)):
            faults.append(Fault(str(path), 0, _size_fault(size, expected)))
            continue
        sizes[path] = size
        if thumbnail is not None:
            thumbnails[path] = thumbnail
    return sizes, thumbnails


def _size_fault(size: tuple[int, int], expected: tuple[int | None, int | None]) -> str:
    """Say that an image does not have the size of the masks."""
    wanted = "x".join("any" if side is None else str(side) for side in expected)
    return (
        f"the image is {size[0]}x{size[1]}, but masks are {wanted} "
        "(data.img_height x data.img_width; null for any)."
    )


def _missing_images(
    train_csv: Path, folder: Path, rows: Sequence[Row], image_ids: Sequence[str]
) -> list[Fault]:
    """Return a Fault for each row whose image is not in the folder."""
    if not image_ids:
        # The folder itself is the fault; a line for every row would hide it.
        return []
    existing = set(image_ids)
    return [
        Fault(str(train_csv), row.line, f"{row.image_id} is not in {folder}.")
        for row in rows
        if row.image_id not in existing
    ]


def _sample_faults(path: Path, folder: Path, image_ids: Sequence[str]) -> list[Fault]:
    """Compare sample_submission.csv, if it exists, with the test images."""
    if not path.exists():
        return []
    sample, faults = inspect_sample(path)
    if not folder.exists():
        reason = f"the folder is missing, but {path} lists {len(sample.lines)} images of it."
        return [*faults, Fault(str(folder), 0, reason)]
    if not image_ids:
        return faults
    existing = set(image_ids)
    return faults + [
        Fault(str(path), line, f"{image_id} is not in {folder}.")
        for image_id, line in sample.lines.items()
        if image_id not in existing
    ]


def _missing_classes(labels: Labels) -> list[str]:
    """Report classes without a mask: data.num_classes may be too high."""
    present = {class_id for _, class_id in labels.runs}
    return [
        f"no mask is of class {class_id}, and data.num_classes={labels.num_classes}."
        for class_id in range(1, labels.num_classes + 1)
        if class_id not in present
    ]


def _describe_matches(labels: Labels, matches: Sequence[Match]) -> list[str]:
    """Describe near-duplicates: all pairs whose masks differ, and some of the others."""
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
