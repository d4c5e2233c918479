"""The network: pixels in, logits out, at the size of the strip.

`StripNet` holds everything between a decoded image and its logits (scaling, normalisation,
padding, the segmentation network), so training, prediction and an exported model cannot
disagree about preprocessing. `core` is the part that is exported: it needs sizes that are
multiples of `multiple`, to which `at_multiples` brings any strip. The core of a classifier
answers with one cell, which `at_multiples` spreads.
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
"""Least share of a batch in the statistics of batch normalisation, PyTorch's own default."""

Output: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""logits_nchw, and logits_nc of presence where the network has a presence head."""


def split_output(output: Output) -> tuple[Tensor, Tensor | None]:
    """logits_nchw and, of a network with a presence head, logits_nc of presence."""
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
            mean: Mean of each channel, of full scale.
            std: Standard deviation of each channel, of full scale.
            multiple: What the network's input sizes must be multiples of.
        """
        super().__init__()
        self.network = network
        self.multiple = multiple
        # Not persistent: the settings in the checkpoint hold them.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @property
    def has_presence(self) -> bool:
        """Whether there is a presence head."""
        return getattr(self.network, "classification_head", None) is not None

    def forward(self, images_nchw: Tensor) -> Output:
        """Compute logits.

        Args:
            images_nchw: Pixels 0 to 255, shape (N, channels, H, W), uint8 or float; any size.

        Returns:
            Logits, shape (N, C, H, W), float32; with a presence head also its own, shape (N, C).
        """
        return at_multiples(self.core, images_nchw, multiple=self.multiple)

    def core(self, images_nchw: Tensor) -> Output:
        """Compute logits of what `forward` takes, at sizes that are multiples of `multiple`."""
        inputs = (images_nchw.float() / 255 - self.mean) / self.std
        output = self.network(inputs.contiguous(memory_format=torch.channels_last))
        logits_nchw, presence_nc = split_output(output)
        if presence_nc is None:
            return logits_nchw.float()
        return logits_nchw.float(), presence_nc.float()


def at_multiples(core: Callable[[Tensor], Output], images_nchw: Tensor, *, multiple: int) -> Output:
    """Repeat the last row and column up to a multiple, and cut the answer to size again.

    Args:
        core: From images to logits, same height and width, or one cell that stands for all pixels.
        images_nchw: Pixels, shape (N, channels, H, W), any type.
        multiple: What the sizes that `core` takes are multiples of.

    Returns:
        Logits, shape (N, C, H, W); what `core` says of presence stays as it is.
    """
    height, width = images_nchw.shape[-2:]
    logits_nchw, presence_nc = split_output(core(pad_to_multiple(images_nchw, multiple)))
    # No other core answers with one cell: what it is given has 8 pixels a side at least.
    if logits_nchw.shape[2:] == (1, 1):
        logits_nchw = spread(logits_nchw, height, width)
    logits_nchw = logits_nchw[..., :height, :width]
    return logits_nchw if presence_nc is None else (logits_nchw, presence_nc)


def pad_to_multiple(images_nchw: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples of `multiple`."""
    # By index, because not every device pads bytes.
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
    """Build a network, its encoder with the weights asked for.

    Args:
        arch: A key of `ARCHITECTURES`.
        encoder: An encoder of segmentation-models-pytorch, or `tu-NAME` of timm.
        encoder_weights: imagenet or another name on the model hub, a local file, or None.
        channels: Image channels, 1 or 3.
        num_classes: Defect classes C.
        mean: Mean of each channel, of full scale.
        std: Standard deviation of each channel, of full scale.
        encoder_depth: How often the encoder halves the image, for architectures that take any
            depth; None takes the architecture's own.
        presence_head: Whether the network also tells which classes are there at all.

    Raises:
        ConfigError: if the encoder is unknown, does not fit the architecture, or its weights
            cannot be had.
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
        # Where segmentation-models-pytorch has its classifier, so that it is called with it.
        depth = network.encoder.out_channels[-1]
        network.classification_head = PresenceHead(depth, num_classes)
    _hasten_statistics(network)
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
    """Build the network as segmentation-models-pytorch does, or say what does not fit."""
    architecture = ARCHITECTURES[arch]
    build = partial(
        import_component(architecture.network),
        encoder_name=encoder,
        in_channels=channels,
        classes=num_classes,
        **_shallower(architecture, depth),
    )
    if hub_weights is None:
        try:
            return build(encoder_weights=None)
        except Exception as error:
            # Encoders refuse what they cannot do (depth, dilation, image size) in many ways.
            raise ConfigError(
                f"model.encoder={encoder} cannot be used in model.arch={arch}: {error}"
            ) from error
    # The hub's client tells of each of its retries; the one line below says what matters.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return build(encoder_weights=True if encoder.startswith("tu-") else hub_weights)
    except Exception as error:
        # The hub's client raises its own, its HTTP library's and the system's errors.
        raise ConfigError(
            f"model.encoder_weights={hub_weights} cannot be had for {encoder} from the model hub "
            f"({_first_line(error)}). Two ways out: model.encoder_weights=none trains from "
            "scratch, model.encoder_weights=PATH.safetensors reads a local file."
        ) from error


def _shallower(architecture: Architecture, depth: int | None) -> dict[str, Any]:
    """Return the arguments for an encoder of `depth` stages; a unet has as many decoder stages."""
    if depth is None:
        return {}
    channels = architecture.decoder_channels[:depth]
    return {"encoder_depth": depth} | ({"decoder_channels": channels} if channels else {})


def _hasten_statistics(network: nn.Module) -> None:
    """Let the statistics of batch normalisation follow within tens of steps.

    EfficientNets take a hundredth of each batch, which is for the hundred thousands of steps of
    ImageNet: after a few hundred, validation still reads their first values and finds nothing.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = max(module.momentum, LEAST_MOMENTUM)


def _first_line(error: Exception) -> str:
    """The first line of an error, cut to fit into ours."""
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
