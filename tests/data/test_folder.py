import re
import subprocess
import sys

import pytest

from steelseg.data.folder import DataSet
from steelseg.data.formats.images import format_extensions
from steelseg.errors import DataError


def test_the_paths_are_those_of_kaggles_layout(tmp_path):
    """A data set that was unpacked is read as it is."""
    data_set = DataSet(tmp_path)

    assert data_set.train_csv == tmp_path / "train.csv"
    assert data_set.train_images == tmp_path / "train_images"
    assert data_set.test_images == tmp_path / "test_images"
    assert data_set.sample_submission == tmp_path / "sample_submission.csv"


def test_the_training_images_are_listed_by_name(tmp_path):
    """Other files in the folder are not images."""
    (tmp_path / "train_images").mkdir()
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / "train_images" / name).touch()

    assert DataSet(tmp_path).list_images() == ["a.jpg", "b.png"]


def test_a_data_set_without_training_images_is_refused(tmp_path):
    """Whether the folder is missing or empty, the message names it."""
    with pytest.raises(DataError, match="train_images is not a folder"):
        DataSet(tmp_path).list_images()

    (tmp_path / "train_images").mkdir()
    with pytest.raises(
        DataError, match=f"train_images contains no {re.escape(format_extensions())} file"
    ):
        DataSet(tmp_path).list_images()


def test_naming_a_data_set_needs_no_torch():
    """Checks and reports start without it."""
    code = "import sys, steelseg.data.folder; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
