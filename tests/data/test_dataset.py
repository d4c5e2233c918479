import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from steelseg.config import DataConfig
from steelseg.data.check import load_labels
from steelseg.data.crops import Box
from steelseg.data.dataset import (
    EpochBatches,
    FolderReader,
    SampleDataset,
    balanced_chances,
    collate,
    list_samples,
)
from steelseg.data.images import read_image
from steelseg.data.store import build_store, open_store
from steelseg.data.transforms import find_augmentation


@pytest.fixture
def root(make_strips, tmp_path):
    """Give six training strips."""
    make_strips(tmp_path / "input", num_train=6)
    return tmp_path / "input"


@pytest.fixture
def labels(root):
    """Give the labels of the six strips."""
    return load_labels(DataConfig(root=root, num_classes=2, img_height=32, img_width=96))


def make_dataset(root, labels, *, crop=None, augmentation="none", source=None, seed=3):
    return SampleDataset(
        labels,
        list_samples(labels, list(labels.sizes), crop=crop),
        source or FolderReader(root / "train_images", 1),
        augmentation=find_augmentation(augmentation),
        seed=seed,
    )


def test_a_whole_strip_is_one_sample(labels):
    """Mode full."""
    samples = list_samples(labels, ["train_003.jpg", "train_001.jpg"], crop=None)

    assert samples == [
        ("train_003.jpg", Box(0, 0, 32, 96)),
        ("train_001.jpg", Box(0, 0, 32, 96)),
    ]


def test_crops_of_a_strip_are_samples_of_their_own(labels):
    """The last one is flush with the right edge."""
    samples = list_samples(labels, ["train_001.jpg"], crop=(32, 40, 30))

    assert [box for _, box in samples] == [Box(0, left, 32, 40) for left in (0, 30, 56)]


def test_a_kaggle_strip_gives_six_crops(labels):
    """256 x 1600 cut to 256 x 512 at stride 256, as the baseline does."""
    kaggle = type(labels)(4, {"a.jpg": (256, 1600)}, {})

    samples = list_samples(kaggle, ["a.jpg"], crop=(256, 512, 256))

    assert [box.left for _, box in samples] == [0, 256, 512, 768, 1024, 1088]


@pytest.mark.parametrize("crop", [None, (24, 40, 20)])
def test_a_sample_is_the_window_and_its_mask(root, labels, crop):
    """Channels first, uint8, the mask 0 or 1 on the same pixels."""
    dataset = make_dataset(root, labels, crop=crop)

    for index, (image_id, box) in enumerate(list_samples(labels, list(labels.sizes), crop=crop)):
        image_chw, mask_chw = dataset[0, index]
        strip_hwc = read_image(root / "train_images" / image_id, channels=1)
        rows, columns = (
            slice(box.top, box.top + box.height),
            slice(box.left, box.left + box.width),
        )
        assert image_chw.dtype == mask_chw.dtype == torch.uint8
        np.testing.assert_array_equal(image_chw[0], strip_hwc[rows, columns, 0])
        np.testing.assert_array_equal(mask_chw, labels.draw(image_id)[:, rows, columns])


@pytest.mark.parametrize("augmentation", ["none", "flips", "light"])
def test_the_store_gives_the_samples_that_the_images_give(root, labels, tmp_path, augmentation):
    """It saves decoding and changes nothing else."""
    image_ids = list(labels.sizes)
    build_store(tmp_path / "store", root=root, image_ids=image_ids, channels=1)
    store = open_store(tmp_path / "store", root=root, image_ids=image_ids, channels=1)
    chosen = {"crop": (32, 40, 30), "augmentation": augmentation}
    stored, decoded = (make_dataset(root, labels, source=s, **chosen) for s in (store, None))

    for index in range(len(decoded)):
        for found, expected in zip(stored[1, index], decoded[1, index], strict=True):
            assert torch.equal(found, expected)


def load(dataset, workers, epochs=2):
    """Load every batch of some epochs as the training does."""
    order = EpochBatches(len(dataset), 2, seed=5)
    loader = DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    batches = []
    for epoch in range(1, epochs + 1):
        order.epoch = epoch
        batches += [(images.clone(), masks.clone()) for images, masks, _ in loader]
    return batches


def test_samples_do_not_depend_on_the_number_of_workers(root, labels):
    """Also when the workers live on from epoch to epoch."""
    dataset = make_dataset(root, labels, augmentation="light")

    alone, together = load(dataset, 0), load(dataset, 2)

    for expected, found in zip(alone, together, strict=True):
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    assert len(alone) == 6
    assert not torch.equal(alone[0][0], alone[3][0])


def test_a_sample_is_drawn_anew_in_each_epoch_and_with_each_seed(root, labels):
    """The same key gives the same sample whatever was drawn before it."""
    dataset = make_dataset(root, labels, augmentation="light")
    first = dataset[1, 0][0]

    assert torch.equal(dataset[1, 0][0], first)
    assert any(not torch.equal(dataset[epoch, 0][0], first) for epoch in (2, 3))
    assert not torch.equal(make_dataset(root, labels, augmentation="light", seed=4)[1, 0][0], first)


def test_an_epoch_visits_every_sample_once():
    """In an order of its own, which is the same in every run."""
    order = EpochBatches(10, 4, seed=1)
    again = EpochBatches(10, 4, seed=1)
    epochs = []
    for epoch in (1, 2):
        order.epoch = again.epoch = epoch
        epochs.append([key for batch in order for key in batch])
        assert epochs[-1] == [key for batch in again for key in batch]

    assert [sorted(keys) for keys in epochs] == [
        [(epoch, index) for index in range(10)] for epoch in (1, 2)
    ]
    assert [index for _, index in epochs[0]] != [index for _, index in epochs[1]]
    assert [index for _, index in epochs[0]] != list(range(10))


@pytest.mark.parametrize(
    ("samples", "size", "expected"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (2, 1, [1, 1])],
)
def test_a_last_single_sample_sits_out(samples, size, expected):
    """Batch normalisation has no variance over one; another one sits out in the next epoch."""
    batches = list(EpochBatches(samples, size, seed=0))

    assert [len(batch) for batch in batches] == expected
    assert len(EpochBatches(samples, size, seed=0)) == len(expected)


def test_samples_of_one_size_are_stacked():
    """With nothing to mark."""
    draw = torch.Generator().manual_seed(0)
    samples = [
        (
            torch.randint(0, 256, (1, 3, 5), generator=draw, dtype=torch.uint8),
            torch.randint(0, 2, (2, 3, 5), generator=draw, dtype=torch.uint8),
        )
        for _ in range(3)
    ]

    images, masks, valid = collate(samples)

    assert valid is None
    assert torch.equal(images, torch.stack([image for image, _ in samples]))
    assert torch.equal(masks, torch.stack([mask for _, mask in samples]))


def test_samples_of_many_sizes_repeat_their_edges():
    """Black padding would look like the end of a strip; `valid` keeps it out of the loss."""
    tall = torch.arange(8, dtype=torch.uint8).view(1, 4, 2)
    wide = torch.arange(6, dtype=torch.uint8).view(1, 2, 3)

    images, masks, valid = collate([(tall, tall % 2), (wide, wide % 2)])

    assert images[0, 0].tolist() == [[0, 1, 1], [2, 3, 3], [4, 5, 5], [6, 7, 7]]
    assert images[1, 0].tolist() == [[0, 1, 2], [3, 4, 5], [3, 4, 5], [3, 4, 5]]
    assert torch.equal(masks, images % 2)
    assert valid[0, 0].tolist() == [[True, True, False]] * 4
    assert valid[1, 0].tolist() == [[True] * 3] * 2 + [[False] * 3] * 2


def test_balanced_sampling_draws_every_class_as_often_as_clean_samples(tmp_path, make_strips):
    """Each of clean, class 1 and class 2 gets a third, whatever their numbers."""
    make_strips(tmp_path, num_train=12, num_classes=2)
    labels = load_labels(DataConfig(root=tmp_path, num_classes=2, img_height=None, img_width=None))
    samples = list_samples(labels, list(labels.sizes), crop=(32, 32, 32))

    chances = balanced_chances(labels, samples)

    shown = np.array([labels.draw(*sample).any(axis=(1, 2)) for sample in samples])
    rarer = int(shown.sum(axis=0).argmin())
    groups = [
        shown[:, rarer],
        shown[:, 1 - rarer] & ~shown[:, rarer],
        ~shown.any(axis=1),
    ]
    assert all(group.any() for group in groups)
    np.testing.assert_allclose([chances[group].sum() for group in groups], 1 / 3)


def test_balanced_batches_follow_from_seed_and_epoch():
    """As many samples as there are, drawn with replacement, the same in every run."""
    chances = np.array([0.5, 0.5, 0.0, 0.0])
    batches = EpochBatches(4, 2, seed=3, chances=chances)
    again = EpochBatches(4, 2, seed=3, chances=chances)

    drawn = [key for batch in batches for key in batch]

    assert drawn == [key for batch in again for key in batch]
    assert len(drawn) == 4
    assert {index for _, index in drawn} <= {0, 1}
