import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from steelseg.errors import DataError
from steelseg.inference.forward import (
    FLIP_AXES,
    ForwardPlan,
    average_flips,
    batches,
    images_at_once,
    predict_batch,
    predict_crops,
)

CPU = torch.device("cpu")


class Logit(nn.Module):
    """A network whose probability is the brightness, of two classes."""

    def forward(self, images_nchw):
        probs = images_nchw.float() / 256 + 1 / 512
        return torch.logit(torch.cat([probs, 1 - probs], dim=1))


def make_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "plan",
    [
        ForwardPlan(),
        ForwardPlan(tta="both"),
        ForwardPlan(crop=(8, 10, 7)),
        ForwardPlan(tta="hflip", crop=(5, 10, 5)),
    ],
)
def test_every_plan_gives_the_probabilities_of_the_pixels(plan):
    """A network that looks at single pixels answers alike, however strips are cut and turned."""
    images_nhwc = make_images(2, 8, 33, 1)

    found = predict_batch(Logit(), images_nhwc, plan, CPU).probs_nchw

    expected = torch.from_numpy(images_nhwc)[..., 0] / 256 + 1 / 512
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, 0], expected)
    torch.testing.assert_close(found[:, 1], 1 - expected)


def test_on_a_processor_torch_gets_strips_one_by_one():
    """Same bits whatever lies beside a strip, memory of one; exports share the work themselves."""
    assert images_at_once(8, CPU) == 1
    assert images_at_once(8, CPU, side_by_side=True) == 8
    assert images_at_once(8, torch.device("cuda")) == 8


def sizes_of(images, batch_size):
    """Group images of these sizes; gives the image_ids of each batch."""
    arrays = {f"{n}": np.full((*size, 1), n, np.uint8) for n, size in enumerate(images)}
    found = list(batches(arrays, arrays.__getitem__, batch_size=batch_size))
    for image_ids, images_nhwc in found:
        for image_id, image_hwc in zip(image_ids, images_nhwc, strict=True):
            np.testing.assert_array_equal(image_hwc, arrays[image_id])
    return [image_ids for image_ids, _ in found]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([(2, 3)] * 5, [("0", "1"), ("2", "3"), ("4",)]),
        ([(2, 3), (3, 2), (3, 2), (2, 3)], [("0",), ("1", "2"), ("3",)]),
        ([(2, 3)], [("0",)]),
        ([], []),
    ],
)
def test_neighbours_of_one_size_share_a_batch(images, expected):
    """The order stays, so that rows of a submission stand as in its sample."""
    assert sizes_of(images, batch_size=2) == expected


def test_the_order_stays_when_reading_takes_its_time():
    """Threads finish in any order."""

    def read(image_id):
        time.sleep(0.01 if int(image_id) % 3 == 0 else 0)
        return np.zeros((1, 1, 1), np.uint8)

    names = [str(n) for n in range(20)]

    found = [name for image_ids, _ in batches(names, read, batch_size=3) for name in image_ids]

    assert found == names


def test_only_a_few_images_are_read_ahead():
    """Memory must not grow with the number of strips."""
    lock = threading.Lock()
    read_ids = []

    def read(image_id):
        with lock:
            read_ids.append(image_id)
        return np.zeros((1, 1, 1), np.uint8)

    source = batches(map(str, range(10_000)), read, batch_size=4)
    for given in range(1, 6):
        next(source)
        with lock:
            assert len(read_ids) <= 4 * given + 10
    source.close()


def test_an_image_that_cannot_be_read_is_named_after_those_before_it():
    """The reader's own error comes out of the thread."""

    def read(image_id):
        if image_id == "3":
            raise DataError("3.jpg: the file is empty.")
        return np.zeros((1, 1, 1), np.uint8)

    source = batches(map(str, range(6)), read, batch_size=1)

    assert [next(source)[0] for _ in range(2)] == [("0",), ("1",)]
    with pytest.raises(DataError, match=r"3.jpg: the file is empty"):
        list(source)


@pytest.mark.parametrize("tta", FLIP_AXES)
def test_flips_change_nothing_if_the_network_treats_every_pixel_alike(tta):
    """Its probabilities, flipped back, are those of the image itself."""
    images = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(0))

    found = average_flips(lambda flipped: flipped**2, images, tta=tta)

    torch.testing.assert_close(found, images**2)


@pytest.mark.parametrize(
    ("tta", "expected"),
    [
        ("none", [[1, 0], [0, 0]]),
        ("hflip", [[0.5, 0.5], [0, 0]]),
        ("vflip", [[0.5, 0], [0.5, 0]]),
        ("both", [[0.25, 0.25], [0.25, 0.25]]),
    ],
)
def test_each_flip_is_flipped_back_before_the_mean(tta, expected):
    """A network that always answers top left; both averages four."""
    answer = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 1, 2, 2)

    found = average_flips(lambda _flipped: answer, torch.zeros(1, 1, 2, 2), tta=tta)

    assert found[0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("size", "crop"),
    [
        ((256, 1600), (256, 512, 256)),
        ((8, 20), (8, 8, 8)),
        ((8, 21), (5, 8, 3)),
        ((4, 6), (8, 8, 8)),
        ((9, 9), (4, 4, 1)),
    ],
)
def test_cutting_and_stitching_changes_nothing(size, crop):
    """Averaging identical overlaps gives a strip back as it was."""
    strips_nchw = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))

    found = predict_crops(lambda crops: crops, strips_nchw, crop=crop)

    torch.testing.assert_close(found, strips_nchw)


def test_where_crops_overlap_their_mean_counts():
    """Crops of four columns at stride 2 on six columns: the middle is seen by both."""
    answers = iter([1.0, 3.0])

    found = predict_crops(
        lambda crops: torch.full_like(crops, next(answers)), torch.zeros(1, 1, 1, 6), crop=(1, 4, 2)
    )

    assert found.flatten().tolist() == [1, 1, 2, 2, 3, 3]


def test_there_may_be_more_classes_than_channels():
    """Grey goes in, a probability of each class comes out."""
    grey = torch.rand(2, 1, 4, 9)

    found = predict_crops(lambda crops: crops.repeat(1, 5, 1, 1), grey, crop=(4, 4, 3))

    torch.testing.assert_close(found, grey.expand(-1, 5, -1, -1))
