"""Holding a data set against the rules, every fault at once.

`inspect` decodes every image and parses every row; what it finds wrong comes back as a list.
`load_labels` is what training calls: the same inspection, refused on any fault. Nothing is
written and nothing is repaired.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from steelseg.config import DataConfig
from steelseg.data.annotations import Labels, Row, parse_rows, read_rows
from steelseg.data.images import list_images, read_image
from steelseg.data.sample_submission import inspect_sample
from steelseg.errors import DataError, Fault
from steelseg.progress import Progress
from steelseg.progress import progress as show


@dataclass(frozen=True)
class Inspection:
    """What a data set holds and what is wrong with it."""

    labels: Labels
    """The labels of every readable training image."""

    num_test_images: int
    """Images in test_images/; 0 without the folder."""

    faults: tuple[Fault, ...]
    """Everything that is wrong, by file and row."""

    @property
    def summary(self) -> str:
        """What the data set holds, in a line."""
        labels = self.labels
        clean = sum(not labels.present(image_id) for image_id in labels.sizes)
        masks = [sum(key[1] == k for key in labels.runs) for k in range(1, labels.num_classes + 1)]
        return (
            f"{len(labels.sizes)} training images, {clean} of them clean; "
            f"masks of class 1 to {labels.num_classes}: {', '.join(map(str, masks))}; "
            f"{self.num_test_images} test images"
        )


def inspect(
    root: Path,
    *,
    num_classes: int,
    img_height: int | None,
    img_width: int | None,
    channels: int,
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
        progress: Shows how far the decoding is.
    """
    train_csv, train_images, test_images = (
        root / name for name in ("train.csv", "train_images", "test_images")
    )
    faults: list[Fault] = []
    train_ids = _names(train_images, faults)
    test_ids = _names(test_images, faults) if test_images.exists() else []
    paths = [train_images / name for name in train_ids] + [test_images / n for n in test_ids]
    expected = img_height, img_width
    sizes = _measure_all(paths, expected, channels=channels, faults=faults, progress=progress)

    rows, bad_rows = read_rows(train_csv, num_classes=num_classes)
    train_sizes = {
        name: sizes[train_images / name] for name in train_ids if train_images / name in sizes
    }
    labels, bad_masks = parse_rows(train_csv, rows, train_sizes, num_classes=num_classes)
    faults += bad_rows + bad_masks + _absent(train_csv, train_images, rows, train_ids)
    faults += _sample_faults(root / "sample_submission.csv", test_images, test_ids)
    return Inspection(labels, len(test_ids), tuple(sorted(faults)))


def inspect_data(data: DataConfig) -> Inspection:
    """Inspect the data set that the settings name, with progress on stderr."""
    return inspect(
        data.root,
        num_classes=data.num_classes,
        img_height=data.img_height,
        img_width=data.img_width,
        channels=data.channels,
        progress=show,
    )


def load_labels(data: DataConfig) -> Labels:
    """Read the labels of the data set that the settings name, or refuse it.

    Raises:
        DataError: with a line for every fault.
    """
    return refuse_faults(data.root, inspect_data(data)).labels


def refuse_faults(root: Path, inspection: Inspection) -> Inspection:
    """Give back an inspection that found nothing, else raise DataError with all it found."""
    if faults := inspection.faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise DataError("\n".join([f"{count} in {root}:", *map(str, faults)]))
    return inspection


def _names(folder: Path, faults: list[Fault]) -> list[str]:
    """List a folder of images; a missing or empty one is a fault."""
    try:
        names = list_images(folder)
    except DataError as error:
        faults.append(Fault(str(folder), 0, str(error).removeprefix(f"{folder} ")))
        return []
    if not names:
        faults.append(Fault(str(folder), 0, "the folder holds no .jpg, .jpeg or .png file."))
    return names


def _measure_all(
    paths: Sequence[Path],
    expected: tuple[int | None, int | None],
    *,
    channels: int,
    faults: list[Fault],
    progress: Progress,
) -> dict[Path, tuple[int, int]]:
    """Decode every image; give the sizes of the good ones, append a Fault for the others."""
    sizes: dict[Path, tuple[int, int]] = {}

    def measure(index: int) -> tuple[int, int] | Fault:
        try:
            height, width, _ = read_image(paths[index], channels=channels).shape
        except DataError as error:
            return Fault(str(paths[index]), 0, str(error).removeprefix(f"{paths[index]}: "))
        return height, width

    # Decoding leaves the interpreter lock, so threads use every core.
    pool = ThreadPoolExecutor()
    try:
        results = pool.map(measure, range(len(paths)))
        for index in progress(range(len(paths)), len(paths), "check"):
            match next(results):
                case Fault() as fault:
                    faults.append(fault)
                case size if _differs(size, expected):
                    faults.append(Fault(str(paths[index]), 0, _size_fault(size, expected)))
                case size:
                    sizes[paths[index]] = size
    finally:
        # Ctrl-C need not wait for thousands of images.
        pool.shutdown(cancel_futures=True)
    return sizes


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
