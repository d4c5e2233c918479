"""Networks that are rewritten for their files give the answers they gave."""

import pytest
import torch
from torch import nn

from steelseg.config.components import ARCHITECTURES
from steelseg.inference.backends.fold_upsampling import doubled_kernel, fold_upsampling
from steelseg.models.model import StripNet, build_model


def network(arch: str, *, encoder: str = "tu-test_resnet") -> StripNet:
    """A network whose norms do something."""
    torch.manual_seed(0)
    model = build_model(
        arch=arch,
        encoder=encoder,
        encoder_weights=None,
        channels=1,
        num_classes=4,
        mean=[0.4],
        std=[0.2],
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def answers(model: StripNet, *others: StripNet, height: int = 70, width: int = 101) -> list:
    """Logits of several networks for one image."""
    images = torch.randint(0, 256, (2, 1, height, width), dtype=torch.uint8)
    with torch.no_grad():
        return [each(images) for each in (model, *others)]


def assert_same(answer, original):
    """Equal but for rounding, on the scale of the logits."""
    torch.testing.assert_close(answer, original, atol=1e-5 * float(original.abs().max()), rtol=0)


def test_a_transposed_convolution_is_a_convolution_over_doubled_features():
    """Zero padding included, at odd sizes."""
    torch.manual_seed(0)
    features = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)

    doubled = nn.functional.interpolate(features, scale_factor=2)
    expected = nn.functional.conv2d(doubled, weight, padding=1)
    answer = nn.functional.conv_transpose2d(features, doubled_kernel(weight), stride=2, padding=1)

    torch.testing.assert_close(answer, expected)


@pytest.mark.parametrize("arch", sorted({*ARCHITECTURES} - {"classifier"}))
def test_a_rewritten_network_answers_as_the_original(arch):
    """Whatever the decoder; images of odd sizes are padded as they always are."""
    model = network(arch)

    original, *rewritten = answers(
        model,
        fold_upsampling(model),
        fold_upsampling(model, signed=False),
    )

    for logits in rewritten:
        assert_same(logits, original)


@pytest.mark.parametrize(("arch", "folded"), [("unet", 5), ("unetplusplus", 11), ("fpn", 0)])
def test_blocks_that_double_are_folded(arch, folded):
    """Where the decoder repeats values and convolves, and nowhere else."""
    model = fold_upsampling(network(arch))

    assert sum(isinstance(m, nn.ConvTranspose2d) for m in model.modules()) == folded


def test_features_of_both_signs_can_be_left_alone():
    """Only the first block of a U-Net is given what the encoder says."""
    model = fold_upsampling(network("unet"), signed=False)

    names = [n for n, m in model.named_modules() if isinstance(m, nn.ConvTranspose2d)]

    assert names == [f"network.decoder.blocks.{place}.conv1.up" for place in (1, 2, 3, 4)]


@pytest.mark.parametrize("change", ["bilinear", "attention"])
def test_other_decoders_stay_as_they_are(change):
    """Interpolation that is no repetition, and attention over the joined features."""
    from segmentation_models_pytorch import Unet

    words = (
        {"decoder_interpolation": "bilinear"}
        if change == "bilinear"
        else {"decoder_attention_type": "scse"}
    )
    core = Unet("tu-test_resnet", encoder_weights=None, in_channels=1, classes=4, **words)
    model = StripNet(core, mean=[0.4], std=[0.2], multiple=32).eval()

    folded = fold_upsampling(model)

    kinds = [type(block) for block in folded.network.decoder.blocks]
    assert kinds == [type(block) for block in core.decoder.blocks]
    original, answer = answers(model, folded)
    assert_same(answer, original)


def test_the_original_is_left_as_it_is():
    """The network that a file is compared with is the one that was trained."""
    model = network("unet")
    before = [name for name, _ in model.named_modules()]

    fold_upsampling(model)

    assert [name for name, _ in model.named_modules()] == before
