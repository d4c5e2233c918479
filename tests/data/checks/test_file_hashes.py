import hashlib
import os
import shutil
import subprocess

import pytest

from steelseg.data.checks.file_hashes import compare_manifest, read_manifest, write_manifest
from steelseg.errors import DataError
from torture.image_files import flip_bit


@pytest.fixture
def root(make_strips, tmp_path):
    make_strips(tmp_path / "input", num_train=3, num_test=1)
    return tmp_path / "input"


@pytest.fixture
def manifest(root, tmp_path):
    write_manifest(tmp_path / "input.sha256", root)
    return tmp_path / "input.sha256"


def faults_of(manifest, root):
    faults = compare_manifest(manifest, root)
    return [str(fault).replace(f"{root}/", "").replace(str(manifest), "M") for fault in faults]


def test_a_manifest_names_every_file_of_the_data_set(root, manifest):
    """Notes in the folder are no data."""
    (root / "notes.txt").touch()
    (root / "train_images" / "notes.txt").touch()

    hashes = read_manifest(manifest)

    assert sorted(hashes) == [
        "sample_submission.csv",
        "test_images/test_000.jpg",
        "train.csv",
        "train_images/train_000.jpg",
        "train_images/train_001.jpg",
        "train_images/train_002.jpg",
    ]
    assert hashes["train.csv"] == hashlib.sha256((root / "train.csv").read_bytes()).hexdigest()
    assert faults_of(manifest, root) == []


def test_a_flipped_bit_is_found_wherever_it_is(root, manifest):
    """Most such JPEGs decode without a word, to other pixels."""
    path = root / "train_images" / "train_001.jpg"
    content = path.read_bytes()

    for bit in range(0, 8 * len(content), 997):
        path.write_bytes(flip_bit(content, bit))
        assert faults_of(manifest, root) == [
            "train_images/train_001.jpg: the file has changed: its SHA-256 differs from M."
        ]


def test_every_difference_is_a_line(root, manifest):
    """What changed, what is missing, what was added."""
    shutil.copy(root / "train_images" / "train_000.jpg", root / "train_images" / "new.JPG")
    (root / "train_images" / "train_002.jpg").unlink()
    (root / "train.csv").write_text((root / "train.csv").read_text() + "\n")

    assert sorted(faults_of(manifest, root)) == [
        "train.csv: the file has changed: its SHA-256 differs from M.",
        "train_images/new.JPG: the file was added: it is not in M.",
        "train_images/train_002.jpg: the file is missing: it is in M.",
    ]


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not here")
def test_sha256sum_reads_a_manifest(root, tmp_path):
    """So a data set can be checked where steelseg is not installed; odd names too."""
    shutil.copy(root / "train.csv", root / "train_images" / "a b\\n\u00e9.png")
    write_manifest(tmp_path / "m", root)

    done = subprocess.run(["sha256sum", "--check", "--strict", tmp_path / "m"], cwd=root)

    assert done.returncode == 0
    assert compare_manifest(tmp_path / "m", root) == []


def test_nothing_outside_the_data_set_is_read(root, tmp_path):
    """Neither by a manifest that names it, nor by a link; a pipe would never end."""
    digest = hashlib.sha256(b"secret").hexdigest()
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "train_images" / "link.jpg").symlink_to(tmp_path / "secret")
    os.mkfifo(root / "train_images" / "pipe.jpg")
    names = (
        "../secret",
        "train_images/link.jpg",
        "train_images/pipe.jpg",
        str(tmp_path / "secret"),
    )
    (tmp_path / "m").write_text("".join(f"{digest}  {name}\n" for name in names))

    found = faults_of(tmp_path / "m", root)

    assert sum("is missing" in fault for fault in found) == len(names)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("no hash\n", "M:1: 'no hash' is not a SHA-256 and a file name"),
        (f"{'0' * 64}  train.csv\n{'0' * 63}  a\n", "M:2: '0{60}' is not a SHA-256"),
        (f"{'0' * 64}  train.csv\n" * 2, "M:2: train.csv is duplicated"),
        ("\udcff", "M is not a manifest: it is not UTF-8 text"),
    ],
)
def test_a_damaged_manifest_is_refused(root, tmp_path, text, fault):
    """It must not pass for one that names fewer files."""
    (tmp_path / "M").write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(DataError, match=fault):
        compare_manifest(tmp_path / "M", root)


def test_a_manifest_that_cannot_be_read_is_named(root, tmp_path):
    """A folder, for one."""
    with pytest.raises(DataError, match="input cannot be read: Is a directory"):
        read_manifest(root)
