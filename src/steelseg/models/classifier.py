"""A classifier: an encoder with a presence head; it predicts which classes an image has, not masks.

Its output has the same form as that of a segmentation network with a presence head, so that code
accepts either: the presence logit stands for every pixel. It is a single cell, which `spread`
expands to all pixels without using memory.

Axes: n images, c classes, h height, w width.
"""

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn


class PresenceHead(nn.Module):
    """Predicts whether each class is on the image, as the maximum over the deepest features.

    A maximum over cells is independent of the size of the image; a mean would dilute a small defect
    on a long strip.
    """

    def __init__(self, channels: int, num_classes: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.cells = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features_nchw: Tensor) -> Tensor:
        """Return presence logits, shape (N, C)."""
        logits: Tensor = self.cells(self.dropout(features_nchw))
        return logits.amax(dim=(2, 3))


class Classifier(nn.Module):
    """An encoder with a presence head; submodules have the names of a segmentation network's."""

    def __init__(self, encoder: nn.Module, head: PresenceHead) -> None:
        """Combine an encoder and a head.

        Args:
            encoder: Returns features from shallow to deep.
            head: Takes the deepest features.
        """
        super().__init__()
        self.encoder = encoder
        self.classification_head = head

    def forward(self, inputs_nchw: Tensor) -> tuple[Tensor, Tensor]:
        """Return presence logits, as one cell (N, C, 1, 1) and as (N, C)."""
        presence_nc: Tensor = self.classification_head(self.encoder(inputs_nchw)[-1])
        return presence_nc[:, :, None, None], presence_nc


def build_classifier(
    *,
    encoder_name: str,
    in_channels: int,
    classes: int,
    encoder_weights: str | bool | None,
    encoder_depth: int = 5,
) -> Classifier:
    """Build a classifier from the arguments of segmentation-models-pytorch."""
    encoder = smp.encoders.get_encoder(
        encoder_name, in_channels=in_channels, depth=encoder_depth, weights=encoder_weights
    )
    return Classifier(encoder, PresenceHead(encoder.out_channels[-1], classes))


def spread(cell_nchw: Tensor, height: int, width: int) -> Tensor:
    """Expand one cell to every pixel, without a copy.

    Args:
        cell_nchw: Shape (N, C, 1, 1).
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.

    Returns:
        A view, shape (N, C, H, W).
    """
    return cell_nchw.expand(-1, -1, height, width)


def sigmoid(logits_nchw: Tensor) -> Tensor:
    """Return the sigmoid; for an expanded cell it is computed once and expanded again.

    Otherwise it works in place: a batch of strips is large, and its logits are not used again.
    """
    if logits_nchw.stride()[2:] != (0, 0):
        return logits_nchw.sigmoid_()
    return spread(torch.sigmoid(logits_nchw[..., :1, :1]), *logits_nchw.shape[2:])
