import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from steelseg.config.components import LOSS_TERMS
from steelseg.config.loss_terms import BASELINE, parse_loss
from steelseg.errors import ConfigError
from steelseg.models.losses import (
    bce,
    build_loss,
    dice_loss,
    focal,
    focal_tversky,
    image_dice,
    jaccard,
    lovasz,
    symmetric_lovasz,
    tversky,
)

NAMES = list(dict.fromkeys([*BASELINE, *LOSS_TERMS]))

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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("focale", "'focale' is not a loss; use one of bce_with_logits, "),
        ("0.5 bce + lovas", "'lovas' is not a loss"),
        ("0 bce", "the weight 0 of bce is not above 0"),
        ("nan bce", "the weight nan of bce is not above 0"),
        ("half bce", "'half' before bce is not a number"),
        ("bce +", "'' is not a loss"),
        ("focal(2", "'focal(2' is not a loss"),
        ("focal(-1)", "gamma=-1 of focal must be 0 or more, such as focal(2)"),
        ("focal(inf)", "gamma=inf of focal must be 0 or more"),
        (
            "0.5 bce + tversky(1.5)",
            "alpha=1.5 of tversky must be from 0 to 1, such as tversky(0.3)",
        ),
        ("focal_tversky(a)", "alpha=a of focal_tversky must be from 0 to 1"),
        ("dice(2)", "dice has no parameter, so write it without (2)"),
    ],
)
def test_what_is_no_loss_is_refused(text, reason):
    """With what is wrong, and the names that there are."""
    with pytest.raises(ConfigError, match=rf"^train\.loss={re.escape(f'{text}: {reason}')}"):
        build_loss(text, pos_weight=())


def test_a_sum_adds_its_terms_by_their_weights():
    """A term without a number has weight 1."""
    logits, masks = make_random()
    loss = build_loss("0.5 focal + 2 lovasz + jaccard", pos_weight=())

    expected = 0.5 * focal(logits, masks) + 2 * lovasz(logits, masks) + jaccard(logits, masks)
    torch.testing.assert_close(loss(logits, masks, None), expected)


def test_the_number_in_parentheses_is_the_parameter_of_a_term():
    """Gamma of focal, alpha of the Tversky losses; without it the default."""
    logits, masks = make_random()
    loss = build_loss("2 focal(1.5) + tversky( 0.7 ) + focal_tversky(0)", pos_weight=())

    expected = 2 * focal(logits, masks, gamma=1.5) + tversky(logits, masks, alpha=0.7)
    expected = expected + focal_tversky(logits, masks, alpha=0.0)
    torch.testing.assert_close(loss(logits, masks, None), expected)
    for short, long in (("focal", "focal(2)"), ("tversky", "tversky(0.3)")):
        assert parse_loss(short) == parse_loss(long)


def test_focal_is_cross_entropy_of_what_is_not_sure():
    """By hand: (1 - probability of what is true) squared times its -log, mean of four pixels."""
    right = (0.75, 0.5, 0.5, 0.75)
    expected = sum(-math.log(p) * (1 - p) ** 2 for p in right) / 4

    assert focal(LOGITS, MASKS).item() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(focal(LOGITS, MASKS, gamma=0.0), bce(LOGITS, MASKS))


def test_tversky_and_jaccard_are_what_one_computes_by_hand():
    """Class 1: right 0.75, false 0.5, missed 0.25; class 2: false 0.75 and nothing else."""
    alpha = 0.3
    per_class = [1 - 1.75 / (0.75 + alpha * 0.5 + 0.7 * 0.25 + 1), 1 - 1 / (alpha * 0.75 + 1)]
    union = [1 - 1.75 / (0.75 + 0.5 + 0.25 + 1), 1 - 1 / (0.75 + 1)]

    assert tversky(LOGITS, MASKS, alpha=alpha).item() == pytest.approx(sum(per_class) / 2)
    powers = [x**0.75 for x in per_class]
    assert focal_tversky(LOGITS, MASKS, alpha=alpha).item() == pytest.approx(sum(powers) / 2)
    assert jaccard(LOGITS, MASKS).item() == pytest.approx(sum(union) / 2)
    # At one half each, Tversky is Dice but for what is added against empty sets.
    half = tversky(LOGITS, MASKS, alpha=0.5, smooth=0.5)
    torch.testing.assert_close(half, dice_loss(LOGITS, MASKS))


def jaccard_loss_of_set(wrong, truth):
    """1 - |truth without wrong| / |truth or wrong|, of sets of pixels."""
    union = truth | wrong
    return 1 - len(truth - wrong) / len(union) if union else 0.0


def lovasz_by_its_definition(logits, truth):
    """The Lovasz extension of the Jaccard loss at the hinges of the pixels, set by set."""
    hinges = [max(0.0, 1 - x * (1 if t else -1)) for x, t in zip(logits, truth, strict=True)]
    positives = {k for k, t in enumerate(truth) if t}
    total, wrong = 0.0, set()
    for pixel in sorted(range(len(hinges)), key=lambda k: -hinges[k]):
        before = jaccard_loss_of_set(wrong, positives)
        wrong = wrong | {pixel}
        total += hinges[pixel] * (jaccard_loss_of_set(wrong, positives) - before)
    return total


@given(
    st.lists(st.tuples(st.floats(-3, 3, width=32), st.booleans()), min_size=1, max_size=12),
    st.sampled_from(["any", "empty", "full"]),
)
def test_lovasz_is_its_definition(pixels, kind):
    """Against sets of pixels, empty and full truths too; the mean over classes, in one batch."""
    logits = [x for x, _ in pixels]
    truth = [t if kind == "any" else kind == "full" for _, t in pixels]
    one = torch.tensor(logits).view(1, 1, 1, -1)
    masks = torch.tensor(truth).float().view(1, 1, 1, -1)
    both, both_masks = torch.cat([one, -one], dim=1), torch.cat([masks, masks], dim=1)

    first = lovasz_by_its_definition(logits, truth)
    second = lovasz_by_its_definition([-x for x in logits], truth)
    mirrored = lovasz_by_its_definition([-x for x in logits], [not t for t in truth])

    assert lovasz(one, masks).item() == pytest.approx(first, abs=1e-5)
    assert lovasz(both, both_masks).item() == pytest.approx((first + second) / 2, abs=1e-5)
    assert symmetric_lovasz(one, masks).item() == pytest.approx((first + mirrored) / 2, abs=1e-5)


@pytest.mark.parametrize("term", ["focal", "tversky", "focal_tversky", "jaccard", "lovasz"])
def test_every_ratio_unlearns_false_alarms_on_an_empty_truth(term):
    """segmentation-models-pytorch masks empty classes out, which leaves nothing to unlearn by."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 4, 4, generator=draw).requires_grad_()
    masks = torch.zeros(2, 1, 4, 4)
    loss = build_loss(term, pos_weight=())

    value = loss(logits, masks, None)
    value.backward()

    assert logits.grad.flatten()[logits.argmax()] > 0
    assert loss(logits.detach() - 0.1 * logits.grad, masks, None) < value


def test_image_dice_takes_each_image_by_itself_and_no_empty_truth():
    """The competition's mean weighs a small defect as much as a large one; empty ones are bce's."""
    # A large defect that is found, a small one that is missed, and an image without any.
    probs = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    masks = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    logits = torch.logit(probs, eps=1e-7).view(3, 1, 1, 4)
    masks = masks.view(3, 1, 1, 4)

    # Found: 1 - 9 / 9. Missed: 1 - 1 / 2, where pooled pixels would say 1 - 9 / 11.
    assert image_dice(logits, masks).item() == pytest.approx(0.25, abs=1e-5)
    assert image_dice(logits[2:], masks[2:]).item() == 0


def test_lovasz_takes_classes_apart():
    """segmentation-models-pytorch sorts all classes in one row; a common class would rule."""
    logits, masks = make_random()

    parts = [lovasz(logits[:, c : c + 1], masks[:, c : c + 1]) for c in range(3)]

    torch.testing.assert_close(lovasz(logits, masks), torch.stack(parts).mean())
