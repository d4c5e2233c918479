"""How fast each part of a network learns, down to not at all."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# An encoder's parameters, in the order of its layers, are dealt to so many parts.
_PARTS = 5


def parameter_groups(
    model: nn.Module, *, learning_rate: float, encoder_rate: float, layer_decay: float
) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
    """The parameters, in groups where they learn at several rates.

    Args:
        model: A `StripNet`.
        learning_rate: Of all but the encoder.
        encoder_rate: Factor for the deepest fifth of the encoder.
        layer_decay: Factor from each fifth to the one before it.

    Returns:
        All parameters, or a group for decoder and heads and one for each fifth of the encoder.
    """
    if encoder_rate == layer_decay == 1:
        return model.parameters()
    inside = list(encoder_of(model).parameters())
    known = {id(parameter) for parameter in inside}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if id(p) not in known], "lr": learning_rate}
    ]
    for part in reversed(range(_PARTS)):
        begin, end = (len(inside) * k // _PARTS for k in (part, part + 1))
        rate = learning_rate * encoder_rate * layer_decay ** (_PARTS - 1 - part)
        groups.append({"params": inside[begin:end], "lr": rate})
    return [group for group in groups if group["params"]]


def set_training_mode(model: nn.Module, *, freeze_encoder: bool, freeze_batch_norm: bool) -> None:
    """Put a network into training mode, all but what is frozen.

    Args:
        model: A `StripNet`.
        freeze_encoder: Neither weights nor statistics of the encoder change.
        freeze_batch_norm: The encoder's batch normalisation keeps its statistics.
    """
    model.train()
    if not hasattr(model, "network"):
        return
    encoder = encoder_of(model)
    encoder.requires_grad_(not freeze_encoder)
    for module in encoder.modules():
        if freeze_encoder or (freeze_batch_norm and isinstance(module, _BatchNorm)):
            # Not its children: a module is asked for itself.
            module.training = False


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder of a `StripNet`."""
    encoder: nn.Module = model.network.encoder  # type: ignore[union-attr, assignment]
    return encoder
