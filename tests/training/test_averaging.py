import pytest
import torch
from torch import nn

from steelseg.training.averaging import Average


def make_network(value):
    """Batch normalisation before a weight, all of one value."""
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


def values_of(state):
    return {name: tensor.flatten()[0].item() for name, tensor in state.items()}


def test_a_plain_mean_is_the_mean_of_its_members():
    """Of weights and statistics; a counter has no mean and is the last one's."""
    average = Average(make_network(7))

    for value in (1, 2, 6):
        average.add(make_network(value))

    found = values_of(average.model.state_dict())
    assert found.pop("0.num_batches_tracked") == 6
    assert found == pytest.approx(dict.fromkeys(found, 3.0))


def test_a_moving_mean_follows_by_its_decay():
    """By hand: the first is taken whole, but for the warm-up; then by what decay leaves."""
    average = Average(make_network(0))
    expected = 0.0

    for count, value in enumerate([4, 4, 8, 8]):
        average.follow(make_network(value), decay=0.25)
        keep = min(0.25, (1 + count) / (10 + count))
        expected = keep * expected + (1 - keep) * value
        found = values_of(average.model.state_dict())["1.weight"]
        assert found == pytest.approx(expected)


def test_the_first_network_is_taken_to_the_bit():
    """A mean of one is that one."""
    model = nn.Conv2d(1, 2, 3)
    average = Average(nn.Conv2d(1, 2, 3))

    average.add(model)

    for name, tensor in model.state_dict().items():
        assert torch.equal(average.model.state_dict()[name], tensor)


def test_a_mean_changes_no_network_and_learns_nothing():
    """It is a copy, out of reach of the optimizer."""
    model = make_network(1)
    average = Average(model)
    average.follow(make_network(3), decay=0.5)

    assert values_of(model.state_dict())["1.weight"] == 1
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
