import math
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steelseg.errors import CheckpointError, TrainingError
from steelseg.files.atomic import write_bytes
from steelseg.models.checkpoint import Checkpoint, load_checkpoint, read_header, save_checkpoint


def make_checkpoint():
    draw = torch.Generator().manual_seed(0)
    return Checkpoint(
        model={
            "network.conv.weight": torch.randn(3, 2, generator=draw),
            "network.half": torch.randn(5, generator=draw).bfloat16(),
            "network.bn.num_batches_tracked": torch.tensor(12345678901),
            "network.flags": torch.tensor([True, False]),
            "network.none": torch.zeros(0, 3),
        },
        optimizer={"0.exp_avg": torch.randn(3, 2, generator=draw), "0.step": torch.tensor(7.0)},
        state={"fold": 1, "epoch": 3, "dice": 0.1 + 0.2, "history": [{"val_dice": 0.5}]},
    )


def assert_same(found, expected):
    for part in ("model", "optimizer"):
        tensors = getattr(expected, part)
        assert getattr(found, part).keys() == tensors.keys()
        for name, tensor in getattr(found, part).items():
            assert tensor.dtype == tensors[name].dtype
            assert tensor.shape == tensors[name].shape
            assert torch.equal(tensor, tensors[name])
    assert found.state == expected.state


def test_what_was_saved_comes_back(tmp_path):
    """To the bit: half precision, counters, scalars, empty tensors and floats of the state."""
    save_checkpoint(tmp_path / "a.safetensors", make_checkpoint())

    assert_same(load_checkpoint(tmp_path / "a.safetensors"), make_checkpoint())


def test_settings_come_back(tmp_path, make_config):
    """A checkpoint says by itself what network it is of."""
    config = make_config(tmp_path, "postprocess.threshold=[0.4, 0.6]")
    state = {"config": config.model_dump(mode="json")}
    save_checkpoint(tmp_path / "a.safetensors", Checkpoint({}, {}, state))

    assert load_checkpoint(tmp_path / "a.safetensors").config == config


def test_tensors_that_share_memory_or_lie_oddly_are_saved_as_their_values(tmp_path):
    """Networks run in channels_last, and tied weights are one tensor under two names."""
    images = torch.arange(120.0).view(1, 4, 5, 6).to(memory_format=torch.channels_last)
    model = {"a": images, "b": images, "c": images[..., ::2]}

    save_checkpoint(tmp_path / "a.safetensors", Checkpoint(model, {}, {}))

    found = load_checkpoint(tmp_path / "a.safetensors").model
    assert all(torch.equal(found[name], tensor) for name, tensor in model.items())


def test_a_flipped_bit_is_refused(tmp_path):
    """Anywhere: in the length, the header, the settings or a weight."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, make_checkpoint())
    content = path.read_bytes()
    # Every bit of the first bytes, and a sample of the others.
    places = [*range(64), *random.Random(0).sample(range(64, 8 * len(content)), 400)]

    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(path)):
            load_checkpoint(path)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, kept):
    """As a full disk leaves it."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, make_checkpoint())
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(CheckpointError, match="is not a complete safetensors file"):
        load_checkpoint(path)


def test_a_flipped_bit_in_the_settings_is_no_wrong_setting(tmp_path, make_config):
    """The settings are read before the tensors; the user did not write them wrong."""
    path = tmp_path / "a.safetensors"
    state = {"config": make_config(tmp_path).model_dump(mode="json")}
    save_checkpoint(path, Checkpoint({}, {}, state))
    path.write_bytes(path.read_bytes().replace(b"num_folds", b"num_folde"))

    with pytest.raises(CheckpointError, match=r"a.safetensors is damaged: its SHA-256"):
        read_header(path)


def test_weights_of_others_are_refused(tmp_path):
    """The message says where they belong."""
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")

    with pytest.raises(CheckpointError, match=r"is not a steelseg checkpoint.*encoder_weights"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["no_such.safetensors", ""])
def test_a_missing_file_is_refused(tmp_path, name):
    """A folder is no checkpoint either."""
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        load_checkpoint(tmp_path / name)


def test_a_pickle_is_refused_unread(tmp_path):
    """Reading one runs what it says."""
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pth")

    with pytest.raises(CheckpointError, match="is not a complete safetensors file"):
        load_checkpoint(tmp_path / "a.pth")


def test_another_version_is_refused(tmp_path):
    """It may mean something else by the same names."""
    path = tmp_path / "a.safetensors"

    save_checkpoint(path, Checkpoint({}, {}, {"format": 99}))

    with pytest.raises(CheckpointError, match="an incompatible version of steelseg"):
        load_checkpoint(path)


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path):
    """A state that JSON cannot hold is our bug, and must not cost a training."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, make_checkpoint())

    with pytest.raises(TypeError):
        save_checkpoint(path, Checkpoint({}, {}, {"dice": np.zeros(2)}))

    assert_same(load_checkpoint(path), make_checkpoint())
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_new_checkpoint_takes_the_place_of_the_old_one(tmp_path):
    """Whole, with nothing beside it."""
    path = tmp_path / "a.safetensors"
    write_bytes(path, b"old")

    save_checkpoint(path, make_checkpoint())

    assert_same(load_checkpoint(path), make_checkpoint())
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_happens_to_the_file_later_does_not_reach_the_weights(tmp_path):
    """A mapped file that is cut would end the process without a word."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, make_checkpoint())
    found = load_checkpoint(path)

    path.write_bytes(b"")

    assert_same(found, make_checkpoint())


@pytest.mark.parametrize("part", ["model", "optimizer"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_never_saved(tmp_path, part, value):
    """The checkpoint before stays; one bad value among good ones is found."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, make_checkpoint())
    broken = make_checkpoint()
    name, tensor = next(iter(getattr(broken, part).items()))
    tensor.view(-1)[-1] = value

    with pytest.raises(TrainingError, match=f"{part}.{name} is not finite, so a.safetensors was"):
        save_checkpoint(path, broken)

    assert_same(load_checkpoint(path), make_checkpoint())
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
