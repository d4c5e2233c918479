import pytest
import torch
from safetensors.torch import load_file, save_file

from steelseg.errors import CheckpointError, ConfigError
from steelseg.models.checkpoint import Checkpoint, save_checkpoint
from steelseg.models.model import build_model
from steelseg.models.weights import is_file_name, load_encoder_weights


def make(encoder="tu-resnet10t", *, arch="pspnet", depth=None, channels=3, seed=0, weights=None):
    torch.manual_seed(seed)
    return build_model(
        arch=arch,
        encoder_depth=depth,
        encoder=encoder,
        encoder_weights=weights,
        channels=channels,
        num_classes=2,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )


def plain(state):
    return {name: tensor.contiguous().clone() for name, tensor in state.items()}


def assert_same(encoder, other):
    found, expected = encoder.state_dict(), other.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("prefix", ["", "encoder.", "network.encoder.", "module."])
@pytest.mark.parametrize("encoder", ["tu-resnet10t", "mobilenet_v2"])
def test_a_state_dict_loads_under_its_usual_names(tmp_path, encoder, prefix):
    """Alone, or as part of what it was trained in."""
    source = make(encoder).network.encoder
    path = tmp_path / "a.safetensors"
    save_file({prefix + name: t for name, t in plain(source.state_dict()).items()}, path)

    target = make(encoder, seed=1, weights=str(path)).network.encoder

    assert_same(target, source)


@pytest.mark.parametrize("encoder", ["tu-resnet10t", "tu-mobilenetv3_small_050", "mobilenet_v2"])
def test_a_shallow_encoder_leaves_the_deeper_stages_of_a_file(tmp_path, encoder):
    """A pspnet and model.encoder_depth take fewer than a file of ImageNet weights has."""
    source = make(encoder, arch="unet").network.encoder
    path = tmp_path / "a.safetensors"
    save_file(plain(source.state_dict()), path)

    for shallow in ({"arch": "pspnet"}, {"arch": "linknet", "depth": 4}):
        target = make(encoder, seed=1, weights=str(path), **shallow).network.encoder

        expected = source.state_dict()
        assert target.state_dict().keys() <= expected.keys()
        assert all(torch.equal(tensor, expected[n]) for n, tensor in target.state_dict().items())


def test_a_longer_encoder_is_no_deeper_one(tmp_path):
    """Resnet34 has every tensor of resnet18, and more in the same stages."""
    path = tmp_path / "a.safetensors"
    save_file(plain(make("tu-resnet34", arch="unet").network.encoder.state_dict()), path)

    with pytest.raises(CheckpointError, match=r"unexpected \(model.layer1.2"):
        make("tu-resnet18", arch="linknet", depth=4, weights=str(path))


def test_a_checkpoint_of_ours_gives_its_encoder(tmp_path):
    """So that a trained network can be the start of another; its decoder is left behind."""
    source = make()
    path = tmp_path / "best_model.safetensors"
    save_checkpoint(path, Checkpoint(source.state_dict(), {}, {}))

    target = make(seed=1)
    load_encoder_weights(target.network.encoder, path, channels=3)

    assert_same(target.network.encoder, source.network.encoder)
    weight = target.network.segmentation_head[0].weight
    assert not torch.equal(weight, source.network.segmentation_head[0].weight)


def test_the_head_of_a_classifier_is_left_out(tmp_path):
    """Files of torchvision and timm have one; old ones have no batch counters."""
    source = make().network.encoder
    state = {k: t for k, t in plain(source.state_dict()).items() if "num_batches" not in k}
    state |= {"fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}
    save_file({k.removeprefix("model."): t for k, t in state.items()}, tmp_path / "a.safetensors")

    target = make(seed=1, weights=str(tmp_path / "a.safetensors")).network.encoder

    assert torch.equal(next(target.parameters()), next(source.parameters()))


@pytest.mark.parametrize("encoder", ["tu-resnet10t", "mobilenet_v2"])
def test_a_grey_encoder_answers_as_to_a_grey_image_repeated(tmp_path, encoder):
    """Three channels of a first convolution are summed to one; the rest is as in the file."""
    colour = make(encoder).eval()
    save_file(plain(colour.network.encoder.state_dict()), tmp_path / "a.safetensors")
    grey = make(encoder, channels=1, seed=1, weights=str(tmp_path / "a.safetensors")).eval()
    images = torch.rand(1, 1, 32, 64)

    with torch.inference_mode():
        found = grey.network.encoder(images)
        expected = colour.network.encoder(images.expand(-1, 3, -1, -1))

    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-4, atol=1e-5)


def test_a_missing_file_is_refused():
    """The message has the setting as it was typed, and what else can be given."""
    with pytest.raises(ConfigError, match=r"encoder_weights=no/such.safetensors: there is no"):
        make(weights="no/such.safetensors")


def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path):
    """Reading one runs what it says."""
    torch.save({}, tmp_path / "a.pth")

    with pytest.raises(ConfigError, match=r"only .safetensors files are read.*save_file"):
        make(weights=str(tmp_path / "a.pth"))


@pytest.mark.parametrize("kept", [0, 20, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    """A download that broke off."""
    path = tmp_path / "a.safetensors"
    save_file(plain(make().network.encoder.state_dict()), path)
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(CheckpointError, match="is not a complete safetensors file"):
        make(weights=str(path))


def test_weights_of_another_encoder_are_refused(tmp_path):
    """Half of them would fit by name, and the network would be half random."""
    small, large = (tmp_path / f"{name}.safetensors" for name in ("resnet18", "resnet34"))
    for path in (small, large):
        save_file(plain(make(path.stem).network.encoder.state_dict()), path)

    with pytest.raises(CheckpointError, match=r"does not match the encoder: \d+ missing \("):
        make("resnet34", weights=str(small))
    with pytest.raises(CheckpointError, match=r"none missing, \d+ unexpected \(layer"):
        make("resnet18", weights=str(large))


def test_a_tensor_of_another_shape_is_named(tmp_path):
    """resnet50's wider sister has the same names."""
    state = plain(make().network.encoder.state_dict())
    name = list(state)[-3]
    state[name] = torch.cat([state[name], state[name]])
    save_file(state, tmp_path / "a.safetensors")

    with pytest.raises(CheckpointError, match=f"does not match the encoder: {name} is "):
        make(weights=str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_real_weights_load(shared_data, channels):
    """ImageNet's mobilenet_v2, as it is handed round."""
    path = shared_data.parent / "weights" / "mobilenet_v2.safetensors"
    if not path.exists():
        pytest.skip("the real weights are not here")
    first = next(t for t in load_file(path).values() if t.ndim == 4 and t.shape[1] == 3)

    encoder = make("mobilenet_v2", channels=channels, weights=str(path)).network.encoder

    found = next(encoder.parameters())
    torch.testing.assert_close(found, first if channels == 3 else first.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("imagenet", False), ("advprop", False), ("a.safetensors", True), ("../a", True)],
)
def test_a_path_is_told_from_a_name_on_the_hub(text, expected):
    """A relative file without a folder is a file too."""
    assert is_file_name(text) is expected
