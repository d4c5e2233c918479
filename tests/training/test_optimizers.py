import json

import pytest
import torch
from torch import nn

from steelseg.training.optimizers import Schedule, build_optimizer, parameter_groups

NAMES = ["reduce_on_plateau", "cosine", "one_cycle", "none"]


def make(name, *, learning_rate=0.1, steps=10, patience=1):
    weight = nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer([weight], name="sgd", learning_rate=learning_rate, weight_decay=0)
    schedule = Schedule(optimizer, name=name, steps=steps, patience=patience)
    return optimizer, schedule


def step(optimizer, schedule):
    """Give the rate of one optimizer step."""
    rate = optimizer.param_groups[0]["lr"]
    optimizer.step()
    schedule.after_step()
    return rate


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_each_name_makes_its_optimizer(name, kind):
    """The names are the baseline's own words."""
    optimizer = build_optimizer(
        [nn.Parameter(torch.zeros(1))], name=name, learning_rate=0.25, weight_decay=0.5
    )

    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.param_groups[0]["weight_decay"] == 0.5


def test_none_leaves_the_rate_alone():
    """Also when the Dice stands still."""
    optimizer, schedule = make("none")

    rates = [step(optimizer, schedule) for _ in range(5)]
    for _ in range(5):
        schedule.after_epoch(0.5)

    assert rates == [0.1] * 5
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_plateau_halves_the_rate_after_patience_epochs():
    """A better Dice is a higher one; with patience 1 the second flat epoch halves."""
    optimizer, schedule = make("reduce_on_plateau", patience=1)

    rates = []
    for dice in (0.5, 0.6, 0.6, 0.6, 0.7):
        schedule.after_epoch(dice)
        rates.append(optimizer.param_groups[0]["lr"])

    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05]


def test_cosine_falls_from_the_full_rate_to_nothing():
    """Half-way it is at one half."""
    optimizer, schedule = make("cosine", steps=10)

    rates = [step(optimizer, schedule) for _ in range(10)]

    assert rates[0] == 0.1
    assert rates[5] == pytest.approx(0.05)
    assert rates == sorted(rates, reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_one_cycle_rises_to_the_full_rate_and_falls():
    """It ends with the last step, not one before it."""
    optimizer, schedule = make("one_cycle", steps=10)

    rates = [step(optimizer, schedule) for _ in range(10)]

    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) == pytest.approx(0.1, rel=0.03)
    assert rates.index(max(rates)) in (2, 3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 25 / 1e4)


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_goes_on_from_json(name):
    """Checkpoints keep it as JSON, and a resumed run must take the same rates."""
    optimizer, schedule = make(name)
    other_optimizer, other = make(name)
    for dice in (0.5, 0.4, 0.3):
        step(optimizer, schedule)
        schedule.after_epoch(dice)

    other.restore(json.loads(json.dumps(schedule.state())))
    other_optimizer.load_state_dict(optimizer.state_dict())
    rates = [(step(optimizer, schedule), step(other_optimizer, other)) for _ in range(5)]
    schedule.after_epoch(0.2)
    other.after_epoch(0.2)

    assert all(rate == other_rate for rate, other_rate in rates)
    assert optimizer.param_groups[0]["lr"] == other_optimizer.param_groups[0]["lr"]


def test_the_encoder_has_a_group_of_its_own(model):
    """Every parameter is in one group; decoder and heads come first."""
    outside, encoder = parameter_groups(model, learning_rate=1.0, encoder_rate=0.5)

    assert (outside["lr"], encoder["lr"]) == (1, 0.5)
    listed = [id(parameter) for group in (outside, encoder) for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())
    inside = [id(parameter) for parameter in model.network.encoder.parameters()]
    assert [id(parameter) for parameter in encoder["params"]] == inside


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "reduce_on_plateau"])
def test_every_schedule_keeps_the_rates_apart(model, name):
    """By the factors that they began with."""
    groups = parameter_groups(model, learning_rate=0.1, encoder_rate=0.5)
    optimizer = build_optimizer(groups, name="sgd", learning_rate=0.1, weight_decay=0)
    schedule = Schedule(optimizer, name=name, steps=6, patience=0)

    for _ in range(3):
        optimizer.step()
        schedule.after_step()
        schedule.after_epoch(0.5)

    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] < 0.1 or name == "one_cycle"
    assert rates[1:] == pytest.approx([rates[0] / 2])


def test_one_rate_is_one_group(model):
    """As it always was, so that old checkpoints go on."""
    plain = parameter_groups(model, learning_rate=1.0, encoder_rate=1.0)

    assert [id(p) for p in plain] == [id(p) for p in model.parameters()]
