"""Statistics of a data set: strips, classes, sizes of images and of defects.

Masks stay run-length encoded. Images are not decoded; if the settings give no size, it is read from
the header of each file.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steelseg.config.config import DataConfig
from steelseg.data.folder import DataSet
from steelseg.data.formats.annotations import Labels, read_labels
from steelseg.data.formats.images import measure_image
from steelseg.errors import CheckpointError
from steelseg.progress import progress as show

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_SIZES_SHOWN = 5


@dataclass(frozen=True)
class ClassStatistics:
    """One class of a data set."""

    name: str
    channel: int
    strips: int
    """Number of strips with the class."""
    pixels: int
    areas: tuple[float, ...] | None
    """Minimum, quartiles and maximum of its pixels per strip; None without a mask."""


@dataclass(frozen=True)
class Statistics:
    """A data set."""

    strips: int
    clean: int
    """Strips without any defect."""
    with_several: int
    """Strips with more than one class."""
    pixels: int
    """Of all strips together."""
    classes: tuple[ClassStatistics, ...]
    sizes: tuple[tuple[int, int, int], ...]
    """The most frequent heights and widths, with their number of strips."""
    other_sizes: int
    """Number of other sizes."""
    heights: tuple[int, int]
    """Lowest and highest."""
    widths: tuple[int, int]


def read_statistics(data: DataConfig, command: str) -> Statistics:
    """Count a data set.

    Args:
        data: The settings of the data set.
        command: Command for a data set that has moved, for the message.

    Raises:
        CheckpointError: if it is not there.
        DataError: if it has a fault.
    """
    require_data_set(data.root, command)
    data_set = DataSet(data.root)
    sizes = _sizes(data_set, data.img_height, data.img_width)
    labels = read_labels(data_set.train_csv, sizes, num_classes=data.num_classes)
    return _count(labels, data.names)


def require_data_set(root: Path, command: str) -> None:
    """Raise CheckpointError if a data set has moved away; arguments as of `read_statistics`."""
    data_set = DataSet(root)
    if not data_set.train_csv.is_file() or not data_set.train_images.is_dir():
        raise CheckpointError(
            f"data.root={root} has no train.csv with train_images/. "
            f"Say where they are: {command} data.root=FOLDER."
        )


def _sizes(
    data_set: DataSet, height: int | None, width: int | None
) -> Mapping[str, tuple[int, int]]:
    """Return height and width of each image, from the settings or its file."""
    image_ids = data_set.list_images()
    if height is not None and width is not None:
        return dict.fromkeys(image_ids, (height, width))
    return {
        image_id: measure_image(data_set.train_images / image_id)
        for image_id in show(image_ids, len(image_ids), "measure")
    }


def _count(labels: Labels, names: Sequence[str]) -> Statistics:
    """Sum up the labels."""
    shown = Counter(len(labels.class_ids(image_id)) for image_id in labels.sizes)
    sizes = Counter(labels.sizes.values()).most_common()
    heights, widths = zip(*labels.sizes.values(), strict=True)
    return Statistics(
        strips=len(labels.sizes),
        clean=shown[0],
        with_several=sum(count for classes, count in shown.items() if classes > 1),
        pixels=sum(height * width for height, width in labels.sizes.values()),
        classes=tuple(_class(labels, name, c) for c, name in enumerate(names)),
        sizes=tuple((*size, count) for size, count in sizes[:_SIZES_SHOWN]),
        other_sizes=len(sizes[_SIZES_SHOWN:]),
        heights=(min(heights), max(heights)),
        widths=(min(widths), max(widths)),
    )


def _class(labels: Labels, name: str, channel: int) -> ClassStatistics:
    """Count the masks of one class."""
    areas = [
        int(runs[:, 1].sum())
        for (_, class_id), runs in labels.runs.items()
        if class_id == channel + 1
    ]
    quantiles = tuple(np.quantile(areas, _QUANTILES).tolist()) if areas else None
    return ClassStatistics(name, channel, len(areas), sum(areas), quantiles)
