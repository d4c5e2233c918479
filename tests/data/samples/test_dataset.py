import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steelseg.config.config import DataConfig
from steelseg.data.augment.steps import find_augmentation
from steelseg.data.checks.check import load_labels
from steelseg.data.crops import Box
from steelseg.data.formats.images import read_image
from steelseg.data.samples.dataset import (
    EpochBatches,
    FolderReader,
    SampleDataset,
    list_samples,
)
from steelseg.data.samples.precropped_store import build_store, open_store


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


def sample(dataset, key):
    """Make one sample alone."""
    images, masks, valid = dataset.make([key])
    assert valid is None
    return images[0], masks[0]


@pytest.mark.parametrize("crop", [None, (24, 40, 20)])
def test_a_sample_is_the_window_and_its_mask(root, labels, crop):
    """Channels first, uint8, the mask 0 or 1 on the same pixels."""
    dataset = make_dataset(root, labels, crop=crop)

    for index, (image_id, box) in enumerate(list_samples(labels, list(labels.sizes), crop=crop)):
        image_chw, mask_chw = sample(dataset, (0, index))
        strip_hwc = read_image(root / "train_images" / image_id, channels=1)
        rows, columns = (
            slice(box.top, box.top + box.height),
            slice(box.left, box.left + box.width),
        )
        assert image_chw.dtype == mask_chw.dtype == torch.uint8
        np.testing.assert_array_equal(image_chw[0], strip_hwc[rows, columns, 0])
        np.testing.assert_array_equal(mask_chw, labels.draw(image_id)[:, rows, columns])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", ["none", "flips", "light"])
def test_the_store_gives_the_samples_that_the_images_give(
    root, labels, tmp_path, augmentation, channels
):
    """It saves decoding and changes nothing else; crops of fewer rows than the strip too."""
    image_ids = list(labels.sizes)
    build_store(tmp_path / "store", root=root, image_ids=image_ids, channels=channels)
    store = open_store(tmp_path / "store", root=root, image_ids=image_ids, channels=channels)
    folder = FolderReader(root / "train_images", channels)
    for crop in (None, (24, 40, 20)):
        stored, decoded = (
            make_dataset(root, labels, source=source, crop=crop, augmentation=augmentation)
            for source in (store, folder)
        )
        keys = [(1, index) for index in range(len(decoded))]
        for found, expected in zip(stored.make(keys), decoded.make(keys), strict=True):
            assert found is expected is None or torch.equal(found, expected)


@pytest.mark.parametrize("augmentation", ["none", "flips", "light"])
def test_a_batch_is_its_samples(root, labels, augmentation):
    """Each one is what the augmentation makes of its window, whatever lies beside it."""
    dataset = make_dataset(root, labels, crop=(24, 40, 20), augmentation=augmentation)
    windows = list_samples(labels, list(labels.sizes), crop=(24, 40, 20))
    keys = [(2, index) for index in (7, 3, 3, 0)]

    images, masks, valid = dataset.make(keys)

    assert valid is None
    for key, image_chw, mask_chw in zip(keys, images.numpy(), masks.numpy(), strict=True):
        image_id, box = windows[key[1]]
        strip_hwc = read_image(root / "train_images" / image_id, channels=1)
        rows, columns = (
            slice(box.top, box.top + box.height),
            slice(box.left, box.left + box.width),
        )
        expected_image, expected_mask = find_augmentation(augmentation)(
            strip_hwc[rows, columns].transpose(2, 0, 1).copy(),
            labels.draw(image_id)[:, rows, columns].astype(np.uint8),
            np.random.default_rng([3, *key]),
        )
        np.testing.assert_array_equal(image_chw, expected_image)
        np.testing.assert_array_equal(mask_chw, expected_mask)


def test_a_batch_that_is_held_is_never_written_again(root, labels):
    """Memory goes round, but only once nothing holds a part of it."""
    dataset = make_dataset(root, labels, augmentation="light")
    held = [dataset.make([(1, k), (1, k + 1)]) for k in range(4)]
    copies = [(images.clone(), masks.clone()) for images, masks, _ in held]
    parts = [masks[1:, 0] for _, masks, _ in held]
    arrays = [images.numpy() for images, _, _ in held]
    del held

    for epoch in range(2, 6):
        dataset.make([(epoch, 0), (epoch, 1)])

    for part, array, (images, masks) in zip(parts, arrays, copies, strict=True):
        assert torch.equal(part, masks[1:, 0])
        np.testing.assert_array_equal(array, images)


def test_a_sample_is_drawn_anew_in_each_epoch_and_with_each_seed(root, labels):
    """The same key gives the same sample whatever was drawn before it."""
    dataset = make_dataset(root, labels, augmentation="light")
    first = sample(dataset, (1, 0))[0]

    assert torch.equal(sample(dataset, (1, 0))[0], first)
    assert any(not torch.equal(sample(dataset, (epoch, 0))[0], first) for epoch in (2, 3))
    other = make_dataset(root, labels, augmentation="light", seed=4)
    assert not torch.equal(sample(other, (1, 0))[0], first)


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


@pytest.mark.parametrize("begin", [0, 2, 3, 5, 6, 8])
def test_an_epoch_of_three_passes_visits_every_sample_three_times(begin):
    """In the orders that three epochs of one pass have, wherever it begins."""
    single, order = EpochBatches(10, 4, seed=1), EpochBatches(10, 4, seed=1, passes=3)
    expected = []
    for epoch in (4, 5, 6):
        single.epoch = epoch
        expected += list(single)
    order.epoch, order.begin = 2, begin

    assert len(order) == 9
    assert list(order) == expected[begin:]


@pytest.mark.parametrize(
    ("samples", "size", "expected"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (2, 1, [1, 1])],
)
def test_a_last_single_sample_sits_out(samples, size, expected):
    """Batch normalisation has no variance over one; another one sits out in the next epoch."""
    batches = list(EpochBatches(samples, size, seed=0))

    assert [len(batch) for batch in batches] == expected
    assert len(EpochBatches(samples, size, seed=0)) == len(expected)


def pad(array_chw, height, width):
    """Repeat the last row and column."""
    _, high, wide = array_chw.shape
    return np.pad(array_chw, ((0, 0), (0, height - high), (0, width - wide)), mode="edge")


CROPPER = """
def crop(image, mask):
    side = 5 + int(image[0, 0, 0]) % 7
    return {"image": image[:side, :9], "mask": mask[:side, :9]}
"""


@pytest.mark.parametrize("augmentation", ["none", "flips", "light", "of_ones_own"])
def test_samples_of_many_sizes_repeat_their_edges(make_strips, tmp_path, monkeypatch, augmentation):
    """Black padding would look like the end of a strip; `valid` keeps it out of the loss."""
    for number, (height, width) in enumerate([(32, 96), (20, 50), (40, 20)]):
        part = tmp_path / str(number)
        make_strips(part, num_train=2, height=height, width=width)
        for path in (part / "train_images").iterdir():
            (tmp_path / "train_images").mkdir(exist_ok=True)
            path.rename(tmp_path / "train_images" / f"{number}_{path.name}")
    (tmp_path / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n0_train_001.jpg,2,700 90\n")
    if augmentation == "of_ones_own":
        (tmp_path / "cropper.py").write_text(CROPPER)
        monkeypatch.syspath_prepend(tmp_path)
        augmentation = "cropper:crop"
    labels = load_labels(DataConfig(root=tmp_path, num_classes=2, img_height=None, img_width=None))
    dataset = make_dataset(tmp_path, labels, augmentation=augmentation)
    keys = [(1, index) for index in range(6)]

    images, masks, valid = dataset.make(keys)

    alone = [sample(dataset, key) for key in keys]
    height, width = (max(image.shape[axis] for image, _ in alone) for axis in (1, 2))
    assert valid.dtype == torch.bool
    for number, (image, mask) in enumerate(alone):
        np.testing.assert_array_equal(images[number], pad(image, height, width))
        np.testing.assert_array_equal(masks[number], pad(mask, height, width))
        flags = np.zeros((1, height, width), dtype=bool)
        flags[:, : image.shape[1], : image.shape[2]] = True
        np.testing.assert_array_equal(valid[number], flags)


def test_crops_with_a_defect_are_moved_around_it_and_others_stay(root, labels):
    """Any place of the strip may come, always within it; pixels and mask go together."""
    samples = list_samples(labels, list(labels.sizes), crop=(16, 24, 16))
    dataset = SampleDataset(
        labels,
        samples,
        FolderReader(root / "train_images", 1),
        augmentation=find_augmentation("none"),
        seed=3,
        centre_defects=1.0,
    )

    places = set()
    for index, (image_id, box) in enumerate(samples):
        shows = labels.draw(image_id, box).any()
        image_hwc = read_image(root / "train_images" / image_id, channels=1)
        for epoch in range(3):
            images, masks, _ = dataset[[(epoch, index)]]
            found = find_window(image_hwc, images[0, 0].numpy())
            assert shows == masks.any()
            np.testing.assert_array_equal(
                masks[0], labels.draw(image_id, Box(*found, box.height, box.width))
            )
            assert shows or found == (box.top, box.left)
            places |= {found[1] % 16} if shows else set()
    assert len(places) > 5
    np.testing.assert_array_equal(images, dataset[[(2, len(samples) - 1)]][0])


def find_window(image_hwc, window_hw):
    """Top and left of a window, found by its pixels."""
    height, width = window_hw.shape
    views = np.lib.stride_tricks.sliding_window_view(image_hwc[..., 0], (height, width))
    ((top, left),) = np.argwhere((views == window_hw).all(axis=(2, 3)))
    return int(top), int(left)


def test_balanced_batches_follow_from_seed_and_epoch():
    """As many samples as there are, the same in every run."""
    chances = np.array([0.5, 0.5, 0.0, 0.0])
    batches = EpochBatches(4, 2, seed=3, chances=chances)
    again = EpochBatches(4, 2, seed=3, chances=chances)

    drawn = [key for batch in batches for key in batch]

    assert drawn == [key for batch in again for key in batch]
    assert sorted(index for _, index in drawn) == [0, 0, 1, 1]


@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=30).filter(lambda w: sum(w) > 0),
    seed=st.integers(0, 2**32),
)
def test_a_sample_is_drawn_as_often_as_its_chance_says(weights, seed):
    """Its share of the epoch, rounded up or down."""
    chances = np.array(weights) / np.sum(weights)
    batches = EpochBatches(len(weights), 1, seed=seed, chances=chances)

    times = np.bincount([batch[0][1] for batch in batches], minlength=len(weights))

    assert (np.abs(times - len(weights) * chances) < 1 + 1e-9).all()
    assert (times[chances == 0] == 0).all()


def test_rounding_up_or_down_evens_out():
    """Over many epochs a chance of three in ten is three in ten, whatever stands beside it."""
    chances = np.array([0.3, 0.05, 0.2, 0.45])
    batches = EpochBatches(4, 4, seed=1, chances=chances)
    times = np.zeros(4)
    for batches.epoch in range(2000):
        times += np.bincount([index for _, index in next(iter(batches))], minlength=4)

    # Rounding varies by half a draw an epoch at most: 0.5 / sqrt(2000) is 0.011.
    np.testing.assert_allclose(times / 2000, 4 * chances, atol=0.05)
