"""The state that training changes, built from the settings: network, optimizer, schedule.

The random numbers of each batch are seeded by (seed, fold, epoch, batch), so a resumed fold takes
the same steps as an uninterrupted one; the initial weights use epoch 0, batch 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from steelseg.config.config import Config
from steelseg.models.build import build_network
from steelseg.models.device import half_type, pick_device
from steelseg.models.libc import keep_freed_memory
from steelseg.models.losses import Loss, build_loss, classifier_loss
from steelseg.models.model import StripNet
from steelseg.training.averaging import WeightAverage
from steelseg.training.optimizers import (
    Schedule,
    build_optimizer,
    encoder_of,
    parameter_groups,
)


@dataclass
class Learner:
    """Everything that changes while a network learns."""

    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    device: torch.device
    half: torch.dtype | None = None
    """Half precision of mixed-precision training; None trains in float32."""

    average: WeightAverage | None = None
    """Averaged weights, if the settings ask for them."""

    @property
    def eval_model(self) -> nn.Module:
        """The network that is validated and kept: with averaged weights once there are any."""
        return self.average.model if self.average and self.average.count else self.model

    @property
    def precision(self) -> str:
        """Device and precision, such as "cpu bfloat16"."""
        return f"{self.device.type} {str(self.half or torch.float32).removeprefix('torch.')}"


def seed_batch(seed: int, fold: int, epoch: int, step: int) -> None:
    """Seed torch's random numbers, such as dropout, for one batch."""
    torch.manual_seed(int(np.random.SeedSequence([seed, fold, epoch, step]).generate_state(1)[0]))


def build_seeded_network(config: Config, fold: int, *, is_new: bool) -> StripNet:
    """Build the network of a fold; the same seed and fold give the same initial weights.

    Args:
        config: The settings.
        fold: Number of the fold.
        is_new: False leaves out the pretrained encoder weights, for a network whose weights come
            from a checkpoint.
    """
    seed_batch(config.train.seed, fold, 0, 0)
    return build_network(config, is_new=is_new and config.model.init_from is None)


def build_learner(
    config: Config, model: nn.Module, *, num_batches: int, resumed_precision: str = ""
) -> Learner:
    """Put a network on the best device and add its optimizer, schedule and averaged weights.

    Args:
        config: The settings.
        model: A `StripNet`, moved in place.
        num_batches: Batches per epoch.
        resumed_precision: `Learner.precision` of the checkpoint that training resumes from.
    """
    train, device = config.train, pick_device()
    if device.type == "cpu":
        keep_freed_memory()
    model = model.to(device)
    average = WeightAverage(model) if train.ema_decay else None
    if train.compile:
        # In place, so that the names of the weights stay; CUDA graphs save launch overhead.
        model.compile(mode="reduce-overhead" if device.type == "cuda" else "default")
    optimizer = build_optimizer(
        parameter_groups(model, learning_rate=train.learning_rate, encoder_rate=train.encoder_rate),
        name=train.optimizer,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        fused=device.type == "cuda",
    )
    steps_per_epoch = -(-num_batches // train.accumulate)
    schedule = Schedule(
        optimizer,
        name=train.scheduler,
        steps=train.epochs * steps_per_epoch,
        patience=train.patience,
    )
    half = _half_type(device, resumed_precision) if train.amp else None
    return Learner(model, optimizer, schedule, make_scaler(device, half), device, half, average)


def _half_type(device: torch.device, resumed_precision: str) -> torch.dtype | None:
    """Choose the half precision: that of the checkpoint if it is from the same kind of device."""
    device_type, _, name = resumed_precision.partition(" ")
    if device_type != device.type:
        return half_type(device)
    return None if name == "float32" else getattr(torch, name)


def make_scaler(device: torch.device, half: torch.dtype | None) -> torch.amp.GradScaler:
    """Make the loss scaler, which is active for float16 only."""
    return torch.amp.GradScaler(device.type, enabled=half == torch.float16)


def build_losses(config: Config) -> tuple[Loss, Loss]:
    """Build the loss and the later loss, which is the same one unless train.later_loss is set."""
    train = config.train
    if config.model.is_classifier:
        return (classifier_loss(train.presence_weight),) * 2
    texts = train.loss, train.later_loss or train.loss
    first, later = (build_loss(text, pos_weight=config.pos_weight) for text in texts)
    return first, later


def set_training_mode(model: nn.Module, *, freeze_batch_norm: bool) -> None:
    """Put a network into training mode.

    Args:
        model: A `StripNet`.
        freeze_batch_norm: True leaves the encoder's batch normalization in evaluation mode, so
            that it keeps its statistics.
    """
    model.train()
    if freeze_batch_norm:
        for module in encoder_of(model).modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the tensors of an optimizer's state, by INDEX.NAME."""
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
    """Restore the result of `optimizer_tensors` and the parameter groups.

    Raises:
        ValueError: if they belong to another network.
    """
    slots: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors:
        index, _, name = key.partition(".")
        slots.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": list(groups)})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{name} of shape {tuple(value.shape)} belongs to another network")
