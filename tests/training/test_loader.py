import threading

import numpy as np
import pytest
import torch

from steelseg.config.config import DataConfig
from steelseg.data.augment.steps import find_augmentation
from steelseg.data.checks.check import load_labels
from steelseg.data.samples.dataset import EpochBatches, FolderReader, SampleDataset, list_samples
from steelseg.data.samples.precropped_store import build_store, open_store
from steelseg.errors import ConfigError, DataError
from steelseg.training.loader import BatchLoader

MINE = """
import os
import random
import numpy as np


def roll(image, mask):
    shift = int(np.random.randint(1, 5)) + random.randint(0, 3)
    return {"image": np.roll(image, shift, 1), "mask": np.roll(mask, shift, 1)}


def sign(image, mask):
    return {"image": np.full_like(image, os.getpid() % 251), "mask": mask}


def floats(image, mask):
    return {"image": image / 255.0, "mask": mask}
"""


@pytest.fixture
def root(make_strips, tmp_path, monkeypatch):
    """Give nine training strips, and a user's module beside them."""
    make_strips(tmp_path / "input", num_train=9)
    (tmp_path / "loader_augmentation.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "input"


@pytest.fixture
def make_dataset(root, tmp_path):
    """Give a function that makes a data set of any mode, and an order of its samples."""
    data = DataConfig(root=root, num_classes=2, img_height=32, img_width=96)
    labels = load_labels(data)
    image_ids = list(labels.sizes)
    build_store(tmp_path / "store", root=root, image_ids=image_ids, channels=1)

    def make(mode="crops", augmentation="light"):
        windows = FolderReader(root / "train_images", 1)
        if mode == "precropped":
            windows = open_store(tmp_path / "store", root=root, image_ids=image_ids, channels=1)
        samples = list_samples(labels, image_ids, crop=None if mode == "full" else (32, 40, 30))
        dataset = SampleDataset(
            labels, samples, windows, augmentation=find_augmentation(augmentation), seed=3
        )
        return dataset, EpochBatches(len(samples), 4, seed=5)

    return make


@pytest.fixture
def make_loader(make_dataset):
    """Give a function that makes a loader in any mode, and the order that it follows."""

    def make(*mode, num_workers, **chosen):
        dataset, order = make_dataset(*mode, **chosen)
        return BatchLoader(dataset, order, num_workers=num_workers, pin_memory=False), order

    return make


def load(loader, order, begin=0):
    """Load two epochs, the first from batch `begin` on."""
    batches = []
    for epoch in (1, 2):
        order.epoch, order.begin = epoch, begin if epoch == 1 else 0
        batches += loader
    return batches


def assert_same(found, expected):
    """Hold batches against each other to the bit."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert one[2] is other[2] is None


@pytest.mark.parametrize("mode", ["full", "crops", "precropped"])
def test_the_number_of_workers_changes_no_batch(make_loader, mode):
    """Nor does the mode: what the store gives is what the files give."""
    alone = load(*make_loader("full" if mode == "full" else "crops", num_workers=0))

    for num_workers in (0, 1, 3):
        assert_same(load(*make_loader(mode, num_workers=num_workers)), alone)
    assert not torch.equal(alone[0][0], alone[len(alone) // 2][0])


@pytest.mark.parametrize("mode", ["full", "crops", "precropped"])
def test_an_epoch_goes_on_where_it_was_left(make_loader, mode):
    """Resuming after two batches gives the third as if nothing had been."""
    whole = load(*make_loader(mode, num_workers=2))

    assert_same(load(*make_loader(mode, num_workers=2), begin=2), whole[2:])


def test_an_augmentation_of_ones_own_needs_processes(make_loader):
    """Two of them draw from global generators of their own, and no batch depends on it."""
    alone = load(*make_loader(num_workers=0, augmentation="loader_augmentation:roll"))
    loader, order = make_loader(num_workers=2, augmentation="loader_augmentation:roll")

    assert_same(load(loader, order), alone)

    signed = load(*make_loader(num_workers=2, augmentation="loader_augmentation:sign"))
    assert len({int(images[0, 0, 0, 0]) for images, _, _ in signed}) == 2


def load_threads():
    """Name the threads that load."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("mode", ["crops", "precropped"])
def test_no_thread_outlives_its_epoch(make_loader, mode):
    """Whether the epoch ends, is left, or an error ends it."""
    loader, _ = make_loader(mode, num_workers=3)
    for _ in loader:
        assert load_threads()
    assert not load_threads()

    batches = iter(loader)
    next(batches)
    del batches
    assert not load_threads()

    def train():
        for _ in loader:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert not load_threads()


def test_an_image_that_vanishes_is_one_line(make_loader, root):
    """It comes out where its batch would, in the words of the reader."""
    loader, _ = make_loader("full", num_workers=2)
    (root / "train_images" / "train_004.jpg").write_bytes(b"")

    with pytest.raises(DataError, match=r"train_004\.jpg: the file is empty") as caught:
        list(loader)

    assert "\n" not in str(caught.value)
    assert not load_threads()


def test_a_store_that_is_cut_is_one_line(make_loader, tmp_path):
    """Someone makes it anew, or the disk fills; a memory map would end the process."""
    loader, _ = make_loader("precropped", num_workers=1)
    with (tmp_path / "store" / "strips.bin").open("r+b") as file:
        file.truncate(5000)

    with pytest.raises(DataError, match=r"strips\.bin ends within train_00.*steelseg precrop"):
        list(loader)


def test_an_error_of_a_worker_process_is_one_line(make_loader):
    """Torch hands it over with the traceback of the worker."""
    loader, _ = make_loader(num_workers=1, augmentation="loader_augmentation:floats")

    with pytest.raises(ConfigError) as caught:
        next(iter(loader))

    assert str(caught.value).startswith("train.augmentation=loader_augmentation:floats returned")
    assert "\n" not in str(caught.value)


def test_batches_are_made_only_a_little_ahead(make_dataset):
    """As many as there are workers; memory does not grow with the epoch."""
    dataset, order = make_dataset()
    asked = []
    noted = (asked.append(keys) or keys for keys in order)
    loader = BatchLoader(dataset, noted, num_workers=1, pin_memory=False)

    batches = iter(loader)
    for number in range(3):
        next(batches)
        assert len(asked) == number + 2
    batches.close()


def test_memory_goes_round(make_loader):
    """A batch that nobody holds any more lends its memory to a later one."""
    loader, order = make_loader(num_workers=1)
    places = set()
    for order.epoch in range(1, 6):
        places |= {images.data_ptr() for images, _, _ in loader}

    assert np.prod([5, len(order)]) > 20
    assert len(places) <= 4
