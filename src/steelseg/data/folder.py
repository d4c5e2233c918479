"""The folder of a data set.

    ROOT/train.csv   ROOT/train_images/   ROOT/test_images/   ROOT/sample_submission.csv

The last two may be missing.
"""

from pathlib import Path

from steelseg.data.formats.images import list_images


class DataSet:
    """The paths of a data set."""

    def __init__(self, root: Path) -> None:
        """Take the folder, as `data.root`; nothing is read."""
        self.root = root
        self.train_csv = root / "train.csv"
        self.train_images = root / "train_images"
        self.test_images = root / "test_images"
        self.sample_submission = root / "sample_submission.csv"

    def list_images(self) -> list[str]:
        """Return the image_ids of the training images, sorted.

        Raises:
            DataError: as `steelseg.data.formats.images.list_images`.
        """
        return list_images(self.train_images)
