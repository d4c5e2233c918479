"""Files that try to run something, or to make something outside their folder be read.

An attempt puts a file where `steelseg` reads one, and reads it. The attempt fails, as it must, if
the file is refused with a SteelsegError, the payload has not run, and nothing of the secret outside
was revealed. Attempts on other entries are functions with the same signature in `ATTEMPTS`.
"""

import hashlib
import io
import json
import os
import pickle
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from steelseg.config.load import load_config
from steelseg.data.checks.check import inspect, refuse_faults
from steelseg.data.checks.file_hashes import compare_manifest
from steelseg.data.formats.annotations import read_labels
from steelseg.data.formats.images import list_images, read_image
from steelseg.data.samples.precropped_store import open_store
from steelseg.errors import SteelsegError
from steelseg.run.run_folder import RunFolder
from torture.outcome import Outcome

SECRET = "the secret outside"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def pickled_image(root, mark):
    """A pickle by the name of an image."""
    (root / "a.jpg").write_bytes(pickle.dumps(Payload(mark)))
    read_image(root / "a.jpg", channels=1)


def array_of_objects_as_image(root, mark):
    """A .npy with objects, by the name of an image."""
    np.save(root / "a.npy", np.array([Payload(mark)], dtype=object), allow_pickle=True)
    (root / "a.npy").rename(root / "a.png")
    read_image(root / "a.png", channels=1)


def pickled_labels(root, mark):
    """A pickle by the name of train.csv."""
    (root / "train.csv").write_bytes(pickle.dumps(Payload(mark)))
    read_labels(root / "train.csv", {}, num_classes=1)


def yaml_tag_in_settings(root, mark):
    """YAML that builds an object."""
    text = f"data: !!python/object/apply:os.mkdir ['{mark}']\n"
    (root / "config.yaml").write_text(text)
    load_config(root / "config.yaml")


def yaml_tag_in_a_run_folder(root, mark):
    """The same in a run folder that someone sent."""
    text = f"data: {{root: !!python/object/new:os.mkdir ['{mark}']}}\n"
    (root / "config.yaml").write_text(text)
    RunFolder(root).load_config(())


def yaml_tag_on_the_command_line(root, mark):
    """The same as the value of a setting."""
    (root / "config.yaml").write_text("data: {}\n")
    value = f"!!python/object/apply:os.mkdir ['{mark}']"
    load_config(root / "config.yaml", [f"data.root={value}"])


def yaml_bomb(root, _mark):
    """Forty lines that stand for a trillion values."""
    doubling = "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40))
    (root / "config.yaml").write_text("a0: &a0 [1, 2]\n" + doubling)
    load_config(root / "config.yaml")


def zip_bomb_as_image(root, _mark):
    """Fifty megabytes of zeros in fifty kilobytes, by the name of an image."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(50_000_000))
    (root / "a.png").write_bytes(packed.getvalue())
    read_image(root / "a.png", channels=1)


def linked_image(root, _mark):
    """A link among the images to a file outside."""
    (root / "images").mkdir()
    (root / "images" / "a.jpg").symlink_to(root.parent / "secret")
    list_images(root / "images")


def label_of_an_image_outside(root, _mark):
    """A row of train.csv that climbs out of the folder."""
    (root / "train_images").mkdir()
    (root / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n../../secret,1,1 1\n")
    found = inspect(root, num_classes=1, img_height=None, img_width=None, channels=1)
    refuse_faults(root, found)


def manifest_of_a_file_outside(root, _mark):
    """A manifest with a file outside the folder: its hash would reveal its content."""
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    (root / "m").write_text(f"{digest}  ../secret\n")
    faults = compare_manifest(root / "m", root)
    raise SteelsegError("\n".join(map(str, faults)))


def pickled_store(root, mark):
    """A precropped store whose index is a pickle."""
    (root / "index.json").write_bytes(pickle.dumps(Payload(mark)))
    _open_store(root)


def nested_store(root, _mark):
    """A precropped store whose index is nested beyond every stack."""
    (root / "index.json").write_text("[" * 100_000)
    _open_store(root)


def store_of_strips_outside(root, _mark):
    """A precropped store that names its strips by a path."""
    (root / "train.csv").touch()
    entry = {"image_id": "../secret", "height": 1, "width": 18, "offset": 0, "file_size": 18}
    entry |= {"modified_ns": 0, "sha256": hashlib.sha256(SECRET.encode()).hexdigest()}
    index = {"format": 1, "channels": 1, "bytes": 18, "strips": [entry]}
    index["train_csv"] = hashlib.sha256(b"").hexdigest()
    (root / "index.json").write_text(json.dumps(index))
    _open_store(root)


def _open_store(root):
    open_store(root, root=root, image_ids=[], channels=1)


ATTEMPTS = (
    pickled_image,
    array_of_objects_as_image,
    pickled_labels,
    yaml_tag_in_settings,
    yaml_tag_in_a_run_folder,
    yaml_tag_on_the_command_line,
    yaml_bomb,
    zip_bomb_as_image,
    linked_image,
    label_of_an_image_outside,
    manifest_of_a_file_outside,
    pickled_store,
    nested_store,
    store_of_strips_outside,
)

NAME = "malicious files at every entry: nothing executed, nothing read outside"
COUNT = QUICK = len(ATTEMPTS)


def run(count):
    """Make the first `count` attempts."""
    begun = time.monotonic()
    wrong = [attempt.__name__ for attempt in ATTEMPTS[:count] if not is_refused(attempt)]
    tried = len(ATTEMPTS[:count])
    note = f"succeeded: {', '.join(wrong)}" if wrong else "all refused in words"
    return Outcome(tried - len(wrong), tried, time.monotonic() - begun, note)


def is_refused(attempt):
    """Whether an attempt ends in a SteelsegError, and did nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        mark, root = Path(folder) / "mark", Path(folder) / "root"
        (Path(folder) / "secret").write_text(SECRET)
        root.mkdir()
        try:
            attempt(root, mark)
        except SteelsegError as error:
            return bool(str(error)) and SECRET not in str(error) and not mark.exists()
        return False
