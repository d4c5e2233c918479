import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from steelseg.models.model import build_model
from steelseg.training.layer_rates import parameter_groups, set_training_mode
from steelseg.training.optimizers import Schedule, build_optimizer


@pytest.fixture
def model():
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


def step(model, groups, **mode):
    """One step of plain gradient descent; gives the names of what changed."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(groups, lr=0.1)
    set_training_mode(model, **mode)
    images = torch.randint(0, 255, (2, 1, 32, 64), dtype=torch.uint8)
    model(images).square().mean().backward()
    optimizer.step()
    after = model.state_dict()
    return {name for name in after if not torch.equal(after[name], before[name])}


def test_frozen_batch_norm_keeps_its_statistics(model):
    """Of the encoder alone; its weights learn on."""
    changed = step(model, model.parameters(), freeze_batch_norm=True)

    inside = {name for name in changed if name.startswith("network.encoder.")}
    assert inside
    assert not any("running" in name for name in inside)
    assert any("running" in name for name in changed - inside)


def test_nothing_frozen_is_plain_training_mode(model):
    set_training_mode(model, freeze_batch_norm=False)

    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert any(isinstance(module, _BatchNorm) for module in model.modules())


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
