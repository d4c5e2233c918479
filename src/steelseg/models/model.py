"""The network: pixels in, logits out, at the size of the strip.

`StripNet` contains everything between a decoded image and its logits (scaling, normalisation,
padding, the segmentation network), so that training, prediction and exports use the same
preprocessing. `core` is the part that is exported: it needs sizes that are multiples of `multiple`;
`at_multiples` pads any strip to them. The core of a classifier returns one cell, which
`at_multiples` expands.
"""

import difflib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from steelseg.config.components import ARCHITECTURES, Architecture, import_component
from steelseg.errors import ConfigError
from steelseg.models.classifier import PresenceHead, spread
from steelseg.models.weights import is_file_name, load_encoder_weights

LEAST_MOMENTUM = 0.1
"""Minimum momentum of batch normalisation, the default of PyTorch."""

Output: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""logits_nchw, and presence logits_nc if the network has a presence head."""


def split_output(output: Output) -> tuple[Tensor, Tensor | None]:
    """Split an output into logits_nchw and presence logits_nc, None without a presence head."""
    return output if isinstance(output, tuple) else (output, None)


class StripNet(nn.Module):
    """A segmentation network with its preprocessing."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float], multiple: int
    ) -> None:
        """Wrap a network.

        Args:
            network: Takes (N, channels, H, W) with H and W multiples of `multiple`.
            mean: Mean of each channel, as a fraction of full scale.
            std: Standard deviation of each channel, as a fraction of full scale.
            multiple: The number that the network's input sizes must be multiples of.
        """
        super().__init__()
        self.network = network
        self.multiple = multiple
        # Not persistent, because the settings in the checkpoint contain them.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @property
    def has_presence(self) -> bool:
        """Whether the network has a presence head."""
        return getattr(self.network, "classification_head", None) is not None

    def forward(self, images_nchw: Tensor) -> Output:
        """Compute logits.

        Args:
            images_nchw: Pixels 0 to 255, shape (N, channels, H, W), uint8 or float; any size.

        Returns:
            Logits, shape (N, C, H, W), float32; with a presence head also its logits, shape (N, C).
        """
        return at_multiples(self.core, images_nchw, multiple=self.multiple)

    def core(self, images_nchw: Tensor) -> Output:
        """Compute logits like `forward`, for sizes that are multiples of `multiple`."""
        inputs = (images_nchw.float() / 255 - self.mean) / self.std
        output = self.network(inputs.contiguous(memory_format=torch.channels_last))
        logits_nchw, presence_nc = split_output(output)
        if presence_nc is None:
            return logits_nchw.float()
        return logits_nchw.float(), presence_nc.float()


def at_multiples(core: Callable[[Tensor], Output], images_nchw: Tensor, *, multiple: int) -> Output:
    """Pad images to a multiple by repeating the last row and column, and crop the logits back.

    Args:
        core: From images to logits of the same height and width, or of one cell for all pixels.
        images_nchw: Pixels, shape (N, channels, H, W), any type.
        multiple: The number that input sizes of `core` must be multiples of.

    Returns:
        Logits, shape (N, C, H, W), and the presence logits of `core`, if any.
    """
    height, width = images_nchw.shape[-2:]
    logits_nchw, presence_nc = split_output(core(pad_to_multiple(images_nchw, multiple)))
    # Only a classifier returns one cell: inputs have at least 8 pixels a side.
    if logits_nchw.shape[2:] == (1, 1):
        logits_nchw = spread(logits_nchw, height, width)
    logits_nchw = logits_nchw[..., :height, :width]
    return logits_nchw if presence_nc is None else (logits_nchw, presence_nc)


def pad_to_multiple(images_nchw: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples of `multiple`."""
    # By index, because not every device can pad uint8.
    for axis in (-2, -1):
        size = images_nchw.shape[axis]
        if size % multiple:
            places = torch.arange(size + -size % multiple, device=images_nchw.device)
            images_nchw = images_nchw.index_select(axis, places.clamp_(max=size - 1))
    return images_nchw


def build_model(
    *,
    arch: str,
    encoder: str,
    encoder_weights: str | None,
    channels: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    encoder_depth: int | None = None,
    presence_head: bool = False,
) -> StripNet:
    """Build a network, with pretrained encoder weights if they are given.

    Args:
        arch: A key of `ARCHITECTURES`.
        encoder: An encoder of segmentation-models-pytorch, or `tu-NAME` of timm.
        encoder_weights: imagenet or another name on the model hub, a local file, or None.
        channels: Image channels, 1 or 3.
        num_classes: Defect classes C.
        mean: Mean of each channel, as a fraction of full scale.
        std: Standard deviation of each channel, as a fraction of full scale.
        encoder_depth: Number of downsampling stages, for architectures that support any; None
            uses the architecture's default.
        presence_head: Whether the network also predicts which classes are on the image.

    Raises:
        ConfigError: if the encoder is unknown, does not fit the architecture, or its weights
            are not available.
    """
    refuse_unknown_encoder(encoder)
    local = encoder_weights is not None and is_file_name(encoder_weights)
    hub = None if local else encoder_weights
    network = _build_network(
        arch,
        encoder,
        depth=encoder_depth,
        hub_weights=hub,
        channels=channels,
        num_classes=num_classes,
    )
    if encoder_weights is not None and local:
        load_encoder_weights(network.encoder, Path(encoder_weights), channels=channels)
    if presence_head and getattr(network, "classification_head", None) is None:
        # At the attribute of segmentation-models-pytorch's own classifier, so that it is called.
        depth = network.encoder.out_channels[-1]
        network.classification_head = PresenceHead(depth, num_classes)
    _raise_momentum(network)
    stride = int(network.encoder.output_stride)
    multiple = stride if encoder_depth else max(32, stride)
    model = StripNet(network, mean=mean, std=std, multiple=multiple)
    return model.to(memory_format=torch.channels_last)


def _build_network(
    arch: str,
    encoder: str,
    *,
    depth: int | None,
    hub_weights: str | None,
    channels: int,
    num_classes: int,
) -> Any:
    """Build the network with segmentation-models-pytorch, or raise ConfigError."""
    architecture = ARCHITECTURES[arch]
    build = partial(
        import_component(architecture.network),
        encoder_name=encoder,
        in_channels=channels,
        classes=num_classes,
        **_depth_arguments(architecture, depth),
    )
    if hub_weights is None:
        try:
            return build(encoder_weights=None)
        except Exception as error:
            # Encoders raise many kinds of errors for unsupported depths, dilations and sizes.
            raise ConfigError(
                f"model.encoder={encoder} cannot be used in model.arch={arch}: {error}"
            ) from error
    # The hub's client logs each retry; the error below is enough.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return build(encoder_weights=True if encoder.startswith("tu-") else hub_weights)
    except Exception as error:
        # The hub's client raises its own errors, those of its HTTP library, and OSError.
        raise ConfigError(
            f"model.encoder_weights={hub_weights} is not available for {encoder} from the model "
            f"hub ({_first_line(error)}). Set model.encoder_weights=none to train from scratch, or "
            "model.encoder_weights=PATH.safetensors to read a local file."
        ) from error


def _depth_arguments(architecture: Architecture, depth: int | None) -> dict[str, Any]:
    """Return the arguments for a depth of the encoder; a U-Net's decoder has the same depth."""
    if depth is None:
        return {}
    channels = architecture.decoder_channels[:depth]
    return {"encoder_depth": depth} | ({"decoder_channels": channels} if channels else {})


def _raise_momentum(network: nn.Module) -> None:
    """Raise the momentum of batch normalisation, so that its statistics adapt in tens of steps.

    EfficientNets use 0.01, for the hundreds of thousands of steps on ImageNet: after a few hundred
    steps, validation would still use the initial statistics and find nothing.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = max(module.momentum, LEAST_MOMENTUM)


def _first_line(error: Exception) -> str:
    """Return the first line of an error, shortened to fit into ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120].rstrip(". ")


def refuse_unknown_encoder(encoder: str) -> None:
    """Raise ConfigError unless segmentation-models-pytorch or timm has the encoder."""
    if encoder.startswith("tu-"):
        known = [f"tu-{name}" for name in timm.list_models()]
        # A tag such as tu-resnet18.a1_in1k chooses weights, not another network.
        plain = encoder.partition(".")[0]
    else:
        known, plain = list(smp.encoders.encoders), encoder
    if plain not in known:
        near = difflib.get_close_matches(plain, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ConfigError(f"model.encoder={encoder}: no such encoder{hint}")
