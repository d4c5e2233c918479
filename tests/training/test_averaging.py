import pytest
import torch
from torch import nn

from steelseg.training.averaging import WeightAverage


def make_network(value):
    """Batch normalisation before a weight, all of one value."""
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


def values_of(state):
    return {name: tensor.flatten()[0].item() for name, tensor in state.items()}


def test_the_average_follows_by_its_decay():
    """By hand; the first updates use a lower decay."""
    average = WeightAverage(make_network(0))
    expected = 0.0

    for count, value in enumerate([4, 4, 8, 8]):
        average.update(make_network(value), decay=0.25)
        keep = min(0.25, (1 + count) / (10 + count))
        expected = keep * expected + (1 - keep) * value
        found = values_of(average.model.state_dict())["1.weight"]
        assert found == pytest.approx(expected)


def test_counters_are_copied():
    """Batch normalization counts its batches in integers, which are not averaged."""
    average = WeightAverage(make_network(7))

    average.update(make_network(2), decay=0.9)

    assert values_of(average.model.state_dict())["0.num_batches_tracked"] == 2


def test_the_average_changes_no_network_and_is_not_trained():
    """It is a copy without gradients."""
    model = make_network(1)
    average = WeightAverage(model)
    average.update(make_network(3), decay=0.5)

    assert values_of(model.state_dict())["1.weight"] == 1
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
