import math

import pytest
import torch
from torch import nn

from steelseg.data.formats.annotations import Labels
from steelseg.data.formats.rle import parse
from steelseg.errors import TrainingError
from steelseg.inference.forward import ForwardPlan, predict_batch
from steelseg.models.losses import build_loss
from steelseg.scoring.gate import open_gate
from steelseg.training.validation import ValidationScores

CPU = torch.device("cpu")
BCE = build_loss("bce_with_logits", pos_weight=())


class KnowsTheTruth(nn.Module):
    """A network that is certain: class 1 where it is bright, class 2 nowhere."""

    def forward(self, images_nchw):
        bright = (images_nchw > 128).float() * 20 - 10
        return torch.cat([bright, torch.full_like(bright, -10)], dim=1)


def make_labels():
    """Two images of 2 x 3 pixels; class 1 is pixels 1 and 2 of the first."""
    runs = {("a.png", 1): parse("1 2", 6)}
    return Labels(2, {"a.png": (2, 3), "b.png": (2, 3)}, runs)


def run_validation(model, images_nhwc):
    scores = ValidationScores(
        make_labels(), BCE, gate=open_gate, binarize=lambda probs_chw: probs_chw >= 0.5
    )
    scores.add(("a.png", "b.png"), predict_batch(model, images_nhwc, ForwardPlan(), CPU))
    return scores.result()


def test_validation_scores_what_the_network_says():
    """The defect of the first image is found; one false positive pixel on the clean one counts."""
    images = torch.zeros(2, 2, 3, 1, dtype=torch.uint8)
    images[0, :, 0] = 255
    images[1, 1, 1] = 255

    loss, scores, _ = run_validation(KnowsTheTruth(), images.numpy())

    assert scores.overall.dice == 3 / 4
    assert scores.overall.dice_positive == 1
    assert scores.overall.dice_negative == 2 / 3
    # One wrong pixel of 24 costs about ten, the others nothing.
    assert loss == pytest.approx(10 / 24, rel=0.01)


def test_validation_that_is_not_a_number_is_an_error():
    """A network of NaN would score as all-empty, with a Dice of 0.85 or so."""

    class Broken(nn.Module):
        def forward(self, images_nchw):
            return torch.full((len(images_nchw), 2, 2, 3), math.nan)

    with pytest.raises(TrainingError, match="the validation loss is nan"):
        run_validation(Broken(), torch.zeros(2, 2, 3, 1, dtype=torch.uint8).numpy())
