"""Held-out strips of a run predicted under every set of views, for choosing among the sets.

The four views of a strip (itself, flipped sideways, upside down, both) go through the network once;
each set of them is a mean of some. Every set is kept like out-of-fold predictions, and has the bits
that `steelseg oof` with this inference.tta would keep.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from steelseg.data.formats.images import read_image
from steelseg.inference.forward import (
    FLIP_AXES,
    Answer,
    ForwardPlan,
    Network,
    batches,
    images_at_once,
    predict_batch,
)
from steelseg.inference.members import Member
from steelseg.models.device import pick_device
from steelseg.progress import progress as show
from steelseg.run.oof_store import new_store, views_in_words
from steelseg.scoring.postprocess import to_uint8

_Axes = tuple[int, ...]


def predict_view_sets(
    member: Member,
    plan: ForwardPlan,
    paths: dict[str, Path],
    *,
    images: Path,
    image_ids: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    batch_size: int,
    name: str,
) -> None:
    """Predict strips, and keep each set of views.

    Args:
        member: The network, which did not train on these strips.
        plan: Its crops and precision; the flips are those of each set.
        paths: Where each set is kept, by its name in `forward.FLIP_AXES`.
        images: Folder of the strips.
        image_ids: The strips.
        sizes: Height and width of each.
        batch_size: Strips that a GPU takes at once.
        name: What progress calls it.
    """
    device = pick_device()
    network = member.load(device)
    data = member.config.data
    strips = batches(
        show(image_ids, len(image_ids), name),
        lambda image_id: read_image(images / image_id, channels=data.channels),
        batch_size=images_at_once(batch_size, device),
    )
    with ExitStack() as stores:
        arrays = {
            tta: stores.enter_context(
                new_store(
                    path,
                    image_ids=image_ids,
                    sizes=sizes,
                    num_classes=data.num_classes,
                    model_sha256=member.sha256,
                    views=views_in_words(tta, plan.crop),
                )
            )
            for tta, path in paths.items()
        }
        presence: dict[str, list[list[float]]] = {tta: [] for tta in paths}
        place = 0
        for _, images_nhwc in strips:
            views = _views(network, images_nhwc, plan, device, sets=list(paths))
            height, width = images_nhwc.shape[1:3]
            for tta, array in arrays.items():
                answer = _mean([views[axes] for axes in FLIP_AXES[tta]])
                for offset, probs_chw in enumerate(answer.probs_nchw.cpu().numpy()):
                    array[place + offset, :, :height, :width] = to_uint8(probs_chw)
                presence[tta] += answer.presence_nc.cpu().tolist()
            place += len(images_nhwc)
        for tta, array in arrays.items():
            if any(presence[tta]):
                array.attrs["presence"] = presence[tta]


def _views(
    network: Network,
    images_nhwc: NDArray[np.uint8],
    plan: ForwardPlan,
    device: torch.device,
    *,
    sets: Sequence[str],
) -> dict[_Axes, Answer]:
    """What the network says of each view that a set needs, turned back; by the axes it flips."""
    single = replace(plan, tta="none")
    answers = {}
    for axes in {axes: None for tta in sets for axes in FLIP_AXES[tta]}:
        # Axes are of NCHW tensors, images have their channels last.
        flipped_nhwc = np.flip(images_nhwc, tuple(axis - 1 for axis in axes))
        answer = predict_batch(network, np.ascontiguousarray(flipped_nhwc), single, device)
        answers[axes] = Answer(torch.flip(answer.probs_nchw, axes), answer.presence_nc)
    return answers


def _mean(answers: Sequence[Answer]) -> Answer:
    """The mean of some views, added up in the order of `average_views`."""
    total = answers[0].probs_nchw
    for answer in answers[1:]:
        total = total + answer.probs_nchw
    presence_nc = torch.stack([answer.presence_nc for answer in answers]).mean(dim=0)
    return Answer(total / len(answers), presence_nc)
