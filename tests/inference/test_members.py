from dataclasses import replace

import pytest
import torch

from steelseg import Predictor
from steelseg.errors import CheckpointError, ConfigError
from steelseg.inference.forward import Answer, ForwardPlan
from steelseg.inference.members import (
    EnsembleWeight,
    check_members_compatible,
    check_settings_match,
    checkpoint_member,
)

PLAN = ForwardPlan()


@pytest.fixture
def member(trained_run):
    return checkpoint_member(trained_run / "fold_0" / "best_model.safetensors")


def changed(member, section, **values):
    """Give a member that was trained with other settings."""
    other = getattr(member.config, section).model_copy(update=values)
    config = member.config.model_copy(update={section: other})
    return replace(member, name="other", config=config)


@pytest.mark.parametrize(
    ("presence", "expected"), [(None, []), (0.0, [0.0, 0.0]), (0.5, [0.25, 0.25])]
)
def test_weights_multiply_classes_and_presence(presence, expected):
    """A run that was not chosen for presence has no say in it."""
    answer = Answer(torch.ones(1, 2, 1, 1), torch.full((1, 2), 0.5))

    found = EnsembleWeight(PLAN, (0.5, 2.0), presence).apply(answer)

    assert found.probs_nchw.flatten().tolist() == [0.5, 2.0]
    assert found.presence_nc.flatten().tolist() == expected


def test_presence_heads_must_agree_unless_presence_has_weights(member):
    """A mean over some of the members would be another presence than each was trained for."""
    members = [member, changed(member, "model", presence_head=True)]

    with pytest.raises(CheckpointError, match=r"other has model.presence_head=True"):
        check_members_compatible(members, with_presence=True)
    check_members_compatible(members, with_presence=False)


def test_a_combined_run_keeps_the_flips_of_its_members(member):
    """They were evaluated with these, and weights were chosen for them."""
    member = replace(member, weight=EnsembleWeight(PLAN, (1.0, 1.0), None))
    check_settings_match(member, member.config)

    flipped = changed(member, "inference", tta="both").config
    with pytest.raises(ConfigError, match=r"inference.tta has no effect on a combined run"):
        check_settings_match(member, flipped)
    more = changed(member, "data", num_classes=3).config
    with pytest.raises(ConfigError, match=r"combined with data.num_classes=2, but .* say 3"):
        check_settings_match(member, more)


def test_another_number_of_classes_is_refused(trained_run):
    """The classes are the network's; a setting cannot give it more."""
    with pytest.raises(CheckpointError, match=r"with data.num_classes=2.* say 3"):
        Predictor(trained_run, ["data.num_classes=3"])


@pytest.mark.parametrize(
    "override", ["model.arch=fpn", "model.encoder=resnet18", "data.channels=3", "data.mean=[0.1]"]
)
def test_what_the_network_was_trained_as_cannot_be_set(trained_run, override):
    """The setting would change nothing, in silence, or give wrong masks."""
    with pytest.raises(CheckpointError, match=f"trained with {override.partition('=')[0]}="):
        Predictor(trained_run, [override])
