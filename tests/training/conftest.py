import pytest
import torch

from steelseg.models.model import build_model


@pytest.fixture
def model():
    """Give a small network with random weights, the same each time."""
    torch.manual_seed(0)
    return build_model(
        arch="linknet",
        encoder="tu-test_resnet",
        encoder_weights=None,
        channels=1,
        num_classes=2,
        mean=(0.4,),
        std=(0.2,),
    )
