"""Fold nearest upsampling and the next convolution into one transposed convolution.

The decoder of a U-Net repeats every value of its features twice per axis, concatenates features of
the encoder, and applies a 3x3 convolution. Each output pixel then sees only 2x2 different values,
so a 4x4 kernel with stride 2, whose taps are sums of the 3x3 kernel's, needs 4 products instead of
9, and neither the upsampled nor the concatenated features are written to memory. A convolution over
concatenated channels is the sum of one over each part.

With OpenVINO a U-Net takes 13 % less time in float32 and about 10 % less in int8; with ONNX Runtime
it is slower (docs/experiments.md). Only decoder blocks of U-Net and U-Net++ that have no attention
and exactly double the size are changed, and only in exported files.
"""

import copy
from typing import Any, NamedTuple

import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from segmentation_models_pytorch.decoders.unetplusplus.decoder import DecoderBlock
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from steelseg.models.model import StripNet

# The rows (or columns) of the 3x3 kernel that each tap of the 4x4 kernel sums. Output 2m sees
# inputs m - 1 (tap 3) and m (tap 1), output 2m + 1 sees m (tap 2) and m + 1 (tap 0).
_SUMMED = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)


def fold_upsampling(model: StripNet, *, signed: bool = True) -> StripNet:
    """Copy a network, with transposed convolutions where its decoder upsamples and convolves.

    Args:
        model: The network, in eval mode, on the CPU; it is not changed.
        signed: Also fold blocks that upsample features of the encoder. These may have both signs,
            which OpenVINO's int8 transposed convolutions do not support: it uses float for them.

    Returns:
        A network with the same outputs, except for rounding.
    """
    model = copy.deepcopy(model)
    blocks = [
        (parent, name, block)
        for parent in model.network.modules()
        for name, block in parent.named_children()
        if isinstance(block, UnetDecoderBlock | DecoderBlock) and _is_plain(block)
    ]
    seen = _watch(model, [block for _, _, block in blocks])
    for (parent, name, block), call in zip(blocks, seen, strict=True):
        if call.doubles and (signed or not call.from_encoder):
            fold = _FoldedUnet if isinstance(block, UnetDecoderBlock) else _FoldedPlusPlus
            setattr(parent, name, fold(block, channels=call.channels))
    return model.eval()


def _is_plain(block: Any) -> bool:
    """Whether a block uses nearest upsampling, a plain convolution, and no attention."""
    if block.interpolation_mode != "nearest" or block.conv1 is None:
        return False
    return isinstance(block.attention1.attention, nn.Identity) and isinstance(
        block.conv1[1], nn.BatchNorm2d | nn.Identity
    )


class _Call(NamedTuple):
    """The inputs of a decoder block."""

    channels: int
    """Channels of the features that it upsamples."""

    doubles: bool
    """Whether it doubles height and width."""

    from_encoder: bool
    """Whether the features come from the encoder."""


def _watch(model: StripNet, blocks: list[Any]) -> list[_Call]:
    """Run a network on an image and record the inputs of some blocks."""
    features: list[Tensor] = []
    calls: dict[Any, _Call] = {}

    def note(block: Any, given: tuple[Any, ...]) -> None:
        source = given[0]
        height, width = source.shape[-2:]
        # U-Net++ always doubles; U-Net is given the target size.
        is_unet = isinstance(block, UnetDecoderBlock)
        doubles = not is_unet or tuple(given[1:3]) == (2 * height, 2 * width)
        own = any(source is part for part in features)
        calls[block] = _Call(source.shape[1], doubles, own)

    hooks = [block.register_forward_pre_hook(note) for block in blocks]
    encoder: Any = model.network.encoder
    hooks.append(encoder.register_forward_hook(lambda _m, _given, out: features.extend(out)))
    size = 2 * model.multiple, 3 * model.multiple
    with torch.no_grad():
        model.core(torch.zeros(1, model.mean.shape[1], *size, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return [calls[block] for block in blocks]


class _SplitConvolution(nn.Module):
    """A convolution over upsampled features plus, if there is a skip connection, one over that."""

    def __init__(self, layers: Any, *, channels: int) -> None:
        super().__init__()
        convolution, norm, self.activation = layers
        if isinstance(norm, nn.BatchNorm2d):
            convolution = fuse_conv_bn_eval(convolution, norm)
        weight, bias = convolution.weight.detach(), convolution.bias.detach()
        outputs, inputs = weight.shape[:2]
        has_skip = inputs > channels
        self.up = nn.ConvTranspose2d(channels, outputs, 4, stride=2, padding=1, bias=not has_skip)
        self.up.weight = nn.Parameter(doubled_kernel(weight[:, :channels]))
        self.skip = nn.Conv2d(inputs - channels, outputs, 3, padding=1) if has_skip else None
        if self.skip is None:
            self.up.bias = nn.Parameter(bias)
        else:
            self.skip.weight = nn.Parameter(weight[:, channels:].contiguous())
            self.skip.bias = nn.Parameter(bias)

    def forward(self, features: Tensor, skip: Tensor | None) -> Tensor:
        total = self.up(features)
        if self.skip is not None:
            # In this order OpenVINO fuses the addition into the convolution.
            total = self.skip(skip) + total
        activated: Tensor = self.activation(total)
        return activated


def doubled_kernel(weight: Tensor) -> Tensor:
    """Return the transposed kernel that equals a 3x3 kernel over upsampled features.

    Args:
        weight: Shape (outputs, inputs, 3, 3), for padding 1.

    Returns:
        Shape (inputs, outputs, 4, 4), for stride 2 and padding 1.
    """
    taps = torch.einsum("yr,oirc,xc->ioyx", _SUMMED, weight.double(), _SUMMED)
    return taps.to(weight.dtype)


class _FoldedPlusPlus(nn.Module):
    """A decoder block of U-Net++, with the signature of the original."""

    def __init__(self, block: UnetDecoderBlock | DecoderBlock, *, channels: int) -> None:
        super().__init__()
        self.conv1 = _SplitConvolution(block.conv1, channels=channels)
        self.conv2 = block.conv2
        self.attention2 = block.attention2

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        output: Tensor = self.attention2(self.conv2(self.conv1(x, skip)))
        return output


class _FoldedUnet(_FoldedPlusPlus):
    """A decoder block of U-Net, which is also given the target size."""

    def forward(  # type: ignore[override]
        self,
        feature_map: Tensor,
        _target_height: int,
        _target_width: int,
        skip_connection: Tensor | None = None,
    ) -> Tensor:
        return super().forward(feature_map, skip_connection)
