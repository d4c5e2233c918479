"""A learning rate of its own for the encoder, and frozen batch normalisation."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def parameter_groups(
    model: nn.Module, *, learning_rate: float, encoder_rate: float
) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
    """The parameters, in two groups if the encoder has a learning rate of its own.

    Args:
        model: A `StripNet`.
        learning_rate: Learning rate of decoder and heads.
        encoder_rate: Factor of the learning rate for the encoder.

    Returns:
        All parameters, or a group for decoder and heads and one for the encoder.
    """
    if encoder_rate == 1:
        return model.parameters()
    inside = list(encoder_of(model).parameters())
    known = {id(parameter) for parameter in inside}
    outside = [p for p in model.parameters() if id(p) not in known]
    return [
        {"params": outside, "lr": learning_rate},
        {"params": inside, "lr": learning_rate * encoder_rate},
    ]


def set_training_mode(model: nn.Module, *, freeze_batch_norm: bool) -> None:
    """Put a network into training mode.

    Args:
        model: A `StripNet`.
        freeze_batch_norm: The encoder's batch normalisation keeps its statistics.
    """
    model.train()
    if freeze_batch_norm:
        for module in encoder_of(model).modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder of a `StripNet`."""
    encoder: nn.Module = model.network.encoder  # type: ignore[union-attr, assignment]
    return encoder
