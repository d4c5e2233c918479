import math

import pytest
import torch
from torch import nn

from steelseg.data.formats.annotations import Labels
from steelseg.data.formats.rle import parse
from steelseg.errors import TrainingError
from steelseg.inference.forward import ForwardPlan
from steelseg.models.losses import build_loss
from steelseg.training.loop import (
    Learner,
    Position,
    make_scaler,
    optimizer_tensors,
    restore_optimizer,
    train_epoch,
    validate,
)
from steelseg.training.optimizers import Schedule, build_optimizer

CPU = torch.device("cpu")
BCE = build_loss("bce_with_logits", pos_weight=())


class Scaled(nn.Module):
    """A network without batch normalisation: one convolution of pixels brought to [0, 1]."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, images_nchw):
        return self.conv(images_nchw.float() / 255)


def make_learner(optimizer="adam", learning_rate=0.05, model=None):
    torch.manual_seed(0)
    model = model or Scaled()
    chosen = build_optimizer(
        model.parameters(), name=optimizer, learning_rate=learning_rate, weight_decay=0
    )
    schedule = Schedule(chosen, name="none", steps=1, patience=1)
    return Learner(model, chosen, schedule, make_scaler(CPU, None), CPU)


def make_batches(sizes, seed=0):
    """Batches of random pixels, each its own truth of two classes."""
    draw = torch.Generator().manual_seed(seed)
    batches = []
    for size in sizes:
        images = torch.randint(0, 256, (size, 1, 6, 8), generator=draw, dtype=torch.uint8)
        masks = torch.cat([images > 128, images < 30], dim=1).to(torch.uint8)
        batches.append((images, masks, None))
    return batches


def train(
    learner,
    batches,
    *,
    accumulate=1,
    gradient_clip=0.0,
    loss=BCE,
    position=None,
    after_step=lambda: None,
):
    return train_epoch(
        learner,
        batches,
        loss,
        num_batches=len(batches) + (position.step if position else 0),
        accumulate=accumulate,
        gradient_clip=gradient_clip,
        position=position or Position(),
        before_batch=lambda _: None,
        after_step=after_step,
    )


def weights(learner):
    return nn.utils.parameters_to_vector(learner.model.parameters()).detach().clone()


def test_the_loss_falls_over_epochs():
    """A threshold on brightness is what one convolution can learn."""
    learner, batches = make_learner(), make_batches([4, 4])

    losses = [train(learner, batches) for _ in range(20)]

    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_goes_on_from_any_step(accumulate):
    """The mean loss and the weights are those of an epoch in one go."""
    batches = make_batches([2, 3, 2, 4, 1])
    whole, parted, position = make_learner(), make_learner(), Position()
    expected = train(whole, batches, accumulate=accumulate)

    def stop():
        if position.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(parted, batches, accumulate=accumulate, position=position, after_step=stop)
    found = train(parted, batches[2:], accumulate=accumulate, position=position)

    assert found == expected
    assert (position.step, position.samples) == (5, 12)
    assert torch.equal(weights(parted), weights(whole))


def test_two_batches_of_two_step_as_one_of_four():
    """Accumulation is for memory; without batch statistics the step is the same."""
    ((images, masks, _),) = make_batches([4])
    halves = [(images[:2], masks[:2], None), (images[2:], masks[2:], None)]
    whole, accumulated = make_learner("sgd"), make_learner("sgd")

    whole_loss = train(whole, [(images, masks, None)])
    accumulated_loss = train(accumulated, halves, accumulate=2)

    torch.testing.assert_close(weights(accumulated), weights(whole))
    assert accumulated_loss == pytest.approx(whole_loss)


def test_the_last_group_is_averaged_over_the_batches_it_has():
    """Three batches at accumulate=2 are a step of two and a step of one, at full strength."""
    batches = make_batches([2, 2, 2])
    expected, found = make_learner("sgd"), make_learner("sgd")

    train(expected, batches[:2], accumulate=2)
    train(expected, batches[2:], accumulate=1)
    train(found, batches, accumulate=2)

    torch.testing.assert_close(weights(found), weights(expected))


def test_the_mean_loss_is_over_samples():
    """A last batch of one sample counts once, not as much as a batch of three."""
    batches = make_batches([3, 1])
    losses = [BCE(make_learner().model(i), m.float(), None).item() for i, m, _ in batches]

    found = train(make_learner("sgd", learning_rate=1e-12), batches)

    assert found == pytest.approx((3 * losses[0] + losses[1]) / 4, rel=1e-5)


def test_clipping_bounds_the_step():
    """With plain momentum-free first steps the step is rate times gradient, at most rate x clip."""
    learner = make_learner("sgd", learning_rate=1.0)
    before = weights(learner)

    train(learner, make_batches([4]), gradient_clip=1e-3)

    # Nesterov's first step is 1 + momentum times the gradient.
    assert (weights(learner) - before).norm() == pytest.approx(1.9e-3, rel=1e-3)


def test_a_loss_that_is_not_a_number_stops_before_the_step():
    """The weights of the step before are what a checkpoint can still keep."""
    learner, batches = make_learner(), make_batches([2, 2, 2])
    batches[1] = (batches[1][0].float() * math.nan, *batches[1][1:])

    train(learner, batches[:1])
    expected = weights(learner)
    learner = make_learner()
    with pytest.raises(TrainingError, match="step 2 of 3: the loss is nan"):
        train(learner, batches)

    torch.testing.assert_close(weights(learner), expected, rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    """A finite loss can have an infinite gradient, which would spoil every weight."""
    learner = make_learner()
    before = weights(learner)

    def root_of_zero(logits, masks, valid):
        return (logits - logits.detach()).abs().sum().sqrt()

    with pytest.raises(TrainingError, match="step 1: the gradient is"):
        train(learner, make_batches([2]), gradient_clip=1.0, loss=root_of_zero)

    assert torch.equal(weights(learner), before)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_an_optimizer_that_was_saved_goes_on_to_the_same_bits(optimizer):
    """Momentum and step counts are half of what training has learned."""
    batches = make_batches([2, 2])
    straight = make_learner(optimizer)
    train(straight, batches)
    resumed = make_learner(optimizer)
    resumed.model.load_state_dict(straight.model.state_dict())
    tensors = {k: v.clone() for k, v in optimizer_tensors(straight.optimizer).items()}
    groups = straight.optimizer.state_dict()["param_groups"]
    restore_optimizer(resumed.optimizer, tensors.items(), groups)

    train(straight, batches)
    train(resumed, batches)

    assert torch.equal(weights(resumed), weights(straight))


class KnowsTheTruth(nn.Module):
    """A network that is sure: class 1 where it is bright, class 2 nowhere."""

    def forward(self, images_nchw):
        bright = (images_nchw > 128).float() * 20 - 10
        return torch.cat([bright, torch.full_like(bright, -10)], dim=1)


def make_labels():
    """Two images of 2 x 3 pixels; class 1 is pixels 1 and 2 of the first."""
    runs = {("a.png", 1): parse("1 2", 6)}
    return Labels(2, {"a.png": (2, 3), "b.png": (2, 3)}, runs)


def run_validation(model, images_nhwc):
    return validate(
        model,
        [(("a.png", "b.png"), images_nhwc)],
        make_labels(),
        BCE,
        plan=ForwardPlan(),
        binarize=lambda probs_chw: probs_chw >= 0.5,
        device=CPU,
    )


def test_validation_scores_what_the_network_says():
    """The first image is found whole; one false pixel on the clean one costs its pair."""
    images = torch.zeros(2, 2, 3, 1, dtype=torch.uint8)
    images[0, :, 0] = 255
    images[1, 1, 1] = 255

    loss, scores = run_validation(KnowsTheTruth(), images.numpy())

    assert scores.overall.dice == 3 / 4
    assert scores.overall.dice_positive == 1
    assert scores.overall.dice_negative == 2 / 3
    # One wrong pixel of 24 costs about ten, the others nothing.
    assert loss == pytest.approx(10 / 24, rel=0.01)


def test_validation_that_is_not_a_number_is_an_error():
    """A network of NaN would score as all-empty, which looks like a Dice of 0.85."""

    class Broken(nn.Module):
        def forward(self, images_nchw):
            return torch.full((len(images_nchw), 2, 2, 3), math.nan)

    with pytest.raises(TrainingError, match="the validation loss is nan"):
        run_validation(Broken(), torch.zeros(2, 2, 3, 1, dtype=torch.uint8).numpy())
