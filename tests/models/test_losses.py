import math

import pytest
import torch
import torch.nn.functional as F

from steelseg.errors import ConfigError
from steelseg.models.losses import bce, build_loss, dice_loss

NAMES = ["bce_with_logits", "dice", "combo", "bce_pos_weight", "bce_dice_pos_weight"]

# Two classes of one strip of 1 x 2 pixels. Class 1: probabilities 0.75 and 0.5, truth 1 and 0.
# Class 2: probabilities 0.5 and 0.25, truth empty.
LOGITS = torch.tensor([[[[math.log(3), 0.0]], [[0.0, -math.log(3)]]]])
MASKS = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]])

# -log of the probability of what is true, pixel by pixel.
BCE = (-math.log(0.75) - math.log(0.5) - math.log(0.5) - math.log(0.75)) / 4
BCE_WEIGHTED = (-3 * math.log(0.75) - math.log(0.5) - math.log(0.5) - math.log(0.75)) / 4
# Class 1: 1 - (2 x 0.75 + 1) / (1.25 + 1 + 1). Class 2: 1 - 1 / (0.75 + 1).
DICE = ((1 - 2.5 / 3.25) + (1 - 1 / 1.75)) / 2


def make_random(seed=0, height=5, width=7):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, height, width, generator=draw)
    masks = (torch.rand(2, 3, height, width, generator=draw) < 0.3).float()
    return logits, masks


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bce_with_logits", BCE),
        ("dice", DICE),
        ("combo", 0.5 * BCE + 0.5 * DICE),
        ("bce_pos_weight", BCE_WEIGHTED),
        ("bce_dice_pos_weight", 0.75 * BCE_WEIGHTED + 0.25 * DICE),
    ],
)
def test_each_loss_is_what_one_computes_by_hand(name, expected):
    """The weights of the mixtures are the baseline's."""
    loss = build_loss(name, pos_weight=(3.0, 5.0))

    assert loss(LOGITS, MASKS, None).item() == pytest.approx(expected, rel=1e-6)


def test_the_weight_of_a_class_is_for_its_defect_pixels():
    """Class 2 weighs the second channel, and no pixel without a defect."""
    logits, masks = make_random()
    weights = (1.0, 4.0, 1.0)

    found = bce(logits, masks, pos_weight=weights)

    per_pixel = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    per_pixel[:, 1] *= 1 + 3 * masks[:, 1]
    torch.testing.assert_close(found, per_pixel.mean())


def test_weights_of_one_change_nothing():
    """That is the default of any other number of classes than four."""
    logits, masks = make_random()
    weighted = build_loss("bce_pos_weight", pos_weight=(1.0, 1.0, 1.0))
    plain = build_loss("bce_with_logits", pos_weight=())

    torch.testing.assert_close(weighted(logits, masks, None), plain(logits, masks, None))


def test_dice_is_pooled_over_the_batch_and_not_over_classes():
    """Two strips count as one of twice the width; a common class must not hide a rare one."""
    logits, masks = make_random()
    wide_logits, wide_masks = (torch.cat([t[:1], t[1:]], dim=3) for t in (logits, masks))

    parts = [dice_loss(wide_logits[:, c : c + 1], wide_masks[:, c : c + 1]) for c in range(3)]

    torch.testing.assert_close(dice_loss(logits, masks), torch.stack(parts).mean())


def test_dice_of_a_perfect_prediction_is_nothing():
    """Also where there is nothing to find."""
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, 1:3] = 1

    assert dice_loss((masks - 0.5) * 200, masks).item() == pytest.approx(0, abs=1e-6)


def test_dice_of_an_empty_truth_wants_fewer_false_alarms():
    """Half of all pairs are empty; without a gradient there, nothing unlearns a false alarm."""
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    masks = torch.zeros(1, 1, 4, 4)

    loss = dice_loss(logits, masks)
    loss.backward()

    assert (logits.grad > 0).all()
    assert dice_loss(logits.detach() - 0.1 * logits.grad, masks) < loss


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    """Whatever the network says about it, and whatever truth was repeated into it."""
    loss = build_loss(name, pos_weight=(2.0, 1.0, 3.0))
    logits, masks = make_random()
    expected = loss(logits, masks, None)
    padded_logits, padded_masks = (
        F.pad(tensor, (0, 3, 0, 2), value=value) for tensor, value in ((logits, 9.0), (masks, 1.0))
    )
    valid = F.pad(torch.ones(2, 1, 5, 7, dtype=torch.bool), (0, 3, 0, 2))

    padded_logits.requires_grad_()
    found = loss(padded_logits, padded_masks, valid)
    found.backward()

    torch.testing.assert_close(found.detach(), expected)
    assert not (padded_logits.grad * ~valid).any()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_gives_the_loss_in_single(name):
    """bfloat16 has eight bits: it cannot add up 409,600 pixels."""
    loss = build_loss(name, pos_weight=(2.0, 1.0, 3.0))
    logits, masks = make_random()
    half = logits.bfloat16()

    found = loss(half, masks.to(torch.uint8), None)

    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(half.float(), masks, None), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_give_a_finite_gradient(name):
    """Single precision saturates at logits of about 90."""
    masks = make_random()[1]
    logits = ((0.5 - masks) * 2e4).requires_grad_()

    build_loss(name, pos_weight=(1.0, 1.0, 1.0))(logits, masks, None).backward()

    assert logits.grad.isfinite().all()


def test_an_unknown_loss_is_refused():
    """With the names that there are."""
    with pytest.raises(ConfigError, match=r"train.loss=focal: expected one of bce_with_logits, "):
        build_loss("focal", pos_weight=())
