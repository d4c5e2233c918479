from typing import get_args

import numpy as np
import pytest

from steelseg.errors import ConfigError
from steelseg.writers.open_writer import (
    FILE_NAMES,
    OutputFormat,
    TextFormat,
    make_record,
    open_writer,
)

NAMES = ("scratch", "inclusion")
MASK_CHW = np.zeros((2, 4, 6), dtype=bool)
MASK_CHW[0, 1, 2] = True


@pytest.mark.parametrize("format", get_args(TextFormat))
def test_each_text_writes_its_file_into_the_output_folder(tmp_path, format):
    """The folder is made on the way; nothing else is left in it."""
    output_dir = tmp_path / "new" / "output"

    with open_writer(format, output_dir, class_names=NAMES) as add:
        add("a.jpg", make_record(format, MASK_CHW, MASK_CHW.astype(np.float32), class_names=NAMES))

    assert [path.name for path in output_dir.iterdir()] == [FILE_NAMES[format]]


def test_every_format_has_a_file_name():
    """A format without one would fail after the images were predicted."""
    texts, others = map(get_args, get_args(OutputFormat))
    assert set(FILE_NAMES) == {*texts, *others}


@pytest.mark.parametrize("format", get_args(TextFormat))
def test_a_mask_of_one_channel_too_many_is_our_bug(format):
    """Without the check, a class would be dropped or have no name."""
    mask_chw = np.zeros((3, 4, 6), dtype=bool)

    with pytest.raises(AssertionError):
        make_record(format, mask_chw, mask_chw, class_names=NAMES)


def test_the_columns_of_a_sample_reach_the_submission(tmp_path):
    """The header must be the sample's own."""
    columns = ("ImageId", "EncodedPixels", "ClassId")

    with open_writer("csv", tmp_path, class_names=NAMES, columns=columns) as add:
        add("a.jpg", make_record("csv", MASK_CHW, MASK_CHW, class_names=NAMES))

    assert (tmp_path / "submission.csv").read_text() == (
        "ImageId,EncodedPixels,ClassId\na.jpg,10 1,1\na.jpg,,2\n"
    )


def test_wrong_columns_are_refused_before_any_image_is_predicted(tmp_path):
    """The fault shows at once and makes no folder."""
    with (
        pytest.raises(ConfigError, match="columns is 'a'"),
        open_writer("csv", tmp_path / "output", class_names=NAMES, columns=["a"]),
    ):
        pass

    assert not (tmp_path / "output").exists()
