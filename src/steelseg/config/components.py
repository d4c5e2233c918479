"""Networks and loss terms that settings name, and where each is defined.

Settings are checked without importing torch, so a table holds the import path of a class or
function, "module:name", and `import_component` imports it once it is used. An entry here makes a
name known everywhere: to the settings, their error messages and docs/configuration.md.
"""

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Architecture:
    """A value of `model.arch`."""

    network: str
    """Import path. It is called with the arguments of segmentation-models-pytorch (encoder_name,
    encoder_weights, in_channels, classes) and returns a network with an `encoder`."""

    any_depth: bool = False
    """Whether it also takes encoder_depth, for `model.encoder_depth`."""

    decoder_channels: tuple[int, ...] = ()
    """Channels of each decoder stage, deepest first, where a shallower encoder needs fewer."""


ARCHITECTURES: dict[str, Architecture] = {
    "unet": Architecture(
        "segmentation_models_pytorch:Unet",
        any_depth=True,
        decoder_channels=(256, 128, 64, 32, 16),
    ),
    "unetplusplus": Architecture(
        "segmentation_models_pytorch:UnetPlusPlus",
        any_depth=True,
        decoder_channels=(256, 128, 64, 32, 16),
    ),
    "fpn": Architecture("segmentation_models_pytorch:FPN"),
    "linknet": Architecture("segmentation_models_pytorch:Linknet", any_depth=True),
    "pspnet": Architecture("segmentation_models_pytorch:PSPNet"),
    "deeplabv3": Architecture("segmentation_models_pytorch:DeepLabV3"),
    "deeplabv3plus": Architecture("segmentation_models_pytorch:DeepLabV3Plus"),
    "classifier": Architecture("steelseg.models.classifier:build_classifier", any_depth=True),
}


class Parameter(NamedTuple):
    """The number in parentheses after the name of a loss term."""

    name: str
    """The keyword argument of the function."""

    default: float
    highest: float = math.inf
    """Largest allowed value; the smallest is 0."""


@dataclass(frozen=True)
class LossFunction:
    """A term that `train.loss` can add up."""

    function: str
    """Import path of a function of (logits_nchw, masks_nchw, valid_nchw) that returns a scalar."""

    parameter: Parameter | None = None

    settings: tuple[str, ...] = ()
    """Keyword arguments of `models.losses.build_loss`, which the function takes too."""


LOSS_TERMS: dict[str, LossFunction] = {
    "bce": LossFunction("steelseg.models.losses:bce"),
    "bce_pos_weight": LossFunction("steelseg.models.losses:bce", settings=("pos_weight",)),
    "dice": LossFunction("steelseg.models.losses:dice_loss"),
    "image_dice": LossFunction("steelseg.models.losses:image_dice"),
    "focal": LossFunction("steelseg.models.losses:focal", Parameter("gamma", 2.0)),
    "tversky": LossFunction("steelseg.models.losses:tversky", Parameter("alpha", 0.3, 1.0)),
    "focal_tversky": LossFunction(
        "steelseg.models.losses:focal_tversky", Parameter("alpha", 0.3, 1.0)
    ),
    "jaccard": LossFunction("steelseg.models.losses:jaccard"),
    "lovasz": LossFunction("steelseg.models.losses:lovasz"),
    "symmetric_lovasz": LossFunction("steelseg.models.losses:symmetric_lovasz"),
}


def import_component(path: str) -> Any:
    """Return the class or function of an import path, "module:name"."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
