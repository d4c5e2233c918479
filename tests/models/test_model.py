import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from steelseg.config.components import ARCHITECTURES
from steelseg.errors import ConfigError
from steelseg.models.losses import build_loss
from steelseg.models.model import StripNet, build_model

SMALL = "tu-mobilenetv3_small_050"


def make(arch="linknet", encoder=SMALL, *, channels=1, num_classes=2, **settings):
    torch.manual_seed(0)
    return build_model(
        arch=arch,
        encoder=encoder,
        encoder_weights=None,
        channels=channels,
        num_classes=num_classes,
        mean=(0.449,) * channels,
        std=(0.226,) * channels,
        **settings,
    )


def make_pixels(*shape):
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("depth", [3, 4, 5])
@pytest.mark.parametrize("encoder", [SMALL, "resnet18"])
@pytest.mark.parametrize("arch", ["unet", "unetplusplus", "linknet", "classifier"])
def test_an_encoder_may_be_shallower(arch, encoder, depth):
    """It halves the image so often, and an image is padded to what that needs and no more."""
    model = make(arch, encoder, encoder_depth=depth, presence_head=True).eval()

    with torch.inference_mode():
        logits, presence = model(make_pixels(1, 1, 40, 72))
        deepest = model.network.encoder(torch.zeros(1, 1, 64, 64))[-1]

    assert model.multiple == 2**depth
    assert logits.shape == (1, 2, 40, 72)
    assert presence.shape == (1, 2)
    assert deepest.shape[2] == 64 / 2**depth


def test_full_depth_is_what_an_architecture_has_of_itself():
    """So null and 5 are the same network."""
    plain, full = make("unet").state_dict(), make("unet", encoder_depth=5).state_dict()

    assert plain.keys() == full.keys()
    assert all(torch.equal(plain[name], full[name]) for name in plain)


@pytest.mark.parametrize("encoder", [SMALL, "resnet18"])
@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "classifier"])
def test_every_architecture_trains_a_step_and_predicts_a_strip(arch, encoder):
    """At the strip's own size, which is no multiple of 32, from the first weight to the last."""
    model = make(arch, encoder)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    images = make_pixels(2, 1, 32, 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    loss = build_loss("bce_dice_pos_weight", pos_weight=(2.0, 1.0))(
        model(images), torch.cat([images > 128, images < 9], 1), None
    )
    loss.backward()
    optimizer.step()
    model.eval()
    with torch.inference_mode():
        logits = model(make_pixels(1, 1, 50, 130))

    assert loss.isfinite()
    moved = [not torch.equal(weight, before[name]) for name, weight in model.named_parameters()]
    assert moved[0]
    assert moved[-1]
    assert logits.shape == (1, 2, 50, 130)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(
    "encoder",
    [
        "resnet34",
        "efficientnet-b0",
        "mobilenet_v2",
        "se_resnext50_32x4d",
        "tu-resnet10t",
        "tu-resnet18.a1_in1k",
        "tu-convnext_atto",
    ],
)
def test_every_family_of_encoders_fits(encoder):
    """The names are those of segmentation-models-pytorch; timm's stand behind tu-."""
    model = make("unet", encoder).eval()

    with torch.inference_mode():
        assert model(make_pixels(1, 1, 20, 40)).shape == (1, 2, 20, 40)


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_and_floats_are_the_same_pixels(channels):
    """Normalisation is the network's; nobody can do it twice or not at all."""
    model = make(channels=channels, num_classes=5).eval()
    images = make_pixels(2, channels, 40, 70)

    with torch.inference_mode():
        logits = model(images)
        assert torch.equal(logits, model(images.float()))
    assert logits.shape == (2, 5, 40, 70)


def test_pixels_are_scaled_before_the_network():
    """Full scale is 1; mean and deviation are of full scale."""
    model = StripNet(nn.Identity(), mean=(0.2, 0.4), std=(0.1, 0.2), multiple=1)

    found = model(torch.tensor([255, 51]).view(1, 2, 1, 1).to(torch.uint8))

    torch.testing.assert_close(found.flatten(), torch.tensor([8.0, -1.0]))


def test_padding_repeats_the_edge_and_is_cut_off():
    """Never a resize: a pixel of the answer lies on its pixel of the strip."""

    class Records(nn.Module):
        def forward(self, inputs):
            self.inputs = inputs
            return inputs

    recorder = Records()
    model = StripNet(recorder, mean=(0.0,), std=(1.0,), multiple=4)
    images = make_pixels(1, 1, 3, 6)

    found = model(images)

    torch.testing.assert_close(found, images.float() / 255)
    assert recorder.inputs.shape == (1, 1, 4, 8)
    assert torch.equal(recorder.inputs[0, 0, 3, :6], found[0, 0, 2])
    assert torch.equal(recorder.inputs[0, 0, :3, 7], found[0, 0, :, 5])


def test_statistics_of_an_efficientnet_follow_within_tens_of_steps():
    """Its own momentum, 0.01, would still read two thirds of their first values after 40 steps."""
    model, images = make(encoder="efficientnet-b0").train(), make_pixels(2, 1, 64, 64)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean(dim=(0, 2, 3))))

    with torch.no_grad():
        for _ in range(40):
            model(images)

    torch.testing.assert_close(norm.running_mean, seen[-1], rtol=0.03, atol=1e-4)


def test_a_state_dict_holds_no_preprocessing():
    """The settings in a checkpoint say mean and deviation; two sources could disagree."""
    assert all(name.startswith("network.") for name in make().state_dict())


@pytest.mark.parametrize(
    ("encoder", "near"), [("resnet81", "resnet18"), ("tu-resnet10x", "tu-resnet10t")]
)
def test_an_unknown_encoder_is_refused_with_the_nearest_name(encoder, near):
    """In smp's list and in timm's."""
    with pytest.raises(
        ConfigError, match=f"model.encoder={encoder}: no such encoder; did .*{near}"
    ):
        make(encoder=encoder)


def test_an_encoder_that_cannot_be_used_in_an_architecture_is_named():
    """Its pooling cannot be dilated, which deeplabv3 needs."""
    with pytest.raises(ConfigError, match=r"model.encoder=vgg11 cannot be used in model.arch=deep"):
        make("deeplabv3", "vgg11")


def test_a_hub_out_of_reach_is_one_line_with_two_ways_out(tmp_path):
    """Factories have no network; nothing else is printed, and nobody waits for retries."""
    code = (
        "import sys\n"
        "from steelseg.errors import ConfigError\n"
        "from steelseg.models.model import build_model\n"
        "for encoder in sys.argv[1:]:\n"
        "    try:\n"
        "        build_model(arch='unet', encoder=encoder, encoder_weights='imagenet',\n"
        "                    channels=1, num_classes=4, mean=(0.4,), std=(0.2,))\n"
        "    except ConfigError as error:\n"
        "        print(error)\n"
    )
    encoders = ["resnet18", "tu-resnet10t", "mobilenet_v2"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}

    ended = subprocess.run(
        [sys.executable, "-c", code, *encoders],
        env=os.environ | offline,
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stderr == ""
    for encoder, line in zip(encoders, ended.stdout.splitlines(), strict=True):
        assert line.startswith(f"model.encoder_weights=imagenet is not available for {encoder}")
        assert "model.encoder_weights=none to train from scratch" in line
        assert "model.encoder_weights=PATH.safetensors to read a local file" in line
