import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from steelseg.models.device import half_type
from steelseg.training.learner import build_learner, build_seeded_network, set_training_mode


def build(config, precision=""):
    model = build_seeded_network(config, 0, is_new=not precision)
    return build_learner(config, model, num_batches=1, resumed_precision=precision)


@pytest.mark.parametrize(
    ("precision", "half"), [("cpu bfloat16", torch.bfloat16), ("cpu float32", None)]
)
def test_training_goes_on_in_the_precision_that_it_began_in(make_config, tmp_path, precision, half):
    """Another one would take other steps than a training that was never stopped."""
    learner = build(make_config(tmp_path, "train.amp=true"), precision)

    assert learner.half == half
    assert learner.precision == precision


def test_a_training_from_another_kind_of_device_takes_the_best_of_this_one(make_config, tmp_path):
    assert build(make_config(tmp_path, "train.amp=true"), "tpu float16").half == half_type(
        torch.device("cpu")
    )


def test_amp_false_stays_in_float32(make_config, tmp_path):
    config = make_config(tmp_path, "train.amp=false")

    assert build(config, "cpu bfloat16").half is None
    assert build(config).half is None


def test_a_compiled_network_keeps_the_names_of_its_weights(make_config, tmp_path):
    """Checkpoints of a compiled and of a plain training are the same files."""
    plain = build(make_config(tmp_path)).model.state_dict()
    compiled = build(make_config(tmp_path, "train.compile=true")).model.state_dict()

    assert list(plain) == list(compiled)


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
