"""From images to probabilities: the only path, for validation, OOF, prediction and serving.

All images of a batch have the same size; `batches` groups neighbours that do. A few threads decode
images ahead of the network, and only a few wait at a time, so memory stays flat.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelseg.config.config import Config
from steelseg.data.crops import crop_boxes
from steelseg.inference.prefetch import prefetch
from steelseg.models.classifier import sigmoid
from steelseg.models.device import autocast, half_type
from steelseg.models.model import Output, split_output

Batch = tuple[tuple[str, ...], NDArray[np.uint8]]
"""image_ids and images_nhwc, shape (N, H, W, channels)."""

Network = Callable[[Tensor], Output]
"""From images_nchw (uint8, any size) to logits_nchw (float32, same size), and logits_nc of
presence if it has a presence head: a `StripNet`, or an exported network."""

# Threads that decode, and images that they decode ahead of the network.
_THREADS, _AHEAD = 2, 8


@dataclass(frozen=True)
class ForwardPlan:
    """How a batch goes through a network."""

    tta: str = "none"
    """none, hflip, vflip or both."""

    crop: tuple[int, int, int] | None = None
    """Height, width and stride of crops; None predicts whole images."""

    amp: bool = False
    """Mixed precision, where the machine supports it."""


class Answer(NamedTuple):
    """Probabilities of a batch, float32."""

    probs_nchw: Tensor
    """Probability of each class at each pixel."""

    presence_nc: Tensor
    """Probability of each class on the whole image; shape (N, 0) without a presence head."""


def predict_batch(
    network: Network, images_nhwc: NDArray[np.uint8], plan: ForwardPlan, device: torch.device
) -> Answer:
    """Predict one batch with one network.

    Args:
        network: On `device`, in eval mode.
        images_nhwc: Pixels, shape (N, H, W, channels), uint8.
        plan: Flips, crops and precision.
        device: Where the network is.

    Returns:
        Probabilities on `device`. Presence is the maximum over the crops and the mean over the
        flips.
    """
    images_nchw = torch.from_numpy(images_nhwc).to(device).permute(0, 3, 1, 2)

    presence: list[Tensor] = []

    def probs(part_nchw: Tensor) -> Tensor:
        logits_nchw, presence_nc = split_output(network(part_nchw))
        if presence_nc is not None:
            presence.append(presence_nc.sigmoid())
        return sigmoid(logits_nchw)

    stitched = partial(predict_crops, probs, crop=plan.crop) if plan.crop else probs
    half = half_type(device) if plan.amp else None
    with torch.inference_mode(), autocast(device, half):
        probs_nchw = average_flips(stitched, images_nchw, tta=plan.tta)
        if not presence:
            return Answer(probs_nchw, probs_nchw.new_zeros(len(probs_nchw), 0))
        # Flip by flip, and crop by crop within each.
        by_flip = torch.stack(presence).chunk(len(FLIP_AXES[plan.tta]))
        return Answer(probs_nchw, torch.stack([p.amax(dim=0) for p in by_flip]).mean(dim=0))


def images_at_once(batch_size: int, device: torch.device, *, side_by_side: bool = False) -> int:
    """Return the batch size for a network.

    On a CPU, torch predicts images one by one: that is as fast, memory stays flat, and the bits of
    a strip depend on no other strip.

    Args:
        batch_size: The batch size in the settings.
        device: Where the network is.
        side_by_side: Whether the network computes the images of a batch in parallel by itself.
    """
    return batch_size if side_by_side or device.type != "cpu" else 1


def batches(
    image_ids: Iterable[str], read: Callable[[str], NDArray[np.uint8]], *, batch_size: int
) -> Iterator[Batch]:
    """Read images ahead and group neighbours of the same size.

    Args:
        image_ids: Images, in the order of the batches.
        read: From image_id to image_hwc; called in threads.
        batch_size: Maximum number of images in a batch.
    """

    def read_one(image_id: str) -> tuple[str, NDArray[np.uint8]]:
        return image_id, read(image_id)

    images = prefetch(read_one, image_ids, threads=_THREADS, ahead=_AHEAD)
    return stack(images, batch_size=batch_size)


def stack(images: Iterable[tuple[str, NDArray[np.uint8]]], *, batch_size: int) -> Iterator[Batch]:
    """Group neighbouring images of the same size into batches.

    Args:
        images: image_id and image_hwc of each.
        batch_size: Maximum number of images in a batch.
    """
    waiting: list[tuple[str, NDArray[np.uint8]]] = []
    for image_id, image_hwc in images:
        if waiting and (len(waiting) == batch_size or waiting[0][1].shape != image_hwc.shape):
            yield _stack(waiting)
            waiting = []
        waiting.append((image_id, image_hwc))
    if waiting:
        yield _stack(waiting)


def _stack(images: Sequence[tuple[str, NDArray[np.uint8]]]) -> Batch:
    """Make a batch of images of the same size."""
    image_ids, arrays = zip(*images, strict=True)
    return image_ids, np.stack(arrays)


def forward_plan(config: Config) -> ForwardPlan:
    """Return the plan that settings ask for, for OOF and prediction."""
    inference = config.inference
    crop = config.data.crop if inference.crops else None
    return ForwardPlan(tta=inference.tta, crop=crop, amp=inference.amp)


def predict_crops(
    predict: Callable[[Tensor], Tensor], images_nchw: Tensor, *, crop: tuple[int, int, int]
) -> Tensor:
    """Predict overlapping crops and average them where they overlap.

    Args:
        predict: From crops to probabilities, same height and width.
        images_nchw: Pixels, shape (N, channels, H, W).
        crop: Height, width and stride of the crops, in pixels.

    Returns:
        Probabilities, shape (N, C, H, W).
    """
    height, width = images_nchw.shape[-2:]
    boxes = crop_boxes(height, width, crop_height=crop[0], crop_width=crop[1], crop_stride=crop[2])
    total = hits = None
    for top, left, high, wide in boxes:
        window = (..., slice(top, top + high), slice(left, left + wide))
        probs = predict(images_nchw[window])
        if total is None or hits is None:
            total = probs.new_zeros(*probs.shape[:2], height, width)
            hits = probs.new_zeros(1, 1, height, width)
        total[window] += probs
        hits[window] += 1
    assert total is not None
    assert hits is not None
    return total / hits


# Axes of an NCHW tensor that each flip turns; the first leaves the image as it is.
FLIP_AXES: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "hflip": ((), (3,)),
    "vflip": ((), (2,)),
    "both": ((), (3,), (2,), (2, 3)),
}


def average_flips(predict: Callable[[Tensor], Tensor], images_nchw: Tensor, *, tta: str) -> Tensor:
    """Predict every flip of an image, flip the results back and average them.

    Args:
        predict: From images to probabilities, same height and width.
        images_nchw: Pixels, shape (N, channels, H, W).
        tta: A key of `FLIP_AXES`.

    Returns:
        Probabilities, shape (N, C, H, W).
    """
    flips = FLIP_AXES[tta]
    total = predict(images_nchw)
    if len(flips) == 1:
        # Unchanged: a division would give a classifier's expanded cell memory for every pixel.
        return total
    for axes in flips[1:]:
        total = total + torch.flip(predict(torch.flip(images_nchw, axes)), axes)
    return total / len(flips)
