import onnx
import pytest
import torch

from steelseg.config.components import ARCHITECTURES
from steelseg.errors import ConfigError
from steelseg.export.convert import convert
from steelseg.inference.backends import onnx as onnx_backend
from steelseg.inference.backends import openvino
from steelseg.inference.load_exported import load_exported
from steelseg.models.model import build_model


def make(arch="linknet", *, channels=1, depth=None):
    torch.manual_seed(0)
    return build_model(
        arch=arch,
        encoder="tu-test_resnet",
        encoder_depth=depth,
        encoder_weights=None,
        channels=channels,
        num_classes=2,
        mean=(0.449,) * channels,
        std=(0.226,) * channels,
    ).eval()


def write(model, folder, *, channels=1, size=None):
    """Write both formats and give the files to load."""
    for backend, name in ((onnx_backend, "net.onnx"), (openvino, "net.xml")):
        backend.write(model, folder / name, channels=channels, size=size)
    return folder / "net.onnx", folder / "net.xml"


def make_pixels(*shape):
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arch", "depth"),
    [
        *((arch, None) for arch in ARCHITECTURES if arch != "classifier"),
        ("unet", 3),
        ("linknet", 4),
    ],
)
def test_every_architecture_computes_the_same_in_every_format(arch, depth, tmp_path):
    """Sizes that are no multiples of 32 and batches of any length; pspnet of one size alone."""
    model = make(arch, depth=depth)
    fixed = arch == "pspnet"
    paths = write(model, tmp_path, size=(64, 160) if fixed else None)
    shapes = [(3, 1, 50, 130), (1, 1, 64, 160)] if fixed else [(3, 1, 50, 130), (1, 1, 96, 33)]

    for path in paths:
        network = load_exported(path, multiple=model.multiple, amp=False)
        for shape in shapes:
            images = make_pixels(*shape)
            with torch.inference_mode():
                expected, found = model(images), network(images)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_classifier_is_exported_as_one_cell(tmp_path):
    """Pixels are a view that the reader makes, not a map in the file."""
    model = make("classifier")

    for path in write(model, tmp_path):
        network = load_exported(path, multiple=model.multiple, amp=False)
        images = make_pixels(2, 1, 50, 130)
        with torch.inference_mode():
            expected, found = model(images), network(images)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert found[0].stride()[2:] == (0, 0)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_classifier_is_converted_without_a_head_to_rewrite(format, tmp_path):
    """What a U-Net is rewritten to for OpenVINO finds nothing to rewrite here."""
    model = make("classifier")
    images = make_pixels(2, 1, 50, 130)

    path = convert(model, tmp_path, format=format, channels=1)["fp32"]

    with torch.inference_mode():
        found = load_exported(path, multiple=model.multiple, amp=False)(images)
        torch.testing.assert_close(found, model(images), rtol=0, atol=1e-4)


def test_a_network_that_pools_to_a_grid_needs_one_size(tmp_path):
    """The grid is cut for the size that is exported; on another, ONNX Runtime would fail."""
    with pytest.raises(ConfigError, match=r"pspnet.*--fixed-size"):
        onnx_backend.write(make("pspnet"), tmp_path / "net.onnx", channels=1)

    assert not list(tmp_path.iterdir())


def test_a_file_of_one_size_refuses_others(tmp_path):
    """Strips that are padded to that size fit; others are named with both sizes."""
    model = make(channels=3)

    for path in write(model, tmp_path, channels=3, size=(64, 160)):
        network = load_exported(path, multiple=32, amp=False)
        images = make_pixels(1, 3, 40, 150)
        with torch.inference_mode():
            torch.testing.assert_close(network(images), model(images), rtol=0, atol=1e-4)
        with pytest.raises(ConfigError, match=r"accepts images of 64x160, not of 64x192.*--fixed"):
            network(make_pixels(1, 3, 64, 170))


def test_a_network_converted_again_gives_the_same_bytes(tmp_path):
    """Whatever was converted in between, and nothing in it tells of the machine or the source."""
    model = make()
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(model, tmp_path / name)
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})

    assert files[0].keys() == {"net.onnx", "net.xml", "net.bin"}
    assert files[0] == files[1]
    for content in files[0].values():
        assert b"steelseg/" not in content
        assert str(tmp_path).encode() not in content
    onnx.checker.check_model(files[0]["net.onnx"], full_check=True)
    graph = onnx.load_from_string(files[0]["net.onnx"]).graph
    for value in (graph.input[0], graph.output[0]):
        axes = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert [axes[0], *axes[2:]] == ["batch", "height", "width"]
