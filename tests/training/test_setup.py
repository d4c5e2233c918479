"""What a fold is trained with."""

import pytest
import torch

from steelseg.models.checkpoint import Checkpoint
from steelseg.models.device import half_type
from steelseg.training.setup import build_learner


def build(config, precision=None):
    before = Checkpoint({}, {}, {"precision": precision}) if precision else None
    return build_learner(config, 0, num_batches=1, before=before)


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
