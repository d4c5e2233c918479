import importlib.util
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from onnx import TensorProto, helper, numpy_helper

from steelseg import Predictor
from steelseg.api import bundle, export, repository
from steelseg.cli.main import main
from steelseg.errors import CheckpointError, ConfigError
from steelseg.inference.backends.openvino import convert_onnx
from steelseg.inference.load_exported import load_exported
from steelseg.run.bundle_manifest import (
    BundledFirst,
    BundledModel,
    file_names,
    manifest_text,
    read_manifest,
    seal_of,
)
from steelseg.training.train import train_run

CLIENT = Path(__file__).parents[2] / "examples" / "remote_prediction.py"


@pytest.fixture(scope="module")
def bundles(trained_run, tmp_path_factory):
    """Give a bundle of each format, with flips, of a network that is quick to make."""
    folder = tmp_path_factory.mktemp("bundles")
    overrides = ["inference.tta=hflip", "train.batch_size_val=3"]
    made = bundle(trained_run, overrides, out=folder / "torch", folds=[0])
    return {"torch": made} | {
        name: make_bundle(made, folder / name, name, "fold_0") for name in ("onnx", "openvino")
    }


def make_bundle(source, path, format, *stems, cut=0.0):
    """Make a bundle of exported networks, whose settings are those of another bundle.

    The network is one convolution, in a file with the names and open sizes of an export. A second
    stem is that of a network that looks first.
    """
    manifest = read_manifest(source)
    models = []
    for number, stem in enumerate(stems):
        file = write_network(path / "models" / stem, format, seed=number)
        model = BundledModel(fold=0, file=f"models/{file}", checkpoint_sha256="0" * 64, multiple=32)
        models.append(model)
    first = [BundledFirst(model=m, config=manifest.config, cut=cut) for m in models[1:]]
    files = {name: seal_of(path / name) for name in file_names(path)}
    changed = {"backend": format, "models": tuple(models[:1]), "files": files}
    manifest = manifest.model_copy(update=changed | {"first": first[0] if first else None})
    (path / "manifest.json").write_text(manifest_text(manifest))
    return path


def write_network(stem, format, *, seed):
    """Write a convolution of bytes as .onnx, or .xml and .bin; gives the name of the file."""
    weights = np.random.default_rng(seed).normal(0, 0.02, (2, 1, 5, 5)).astype(np.float32)
    weights -= weights.mean()
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["floats", "weights"], ["logits"], pads=[2, 2, 2, 2]),
    ]
    sides = ["height", "width"]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 1, *sides])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2, *sides])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 20)]
    stem.parent.mkdir(parents=True, exist_ok=True)
    path = stem.with_suffix(".onnx")
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    if format == "openvino":
        convert_onnx(path, stem.with_suffix(".xml"))
        path.unlink()
        return f"{stem.name}.xml"
    return path.name


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Give images, some of sizes that are no multiples of 32; the last is black."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number, size in enumerate([(32, 96), (45, 77), (64, 33)]):
        pixels = random.integers(0, 255, size, dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), pixels)
    assert cv2.imwrite(str(folder / "black.png"), np.zeros((32, 96), np.uint8))
    return sorted(folder.iterdir())


def parse_config(text):
    """Read config.pbtxt with the fields of Triton's ModelConfig that are used here."""
    file = descriptor_pb2.FileDescriptorProto(
        name="triton.proto", package="triton", syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name, /, **fields):
        added = file.message_type.add(name=name)
        for number, (field, (kind, is_many)) in enumerate(fields.items(), start=1):
            label = kinds.LABEL_REPEATED if is_many else kinds.LABEL_OPTIONAL
            of = {"type_name": f".triton.{kind}"} if isinstance(kind, str) else {"type": kind}
            added.field.add(name=field, number=number, label=label, **of)

    types = file.enum_type.add(name="DataType")
    for number, name in enumerate(["TYPE_INVALID", "TYPE_UINT8", "TYPE_FP32"]):
        types.value.add(name=name, number=number)
    text_type, whole = kinds.TYPE_STRING, kinds.TYPE_INT64
    tensor = {"name": (text_type, False), "data_type": ("DataType", False), "dims": (whole, True)}
    message("Tensor", **tensor)
    message("Batching", max_queue_delay_microseconds=(whole, False))
    message("Value", string_value=(text_type, False))
    message("Parameter", key=(text_type, False), value=("Value", False))
    message(
        "ModelConfig",
        backend=(text_type, False),
        max_batch_size=(whole, False),
        input=("Tensor", True),
        output=("Tensor", True),
        dynamic_batching=("Batching", False),
        parameters=("Parameter", True),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))()
    return text_format.Parse(text, config)


def test_triton_batches_what_onnx_runtime_computes(bundles, tmp_path):
    """Names, types and sizes are those of the file; the batch is Triton's to add."""
    out = repository(bundles["onnx"], tmp_path / "r", server="triton")

    assert files(out) == ["fold_0/1/model.onnx", "fold_0/config.pbtxt"]
    config = parse_config((out / "fold_0" / "config.pbtxt").read_text())
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 3)
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert tensors(config) == [("images", 1, [1, -1, -1]), ("logits", 2, [2, -1, -1])]


def test_triton_takes_openvino_with_the_batch_of_its_client(bundles, tmp_path):
    """Its OpenVINO backend would compute batches of one fixed size alone."""
    out = repository(bundles["openvino"], tmp_path / "r", server="triton")

    assert files(out) == ["fold_0/1/model.bin", "fold_0/1/model.xml", "fold_0/config.pbtxt"]
    config = parse_config((out / "fold_0" / "config.pbtxt").read_text())
    assert (config.backend, config.max_batch_size) == ("openvino", 0)
    assert not config.HasField("dynamic_batching")
    assert tensors(config) == [("images", 1, [-1, 1, -1, -1]), ("logits", 2, [-1, 2, -1, -1])]


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_openvino_model_server_finds_its_models(bundles, tmp_path, format):
    """By paths that begin at config.json, in the precision that was checked."""
    out = repository(bundles[format], tmp_path / "r", server="ovms")

    content = json.loads((out / "config.json").read_text())
    (entry,) = content["model_config_list"]
    assert entry["config"]["name"] == "fold_0"
    assert (out / entry["config"]["base_path"] / "1").is_dir()
    assert entry["config"]["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def tensors(config):
    return [(t.name, t.data_type, list(t.dims)) for t in (*config.input, *config.output)]


@contextmanager
def server(folder):
    """Serve the models of a repository by the KServe protocol; gives its URL."""
    networks = {
        path.name: load_exported(
            next((path / "1").glob("model.[ox][nm][nl]*")), multiple=1, amp=False
        )
        for path in folder.iterdir()
        if path.is_dir()
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            length = int(self.headers["Inference-Header-Content-Length"])
            (tensor,) = json.loads(body[:length])["inputs"]
            assert tensor["datatype"] == "UINT8"
            assert tensor["parameters"]["binary_data_size"] == len(body) - length
            images = np.frombuffer(body, np.uint8, offset=length).reshape(tensor["shape"])
            name = self.path.split("/")[3]
            logits = networks[name](torch.from_numpy(images.copy())).numpy()
            answer = {"outputs": [{"name": "logits", "datatype": "FP32", "shape": logits.shape}]}
            head = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Inference-Header-Content-Length", str(len(head)))
            self.end_headers()
            self.wfile.write(head + logits.tobytes())

        def log_message(self, *_):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


@pytest.fixture(scope="module")
def client():
    """Give the example client as a module."""
    spec = importlib.util.spec_from_file_location("remote_prediction", CLIENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("format", "target"), [("onnx", "triton"), ("openvino", "ovms")])
def test_the_client_gives_the_masks_of_the_bundle(
    bundles, images, tmp_path, client, capsys, format, target
):
    """To the bit, through the written files."""
    out = repository(bundles[format], tmp_path / "r", server=target)

    with server(out) as url:
        refuse_other_masks(client.RemotePredictor(bundles[format], url), bundles[format], images)
        client.main([str(bundles[format]), url, str(images[0])])

    assert capsys.readouterr().out.count("0.png_") == 2


def refuse_other_masks(remote, bundle, images):
    """Fail unless a client gives the masks of a bundle, and there are some."""
    predictor = Predictor(bundle)
    masks = {path: remote(path) for path in images}
    assert any(mask_chw.any() and not mask_chw.all() for mask_chw in masks.values())
    for path, mask_chw in masks.items():
        np.testing.assert_array_equal(mask_chw, predictor(path))


def test_a_first_look_is_a_model_of_its_own(bundles, images, tmp_path, client):
    """The client skips what it finds clean, and looks again at the rest, as the bundle does."""
    path = make_bundle(bundles["torch"], tmp_path / "b", "onnx", "fold_0", "first", cut=0.6)

    out = repository(path, tmp_path / "r", server="triton")

    assert sorted(p.name for p in out.iterdir()) == ["first", "fold_0"]
    black = images[-1]
    with server(out) as url:
        remote = client.RemotePredictor(path, url)
        refuse_other_masks(remote, path, images)
        # Its probabilities are 0.5 everywhere, which the folds alone would call a defect.
        assert not remote(black).any()
    assert Predictor(path, ["inference.cascade=false"])(black).all()


@pytest.mark.export
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_real_export_is_served_as_it_is_predicted(
    make_config, make_strips, tmp_path, client, format
):
    """As the quick network above, from training to the client's masks."""
    make_strips(tmp_path / "input")
    config = make_config(tmp_path / "input", "model.encoder=tu-test_resnet")
    train_run(config, tmp_path / "run", folds=[0])
    export(tmp_path / "run", format=format, folds=[0])
    images = sorted((tmp_path / "input" / "test_images").iterdir())
    threshold = f"postprocess.threshold={np.median(Predictor(tmp_path / 'run').probs(images[0]))}"
    path = bundle(tmp_path / "run", [threshold], made_from=f"{format}-fp32")

    out = repository(path, tmp_path / "r", server="triton")

    with server(out) as url:
        refuse_other_masks(client.RemotePredictor(path, url), path, images)


def test_what_no_server_reads_is_refused(trained_run, bundles, tmp_path):
    """With the command that makes it right; nothing is left behind."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()

    for place, out, message in (
        (trained_run, tmp_path / "r", "is not a bundle: it has no manifest.json. Make one"),
        (bundles["torch"], tmp_path / "r", "has checkpoints, which inference servers cannot read"),
        (bundles["onnx"], full, "is not an empty folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            repository(place, out, server="triton")
    damaged = make_bundle(bundles["torch"], tmp_path / "b", "onnx", "fold_0")
    (damaged / "models" / "fold_0.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        repository(damaged, tmp_path / "r", server="triton")
    assert not (tmp_path / "r").exists()


def test_the_command_says_what_it_wrote(bundles, tmp_path, capsys):
    words = ["repository", str(bundles["onnx"]), "--for", "ovms", "--out", str(tmp_path / "r")]

    assert main(words) == 0

    assert capsys.readouterr().out == f"wrote {tmp_path / 'r'}\n"
