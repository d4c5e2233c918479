"""The last convolution for neighbouring columns at once, with the same answer.

A vector register holds sixteen numbers, and a convolution to four classes fills four of them. One
kernel that is wider by three columns and moves on by four gives four columns of each class as its
output channels: half as many products again, but a whole register of them at a time. Only the
order of the numbers is left to be changed. For files of OpenVINO alone.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from steelseg.models.model import StripNet

# Eight columns cost more products than they fill registers.
_COLUMNS = 4

_REGISTER = 16


def widen_head(model: StripNet) -> StripNet:
    """Copy a network, its last convolution wider where that fills registers.

    Args:
        model: The network, in eval mode, on the CPU; left as it is.

    Returns:
        A network with the same answers, bit by bit in exact arithmetic.
    """
    model = copy.deepcopy(model)
    # A classifier has none.
    head: Any = getattr(model.network, "segmentation_head", None)
    # At a part of the size, as of FPN, its columns may be odd in number and it costs little.
    if head and isinstance(head[1], nn.Identity) and _gains(head[0]):
        head[0] = _Widened(head[0])
    return model.eval()


def _gains(convolution: nn.Module) -> bool:
    """Whether a convolution is a 3x3 one whose outputs leave most of a register empty."""
    return (
        isinstance(convolution, nn.Conv2d)
        and convolution.kernel_size == (3, 3)
        and convolution.padding == (1, 1)
        and convolution.out_channels * _COLUMNS <= _REGISTER
    )


class _Widened(nn.Module):
    """A 3x3 convolution that gives several columns at once."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.bias is not None
        outputs, inputs = convolution.weight.shape[:2]
        size = 3, 2 + _COLUMNS
        weight = torch.zeros(outputs, _COLUMNS, inputs, *size)
        for column in range(_COLUMNS):
            weight[:, column, :, :, column : column + 3] = convolution.weight.detach()
        self.outputs = outputs
        self.wide = nn.Conv2d(inputs, outputs * _COLUMNS, size, stride=(1, _COLUMNS), padding=1)
        self.wide.weight = nn.Parameter(weight.flatten(0, 1))
        self.wide.bias = nn.Parameter(convolution.bias.detach().repeat_interleave(_COLUMNS))

    def forward(self, features: Tensor) -> Tensor:
        # Channels last, as OpenVINO has them already: it need not change the order twice.
        wide_nhwc: Tensor = self.wide(features).permute(0, 2, 3, 1)
        batch, height, width, _ = wide_nhwc.shape
        columns = wide_nhwc.reshape(batch, height, width, self.outputs, _COLUMNS)
        by_class = columns.permute(0, 3, 1, 2, 4)
        return by_class.reshape(batch, self.outputs, height, width * _COLUMNS)
