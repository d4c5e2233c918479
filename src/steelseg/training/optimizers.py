"""Optimizers and learning-rate schedules by their setting names."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler


def build_optimizer(
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]],
    *,
    name: str,
    learning_rate: float,
    weight_decay: float,
    fused: bool = False,
) -> Optimizer:
    """Build an optimizer: adam, adamw, or sgd with Nesterov momentum 0.9.

    Args:
        parameters: Parameters, or groups of them with their own learning rate.
        name: adam, adamw or sgd.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay.
        fused: Update all parameters in one kernel, which is faster on a GPU.
    """
    shared: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay, "fused": fused}
    match name:
        case "adam":
            return torch.optim.Adam(parameters, **shared)
        case "adamw":
            return torch.optim.AdamW(parameters, **shared)
        case _:
            assert name == "sgd", name
            return torch.optim.SGD(parameters, **shared, momentum=0.9, nesterov=True)


def parameter_groups(
    model: nn.Module, *, learning_rate: float, encoder_rate: float
) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
    """Return the parameters, in two groups if the encoder has its own learning rate.

    Args:
        model: A `StripNet`.
        learning_rate: Learning rate of decoder and heads.
        encoder_rate: Factor applied to it for the encoder.

    Returns:
        All parameters, or a group for decoder and heads and one for the encoder.
    """
    if encoder_rate == 1:
        return model.parameters()
    encoder = list(encoder_of(model).parameters())
    ids = {id(parameter) for parameter in encoder}
    others = [p for p in model.parameters() if id(p) not in ids]
    return [
        {"params": others, "lr": learning_rate},
        {"params": encoder, "lr": learning_rate * encoder_rate},
    ]


def encoder_of(model: nn.Module) -> nn.Module:
    """Return the encoder of a `StripNet`."""
    encoder: nn.Module = model.network.encoder  # type: ignore[union-attr, assignment]
    return encoder


class Schedule:
    """A learning rate schedule, updated after every step and every epoch."""

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        name: str,
        steps: int,
        patience: int,
    ) -> None:
        """Build a schedule.

        Args:
            optimizer: Optimizer whose learning rates are set.
            name: reduce_on_plateau, cosine, one_cycle or none.
            steps: Number of optimizer steps of the whole training.
            patience: Epochs without improvement before reduce_on_plateau halves the learning rate.
        """
        self._by_dice: lr_scheduler.ReduceLROnPlateau | None = None
        self._by_step: lr_scheduler.LRScheduler | None = None
        match name:
            case "reduce_on_plateau":
                self._by_dice = lr_scheduler.ReduceLROnPlateau(
                    optimizer, mode="max", factor=0.5, patience=patience
                )
            case "cosine":
                self._by_step = lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
            case "one_cycle":
                # OneCycleLR takes its first step when it is built, so it needs one more in total.
                highest = [group["lr"] for group in optimizer.param_groups]
                self._by_step = lr_scheduler.OneCycleLR(
                    optimizer, max_lr=highest, total_steps=steps + 1, cycle_momentum=False
                )
            case _:
                assert name == "none", name

    def after_step(self) -> None:
        """Update the learning rate after one optimizer step."""
        if self._by_step is not None:
            self._by_step.step()

    def after_epoch(self, dice: float) -> None:
        """Update the learning rate after an epoch whose monitored metric is `dice`."""
        if self._by_dice is not None:
            self._by_dice.step(dice)

    def state(self) -> dict[str, Any]:
        """Return the state for `restore`, as JSON can store it."""
        active = self._by_dice or self._by_step
        return {} if active is None else active.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError: if it belongs to another kind of schedule.
        """
        if state.keys() != self.state().keys():
            raise ValueError("it contains another kind of schedule")
        active = self._by_dice or self._by_step
        if active is not None:
            active.load_state_dict(state)
