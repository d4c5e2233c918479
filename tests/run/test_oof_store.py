import subprocess
import sys

import numpy as np
import pytest

from steelseg.run.oof_store import new_store, open_oof, read_oof

IMAGE_IDS = [f"{number}.jpg" for number in range(6)]

# Opens a store of its own, waits for a line on stdin, then fills the store with one value.
WRITER = """
import sys
from pathlib import Path

from steelseg.run.oof_store import new_store

value, image_ids = int(sys.argv[2]), sys.argv[3:]
with new_store(
    Path(sys.argv[1]),
    image_ids=image_ids,
    sizes=[(8, 16)] * len(image_ids),
    num_classes=4,
    model_sha256=str(value),
) as array:
    print("open", flush=True)
    sys.stdin.readline()
    for place in range(len(image_ids)):
        array[place] = value
"""


def start_writer(path, value):
    command = [sys.executable, "-c", WRITER, str(path), str(value), *IMAGE_IDS]
    writer = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "open\n"
    return writer


def release(writer):
    writer.stdin.write("\n")
    writer.stdin.flush()


def end(writer):
    _, errors = writer.communicate(timeout=60)
    assert writer.returncode == 0, errors


@pytest.mark.parametrize("at_once", [False, True], ids=["one-after-the-other", "at-once"])
def test_two_processes_may_write_the_same_store(tmp_path, at_once):
    """The store that is left is whole and of one of the two; nothing else stays in the folder."""
    path = tmp_path / "oof_predictions.zarr"
    first, second = start_writer(path, 1), start_writer(path, 2)

    release(first)
    if not at_once:
        end(first)
    release(second)
    end(second)
    if at_once:
        end(first)

    winner = int(open_oof(path).attrs["model_sha256"])
    assert winner in ((1, 2) if at_once else (2,))
    found = dict(read_oof(path))
    assert list(found) == IMAGE_IDS
    assert all((probs_chw == winner).all() for probs_chw in found.values())
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_error_leaves_the_store_as_it_was(tmp_path):
    """A prediction that breaks off must not cost the one before it."""
    path = tmp_path / "oof_predictions.zarr"
    facts = {"image_ids": ["a.jpg"], "sizes": [(8, 16)], "num_classes": 4, "model_sha256": "a"}
    with new_store(path, **facts) as array:
        array[0] = 7

    def break_off():
        with new_store(path, **facts) as array:
            array[0] = 9
            raise KeyError

    with pytest.raises(KeyError):
        break_off()

    [(_, probs_chw)] = read_oof(path)
    np.testing.assert_array_equal(probs_chw, 7)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
