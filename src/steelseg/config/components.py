"""Networks and loss terms that settings name, and where each is defined.

Settings are checked without importing torch, so a table holds the import path of a class or
function, "module:name", and `import_component` imports it once it is used. An entry here makes a
name known everywhere: to the settings, their error messages and docs/configuration.md.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


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

LOSS_TERMS: dict[str, str] = {
    "bce": "steelseg.models.losses:bce",
    "bce_pos_weight": "steelseg.models.losses:bce",
    "dice": "steelseg.models.losses:dice_loss",
    "image_dice": "steelseg.models.losses:image_dice",
    "focal": "steelseg.models.losses:focal",
    "tversky": "steelseg.models.losses:tversky",
    "focal_tversky": "steelseg.models.losses:focal_tversky",
    "jaccard": "steelseg.models.losses:jaccard",
    "lovasz": "steelseg.models.losses:lovasz",
    "symmetric_lovasz": "steelseg.models.losses:symmetric_lovasz",
}
"""Terms that `train.loss` can add up. Each is a function of (logits_nchw, masks_nchw, valid_nchw)
that returns a scalar; arguments that come from other settings are passed by `build_loss`."""


def import_component(path: str) -> Any:
    """Return the class or function of an import path, "module:name"."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
