import pytest
import torch

from steelseg.models.classifier import sigmoid, spread
from steelseg.models.losses import classifier_loss, presence_loss
from steelseg.models.model import build_model, split_output


def make(encoder="tu-test_resnet"):
    torch.manual_seed(0)
    return build_model(
        arch="classifier",
        encoder=encoder,
        encoder_weights=None,
        channels=1,
        num_classes=2,
        mean=(0.449,),
        std=(0.226,),
    ).eval()


def make_pixels(*shape):
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("encoder", ["tu-test_resnet", "tu-mobilenetv3_small_050", "resnet18"])
def test_the_logit_of_presence_stands_for_every_pixel(encoder):
    """At the size of the strip, which is no multiple of 32, and without taking memory for it."""
    model = make(encoder)

    with torch.inference_mode():
        logits_nchw, presence_nc = split_output(model(make_pixels(2, 1, 50, 130)))

    assert model.has_presence
    assert logits_nchw.shape == (2, 2, 50, 130)
    assert presence_nc.shape == (2, 2)
    assert torch.equal(logits_nchw, presence_nc[:, :, None, None].expand(-1, -1, 50, 130))
    assert logits_nchw.stride()[2:] == (0, 0)


def test_a_longer_strip_says_no_less_than_a_part_of_it():
    """Any cell that shows a class is enough, so presence means the same on crop and strip."""
    model = make()
    crop = make_pixels(1, 1, 32, 512)
    with torch.inference_mode():
        _, part = model(crop)
        _, whole = model(torch.cat([crop, crop, crop], dim=3))

    # The middle copy has the same pixels far around it that the crop has.
    assert (whole > part - 0.2).all()


def test_the_sigmoid_of_what_is_spread_is_spread():
    """And that of a map is the plain one."""
    cell = torch.tensor([[1.0, -2.0]])[:, :, None, None]
    spread_nchw = spread(cell, 3, 5)

    found = sigmoid(spread_nchw)

    assert found.stride()[2:] == (0, 0)
    assert torch.equal(found, torch.sigmoid(spread_nchw.contiguous()))
    assert torch.equal(sigmoid(spread_nchw.contiguous()), found)


def test_every_weight_learns_by_presence_alone():
    """The masks say no more than which classes they show."""
    model = make().train()
    masks = torch.zeros(2, 2, 32, 64)
    masks[0, 1, 3, 4] = 1
    logits_nchw, presence_nc = model(make_pixels(2, 1, 32, 64))

    loss = classifier_loss(0.5)(logits_nchw, masks, None)
    loss.backward()

    assert loss.item() == pytest.approx(0.5 * presence_loss(presence_nc, masks).item())
    learning = [p.grad is not None and bool(p.grad.any()) for p in model.parameters()]
    assert learning[-1]
    assert learning[0]
