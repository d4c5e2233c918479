import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import onnx
import pytest
import torch

from steelseg.errors import CheckpointError, ConfigError
from steelseg.inference.backends import onnx as onnx_backend
from steelseg.inference.backends import openvino
from steelseg.inference.load_exported import load_exported
from steelseg.models.libc import signal_stack
from steelseg.models.model import build_model

FORMATS = ("net.onnx", "net.xml")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Give a folder of one network in both formats, and the network."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    model = build_model(
        arch="linknet",
        encoder="tu-test_resnet",
        encoder_weights=None,
        channels=1,
        num_classes=2,
        mean=(0.449,),
        std=(0.226,),
    ).eval()
    onnx_backend.write(model, folder / "net.onnx", channels=1)
    openvino.write(model, folder / "net.xml", channels=1)
    return folder, model


def make_pixels(*shape, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("name", FORMATS)
def test_threads_that_share_a_network_get_their_own_answers(name, exported):
    """More threads than the network has workers, each with other images, to the last bit."""
    network = load_exported(exported[0] / name, multiple=32, amp=False)
    images = [make_pixels(1 + seed % 3, 1, 33, 40 + seed, seed=seed) for seed in range(24)]
    alone = [network(each) for each in images]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(network, images))

    for expected, found in zip(alone, together, strict=True):
        assert torch.equal(expected, found)


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_is_computed_alike_whatever_its_batch(name, exported):
    """So a strip has the same mask in a folder of one and of thousands."""
    network = load_exported(exported[0] / name, multiple=32, amp=False)
    images = make_pixels(5, 1, 50, 70)

    together = network(images)

    for place in range(5):
        assert torch.equal(network(images[place : place + 1])[0], together[place])


def test_half_precision_is_used_where_asked_for_alone(exported):
    """OpenVINO takes it unasked where the processor has it: that is what is switched off."""
    folder, model = exported
    images = make_pixels(1, 1, 64, 64)
    full, half = (load_exported(folder / "net.xml", multiple=32, amp=amp) for amp in (False, True))

    with torch.inference_mode():
        expected = model(images)

    torch.testing.assert_close(full(images), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(half(images), expected, rtol=0, atol=0.5)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "openvino"])
def test_a_missing_package_is_a_line_that_says_how_to_get_it(package, exported, monkeypatch):
    """Exports are an extra."""
    name = "net.xml" if package == "openvino" else "net.onnx"
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ConfigError, match=rf"need {package}, .* pip install 'steelseg\[export\]'"):
        load_exported(exported[0] / name, multiple=32, amp=False)


@pytest.mark.parametrize("name", [*FORMATS, "net.bin"])
def test_half_a_file_is_refused(name, exported, tmp_path):
    """In one line that names it, whatever the runtime raises."""
    for path in exported[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    stem = "net.onnx" if name == "net.onnx" else "net.xml"

    with pytest.raises(CheckpointError, match=rf"{stem} cannot be read by its backend: ") as caught:
        load_exported(tmp_path / stem, multiple=32, amp=False)

    assert "\n" not in str(caught.value)


def test_weights_that_are_not_there_are_named(exported, tmp_path):
    """OpenVINO's own message does not say which file it misses."""
    (tmp_path / "net.xml").write_bytes((exported[0] / "net.xml").read_bytes())

    with pytest.raises(CheckpointError, match=r"net\.bin is missing"):
        load_exported(tmp_path / "net.xml", multiple=32, amp=False)
    with pytest.raises(CheckpointError, match=r"net\.onnx: there is no such export"):
        load_exported(tmp_path / "net.onnx", multiple=32, amp=False)
    with pytest.raises(ConfigError, match=r"net\.tflite is not an exported network"):
        load_exported(tmp_path / "net.tflite", multiple=32, amp=False)


@pytest.mark.parametrize("place", ["initializer", "attribute"])
@pytest.mark.parametrize("location", ["../secret", "weights", "/etc/hostname"])
def test_an_onnx_file_that_names_other_files_is_refused(place, location, exported, tmp_path):
    """Whoever sends a model could have any file of the machine read; ours name none."""
    model = onnx.load(exported[0] / "net.onnx")
    if place == "initializer":
        tensor = model.graph.initializer[0]
    else:
        node = model.graph.node.add(op_type="Constant", output=["spare"])
        tensor = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t
        tensor.data_type, tensor.name = onnx.TensorProto.UINT8, "spare"
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(CheckpointError, match=r"net\.onnx keeps the tensor .* in another file"):
        load_exported(tmp_path / "net.onnx", multiple=32, amp=False)


def test_nothing_is_sent_when_openvino_is_imported(tmp_path):
    """By itself it tells Google Analytics of every import; a factory's machine tells nobody."""
    code = (
        "import sys, urllib.request\n"
        "def refuse(*args, **kwargs): print('sent', args); raise OSError\n"
        "urllib.request.urlopen = refuse\n"
        "from steelseg.inference.backends.backend import need\n"
        "need('openvino')\n"
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules)\n"
    )

    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize("amp", [False, True])
def test_signals_are_handled_where_they_were_before(amp, exported):
    """OpenVINO's own stack for handlers is gone once its networks are: Ctrl-C would crash."""

    def place():
        stack = signal_stack()
        return stack.sp, stack.size, stack.flags

    before = place()

    networks = [load_exported(exported[0] / "net.xml", multiple=32, amp=amp) for _ in range(2)]
    assert place() == before
    while networks:
        del networks[0]

    assert place() == before
