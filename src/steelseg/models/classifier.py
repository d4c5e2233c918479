"""A network that tells which classes are on an image, and nothing else: encoder and presence head.

Its answer has the form of any network's with a presence head, so that whatever takes a network
takes it too: the logit of presence stands for every pixel. It is one cell until someone asks for
pixels (`spread`), and a view that takes no memory from then on.

Axes: n images, c classes, h height, w width.
"""

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn


class PresenceHead(nn.Module):
    """Whether a class is on the image at all: whether any cell of the deepest features shows it.

    The maximum over cells means the same on a crop and on a strip of any length, where a mean
    would thin out a small defect the more, the longer the strip.
    """

    def __init__(self, channels: int, num_classes: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.cells = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features_nchw: Tensor) -> Tensor:
        """Logits of presence, shape (N, C)."""
        logits: Tensor = self.cells(self.dropout(features_nchw))
        return logits.amax(dim=(2, 3))


class Classifier(nn.Module):
    """An encoder with a presence head; the parts are named as segmentation networks name theirs."""

    def __init__(self, encoder: nn.Module, head: PresenceHead) -> None:
        """Put a head on an encoder.

        Args:
            encoder: Gives its features from shallow to deep.
            head: Takes the deepest.
        """
        super().__init__()
        self.encoder = encoder
        self.classification_head = head

    def forward(self, inputs_nchw: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of presence, as one cell (N, C, 1, 1) and as (N, C)."""
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
    """Let one cell stand for every pixel, without a copy.

    Args:
        cell_nchw: Shape (N, C, 1, 1).
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        A view, shape (N, C, H, W).
    """
    return cell_nchw.expand(-1, -1, height, width)


def sigmoid(logits_nchw: Tensor) -> Tensor:
    """The sigmoid; of what is spread it is computed once, and spread again.

    In place otherwise, because a batch of strips is large and its logits are nobody else's.
    """
    if logits_nchw.stride()[2:] != (0, 0):
        return logits_nchw.sigmoid_()
    return spread(torch.sigmoid(logits_nchw[..., :1, :1]), *logits_nchw.shape[2:])
