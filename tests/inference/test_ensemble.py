from dataclasses import replace

import numpy as np
import pytest
import torch

from steelseg.errors import CheckpointError
from steelseg.inference.ensemble import Ensemble
from steelseg.inference.forward import ForwardPlan, predict_batch
from steelseg.inference.members import checkpoint_member
from steelseg.models.build import restore_model
from steelseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from steelseg.models.model import build_model

CPU = torch.device("cpu")


def write_network(path, config, seed):
    """Save an untrained network."""
    torch.manual_seed(seed)
    model = build_model(
        arch=config.model.arch,
        encoder=config.model.encoder,
        encoder_weights=None,
        channels=config.data.channels,
        num_classes=config.data.num_classes,
        mean=config.data.channel_mean,
        std=config.data.channel_std,
    )
    state = {"config": config.model_dump(mode="json"), "fold": 0, "epoch": 1, "dice": 0.5}
    save_checkpoint(path, Checkpoint(model.state_dict(), {}, state))
    return path


@pytest.fixture
def paths(tmp_path, make_config):
    """Give checkpoints of two architectures."""
    overrides = [(), ("model.arch=fpn", "model.encoder=tu-resnet10t")]
    return [
        write_network(tmp_path / f"{n}.safetensors", make_config(tmp_path, *changes), n)
        for n, changes in enumerate(overrides)
    ]


def make_batches(count, size=2):
    random = np.random.default_rng(0)
    return [
        (
            tuple(f"{n}_{i}.jpg" for i in range(size)),
            random.integers(0, 256, (size, 32, 64, 1), dtype=np.uint8),
        )
        for n in range(count)
    ]


def open_ensemble(paths, *, sequential=False):
    members = [checkpoint_member(path) for path in paths]
    return Ensemble(members, sequential=sequential, device=CPU)


def predict(paths, batches, *, sequential=False, plan=None):
    ensemble = open_ensemble(paths, sequential=sequential)
    return list(ensemble.predict(batches, plan or ForwardPlan()))


def test_an_ensemble_is_the_mean_of_its_members(paths):
    """Of their probabilities, whatever their architectures."""
    batches = make_batches(1)
    plan = ForwardPlan(tta="hflip")
    models = [restore_model(load_checkpoint(path)) for path in paths]
    first, second = (predict_batch(model, batches[0][1], plan, CPU).probs_nchw for model in models)

    found = predict(paths, batches, plan=plan)

    for place, (image_id, image_hwc, probs_chw) in enumerate(found):
        assert image_id == batches[0][0][place]
        np.testing.assert_array_equal(image_hwc, batches[0][1][place])
        expected = (first[place] + second[place]) / 2
        torch.testing.assert_close(torch.from_numpy(probs_chw), expected)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_one_network_at_a_time_gives_the_same_bits(paths, count):
    """It is a choice of memory against time, not of results."""
    together = predict(paths, make_batches(count))
    sequential = predict(paths, make_batches(count), sequential=True)

    assert [r[0] for r in sequential] == [r[0] for r in together]
    assert len(together) == 2 * count
    for found, expected in zip(sequential, together, strict=True):
        np.testing.assert_array_equal(found[2], expected[2])


def test_an_ensemble_of_one_is_that_one(paths):
    """A fold predicts as it was validated."""
    batches = make_batches(1)
    model = restore_model(load_checkpoint(paths[0]))

    found = predict(paths[:1], batches)

    expected = predict_batch(model, batches[0][1], ForwardPlan(), CPU).probs_nchw
    np.testing.assert_array_equal(np.stack([r[2] for r in found]), expected.numpy())


def test_the_same_checkpoint_twice_changes_nothing(paths):
    """A mean of equals."""
    once, twice = (predict(paths[:1] * n, make_batches(1)) for n in (1, 2))

    np.testing.assert_array_equal(once[0][2], twice[0][2])


def test_predicting_reads_batch_by_batch(paths):
    """Results come while later strips are not yet read."""
    taken = []

    def source():
        for batch in make_batches(12):
            taken.append(batch[0])
            yield batch

    results = open_ensemble(paths[:1], sequential=True).predict(source(), ForwardPlan())
    next(results)

    assert len(taken) <= 8  # A chunk of four in use, and one ahead.


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize(
    "override", ["data.num_classes=3", "data.class_names=[a, b]", "data.channels=3"]
)
def test_strangers_are_no_ensemble(paths, tmp_path, make_config, override, sequential):
    """The mean of a scratch and an inclusion is neither."""
    other = write_network(tmp_path / "other.safetensors", make_config(tmp_path, override), 0)
    setting = override.partition("=")[0]

    with pytest.raises(CheckpointError, match=f"{other} has {setting}=.*needs the same classes"):
        open_ensemble([paths[0], other], sequential=sequential)


def test_weights_that_do_not_fit_their_settings_are_refused(paths, make_config, tmp_path):
    """Someone has mixed two files."""
    checkpoint = load_checkpoint(paths[0])
    state = dict(checkpoint.state)
    state["config"] = make_config(tmp_path, "model.arch=unet").model_dump(mode="json")

    with pytest.raises(CheckpointError, match="The weights do not match the settings stored"):
        restore_model(replace(checkpoint, state=state))


@pytest.mark.parametrize("sequential", [False, True])
def test_a_damaged_member_is_refused_before_the_first_strip(paths, sequential):
    """Its header is whole, so that only its weights can tell."""
    content = bytearray(paths[1].read_bytes())
    content[-100] ^= 1
    paths[1].write_bytes(content)

    with pytest.raises(CheckpointError, match=f"{paths[1]} is damaged"):
        open_ensemble(paths, sequential=sequential)


def test_a_checkpoint_replaced_while_in_use_is_refused(paths):
    """One at a time, a network is read again for every few batches."""
    ensemble = open_ensemble(paths[:1], sequential=True)
    paths[0].write_bytes(paths[1].read_bytes())

    with pytest.raises(CheckpointError, match="was replaced while it was in use"):
        next(ensemble.predict(make_batches(1), ForwardPlan()))
