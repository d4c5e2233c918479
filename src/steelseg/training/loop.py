"""One pass over the training samples, one over the validation strips."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from steelseg.data.formats.annotations import Labels
from steelseg.errors import TrainingError
from steelseg.inference.forward import Batch, ForwardPlan, predict_batch
from steelseg.models.device import autocast
from steelseg.models.losses import Loss, presence_loss
from steelseg.models.model import split_output
from steelseg.scoring.best_threshold_dice import BestThresholdDice
from steelseg.scoring.gate import Gate, open_gate
from steelseg.scoring.metrics import Scores, count_pixels, score
from steelseg.scoring.postprocess import to_uint8
from steelseg.scoring.presence import PresenceTally, shown
from steelseg.training.averaging import Average
from steelseg.training.optimizers import Schedule

Binarize = Callable[[NDArray[np.float32]], NDArray[np.bool_]]
"""From probs_chw to mask_chw, as the settings say."""


@dataclass
class Learner:
    """Everything that changes while a network learns."""

    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    device: torch.device
    half: torch.dtype | None = None
    """Half precision of the network; None is float32."""
    average: Average | None = None
    """The mean of its weights, where one is kept."""

    @property
    def judged(self) -> nn.Module:
        """What is validated and kept: the mean of weights once there is one, else the network."""
        return self.average.model if self.average and self.average.count else self.model

    @property
    def precision(self) -> str:
        """Device and precision, such as "cpu bfloat16"."""
        return f"{self.device.type} {str(self.half or torch.float32).removeprefix('torch.')}"


@dataclass
class Position:
    """How far an epoch is; always after a whole optimizer step."""

    step: int = 0
    """Batches done."""

    loss_sum: float = 0.0
    """Sum of their losses over the samples."""

    samples: int = 0
    """Samples seen."""


def make_scaler(device: torch.device, half: torch.dtype | None) -> torch.amp.GradScaler:
    """Loss scaling, which only float16 needs."""
    return torch.amp.GradScaler(device.type, enabled=half == torch.float16)


def train_epoch(
    learner: Learner,
    loader: Iterable[tuple[Tensor, Tensor, Tensor | None]],
    loss: Loss,
    *,
    num_batches: int,
    accumulate: int,
    gradient_clip: float,
    presence_weight: float = 0.0,
    set_mode: Callable[[nn.Module], object] = nn.Module.train,
    position: Position,
    before_batch: Callable[[int], None],
    after_step: Callable[[], None],
) -> float:
    """Train on every batch once.

    Args:
        learner: Network and optimizer, changed in place.
        loader: Gives images_nchw, masks_nchw and valid_nchw of the batches behind `position`.
        loss: What to minimise.
        num_batches: How many batches the loader gives.
        accumulate: Batches an optimizer step.
        gradient_clip: Largest gradient norm; 0 does not clip.
        presence_weight: Weight of a presence head's loss beside `loss`.
        set_mode: Puts the network into training mode, all but what is frozen.
        position: Where to begin; moved on after each optimizer step.
        before_batch: Told the number of each batch, from 1; it seeds.
        after_step: Called after each optimizer step, where training can be saved and stopped.

    Returns:
        Mean loss over the samples of the whole epoch.

    Raises:
        TrainingError: if a loss or a gradient is not finite; it names the step.
    """
    set_mode(learner.model)
    total, samples = position.loss_sum, position.samples
    for step, (images, masks, valid) in enumerate(loader, start=position.step + 1):
        before_batch(step)
        # The last optimizer step may have fewer batches to average over.
        first_of_group = (step - 1) // accumulate * accumulate
        group = min(accumulate, num_batches - first_of_group)
        with autocast(learner.device, learner.half):
            output = learner.model(images.to(learner.device, non_blocking=True))
        logits, presence = split_output(output)
        masks = masks.to(learner.device)
        value = loss(logits, masks, _move(valid, learner.device))
        if presence is not None:
            value = value + presence_weight * presence_loss(presence, masks)
        amount = float(value.detach())
        if not math.isfinite(amount):
            raise TrainingError(f"step {step} of {num_batches}: the loss is {amount}")
        learner.scaler.scale(value / group).backward()  # type: ignore[no-untyped-call]
        total += amount * len(images)
        samples += len(images)
        if step % accumulate == 0 or step == num_batches:
            _optimize(learner, gradient_clip, step)
            position.step, position.loss_sum, position.samples = step, total, samples
            after_step()
    return total / samples


def _move(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """Move a tensor that may be absent."""
    return None if tensor is None else tensor.to(device)


def _optimize(learner: Learner, gradient_clip: float, step: int) -> None:
    """Take one optimizer step with the gradients at hand."""
    learner.scaler.unscale_(learner.optimizer)
    norm = nn.utils.clip_grad_norm_(learner.model.parameters(), gradient_clip or math.inf)
    # The scaler of float16 expects overflows and skips their steps itself.
    if not learner.scaler.is_enabled() and not bool(norm.isfinite()):
        raise TrainingError(f"step {step}: the gradient is {float(norm)}")
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.optimizer.zero_grad(set_to_none=True)
    learner.schedule.after_step()


def validate(
    model: nn.Module,
    batches: Iterable[Batch],
    labels: Labels,
    loss: Loss,
    *,
    plan: ForwardPlan,
    gate: Gate = open_gate,
    binarize: Binarize,
    device: torch.device,
    after_batch: Callable[[], None] = lambda: None,
    by_presence: bool = False,
    swept: BestThresholdDice | None = None,
    tally: PresenceTally | None = None,
) -> tuple[float, Scores]:
    """Predict strips as `steelseg predict` does and score them.

    Args:
        model: The network, on `device`.
        batches: image_ids and images_nhwc of the strips.
        labels: Their masks.
        loss: For the validation loss.
        plan: How strips go through the network.
        gate: What presence does to probabilities before they become masks.
        binarize: From probabilities to masks.
        device: Where the network is.
        after_batch: Called after each batch, where it can be stopped.
        by_presence: Whether the network tells presence alone, which is scored as one pixel.
        swept: Also counts the strips, if given.
        tally: Also counts their presence, if given.

    Returns:
        Mean loss over the strips, and the scores.

    Raises:
        TrainingError: if the network puts out something that is not a number.
    """
    model.eval()
    losses: list[float] = []
    counts: list[NDArray[np.int64]] = []
    for image_ids, images_nhwc in batches:
        probs, presence = predict_batch(model, images_nhwc, plan, device)
        masks_nchw = np.stack([labels.draw(image_id) for image_id in image_ids])
        if tally is not None:
            for presence_c, truth_chw in zip(presence.cpu().numpy(), masks_nchw, strict=True):
                tally.add(presence_c, truth_chw)
        if by_presence:
            probs, masks_nchw = presence[:, :, None, None], shown(masks_nchw)
        losses += [_strip_loss(loss, probs, masks_nchw)] * len(image_ids)
        answers = zip(probs.cpu().numpy(), presence.cpu().numpy(), strict=True)
        for truth_chw, answer in zip(masks_nchw, answers, strict=True):
            probs_chw = gate(*answer)
            counts.append(count_pixels(binarize(probs_chw), truth_chw))
            if swept is not None:
                swept.add(to_uint8(probs_chw), truth_chw)
        after_batch()
    mean = float(np.mean(losses))
    if not math.isfinite(mean):
        raise TrainingError(f"the validation loss is {mean}")
    return mean, score(np.stack(counts))


def _strip_loss(loss: Loss, probs_nchw: Tensor, masks_nchw: NDArray[np.bool_]) -> float:
    """Loss of averaged probabilities: views and crops are averaged after the sigmoid."""
    logits = torch.logit(probs_nchw, eps=1e-6)
    masks = torch.from_numpy(masks_nchw).to(probs_nchw.device)
    return float(loss(logits, masks, None))


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors as INDEX.NAME."""
    slots: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, slot in slots.items()
        for name, value in slot.items()
        if value is not None
    }


def restore_optimizer(
    optimizer: Optimizer, tensors: Iterable[tuple[str, Tensor]], groups: Sequence[dict[str, Any]]
) -> None:
    """Put back what `optimizer_tensors` and the parameter groups held.

    Raises:
        ValueError: if they are of another network.
    """
    slots: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors:
        index, _, name = key.partition(".")
        slots.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": list(groups)})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{name} of shape {tuple(value.shape)} is of another network")
