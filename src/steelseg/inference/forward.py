"""From images to probabilities: the one way, for validation, OOF, prediction and serving.

Images of one batch have one size; `batches` groups neighbours that do. Batches are decoded
ahead of the network by a few threads, and never more than a few wait, so memory stays flat.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelseg.config.config import Config
from steelseg.data.crops import crop_boxes
from steelseg.models.classifier import sigmoid
from steelseg.models.device import autocast, half_type
from steelseg.models.model import Output, split_output

Batch = tuple[tuple[str, ...], NDArray[np.uint8]]
"""image_ids and images_nhwc, shape (N, H, W, channels)."""

Network = Callable[[Tensor], Output]
"""From images_nchw (uint8, any size) to logits_nchw (float32, same size), and logits_nc of
presence where it has a presence head: a `StripNet`, or what stands for one."""

_AHEAD = 8


@dataclass(frozen=True)
class ForwardPlan:
    """How a batch goes through a network."""

    tta: str = "none"
    """none, hflip, vflip or both."""

    crop: tuple[int, int, int] | None = None
    """Height, width and stride of crops; None predicts whole images."""

    amp: bool = False
    """Mixed precision where the machine has it."""


class Answer(NamedTuple):
    """What networks say of a batch, float32."""

    probs_nchw: Tensor
    """Of each pixel."""

    presence_nc: Tensor
    """Of each class on the whole image; (N, 0) of a network without a presence head."""


def predict_batch(
    network: Network, images_nhwc: NDArray[np.uint8], plan: ForwardPlan, device: torch.device
) -> Answer:
    """Send one batch through one network.

    Args:
        network: On `device`, in eval mode.
        images_nhwc: Pixels, shape (N, H, W, channels), uint8.
        plan: Flips, crops and precision.
        device: Where the network is.

    Returns:
        Probabilities on `device`. A class is on an image as surely as on any of its crops, on the
        mean of its views.
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
        probs_nchw = average_views(stitched, images_nchw, tta=plan.tta)
        if not presence:
            return Answer(probs_nchw, probs_nchw.new_zeros(len(probs_nchw), 0))
        # View after view, each crop by crop.
        by_view = torch.stack(presence).chunk(len(VIEWS[plan.tta]))
        return Answer(probs_nchw, torch.stack([p.amax(dim=0) for p in by_view]).mean(dim=0))


def images_at_once(batch_size: int, device: torch.device, *, side_by_side: bool = False) -> int:
    """How many images to hand to a network.

    Torch on a processor gets them one by one: that is as fast, memory stays flat, and the bits of
    a strip hang on no other.

    Args:
        batch_size: What the settings say.
        device: Where the network is.
        side_by_side: Whether the network computes images side by side by itself.
    """
    return batch_size if side_by_side or device.type != "cpu" else 1


def batches(
    image_ids: Iterable[str], read: Callable[[str], NDArray[np.uint8]], *, batch_size: int
) -> Iterator[Batch]:
    """Read images ahead and group neighbours of one size.

    Args:
        image_ids: Images, in the order to give them.
        read: From image_id to image_hwc.
        batch_size: Most images a batch.
    """
    return stack(_read_ahead(image_ids, read), batch_size=batch_size)


def stack(images: Iterable[tuple[str, NDArray[np.uint8]]], *, batch_size: int) -> Iterator[Batch]:
    """Make batches of neighbours of one size.

    Args:
        images: image_id and image_hwc of each.
        batch_size: Most images a batch.
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
    """Make a batch of images of one size."""
    image_ids, arrays = zip(*images, strict=True)
    return image_ids, np.stack(arrays)


def _read_ahead(
    image_ids: Iterable[str], read: Callable[[str], NDArray[np.uint8]]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Read a few images ahead in threads; order is kept."""
    futures: deque[tuple[str, Future[NDArray[np.uint8]]]] = deque()
    with ThreadPoolExecutor(2) as pool:
        for image_id in image_ids:
            futures.append((image_id, pool.submit(read, image_id)))
            if len(futures) > _AHEAD:
                first, future = futures.popleft()
                yield first, future.result()
        for image_id, future in futures:
            yield image_id, future.result()


def forward_plan(config: Config) -> ForwardPlan:
    """Flips, crops and precision of OOF and of prediction."""
    inference = config.inference
    crop = config.data.crop if inference.crops else None
    return ForwardPlan(tta=inference.tta, crop=crop, amp=inference.amp)


def predict_crops(
    predict: Callable[[Tensor], Tensor], images_nchw: Tensor, *, crop: tuple[int, int, int]
) -> Tensor:
    """Predict overlapping crops and average where they overlap.

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


# Axes to flip of an NCHW tensor, for each view.
VIEWS: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "hflip": ((), (3,)),
    "vflip": ((), (2,)),
    "both": ((), (3,), (2,), (2, 3)),
}


def average_views(predict: Callable[[Tensor], Tensor], images_nchw: Tensor, *, tta: str) -> Tensor:
    """Predict every view, turn it back and take the mean.

    Args:
        predict: From images to probabilities, same height and width.
        images_nchw: Pixels, shape (N, channels, H, W).
        tta: A key of `VIEWS`.

    Returns:
        Probabilities, shape (N, C, H, W).
    """
    views = VIEWS[tta]
    total = predict(images_nchw)
    if len(views) == 1:
        # As it is: what is spread from one cell would take memory from here on.
        return total
    for axes in views[1:]:
        total = total + torch.flip(predict(torch.flip(images_nchw, axes)), axes)
    return total / len(views)
