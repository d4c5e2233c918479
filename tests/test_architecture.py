"""docs/architecture.md says where to add things; one entry there has to be enough."""

import re
import shutil
import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from pydantic import Field
from starlette.testclient import TestClient
from torch import nn

from steelseg import Predictor, api
from steelseg.cli import data as data_commands
from steelseg.cli.arguments import add_command
from steelseg.cli.main import main
from steelseg.config.components import (
    ARCHITECTURES,
    LOSS_TERMS,
    Architecture,
    LossFunction,
    Parameter,
)
from steelseg.config.config import Config
from steelseg.config.export_formats import EXPORT_FORMATS, ExportFormat
from steelseg.config.load import build_config
from steelseg.config.section import Section
from steelseg.data.augment.steps import STEPS, find_augmentation
from steelseg.data.formats import images
from steelseg.errors import CheckpointError, ConfigError
from steelseg.export.exported import read_record
from steelseg.inference.backends.backend import Loaded
from steelseg.models.build import build_network
from steelseg.models.losses import build_loss
from steelseg.run.bundle_manifest import read_manifest
from steelseg.scoring import metrics
from steelseg.serving.app import create_app
from steelseg.serving.limits import Limits
from steelseg.serving.model import Model
from steelseg.serving.service import Service

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def rows():
    """Read the table: what is added, and the cell that says where."""
    table = PAGE.partition("## Where to add a ...")[2].strip().partition("\n\n")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in lines]


@pytest.mark.parametrize(("new", "place"), rows())
def test_every_place_in_the_table_exists(new, place):
    """A name that was moved sends the reader astray."""
    named = re.fullmatch(r"`(\w+)` in (?:a module of )?([\w/]+(?:\.py|/))", place)
    if not named:
        assert place == "its section in config/"
        assert all(issubclass(f.annotation, Section) for f in Config.model_fields.values())
        return
    name, file = named.groups()
    source = ROOT / "src" / "steelseg" / file
    modules = [source] if source.is_file() else sorted(source.glob("*.py"))
    paths = [".".join(m.relative_to(ROOT / "src").with_suffix("").parts) for m in modules]
    assert any(hasattr(import_module(path), name) for path in paths)


def test_the_table_has_a_test_for_each_row():
    """A row without one would be a promise that nothing keeps."""
    tested = {name.removeprefix("test_add_").replace("_", " ") for name in globals()}

    assert {new for new, _ in rows()} <= tested


def toy_loss(logits_nchw, masks_nchw, _valid_nchw, *, power, pos_weight):
    return ((logits_nchw - masks_nchw).abs() ** power).mean() * pos_weight[0]


def test_add_loss_term(monkeypatch):
    """Settings accept it, also in a sum with its parameter, and training computes it."""
    toy = LossFunction("toy_losses:toy_loss", Parameter("power", 1.0, 9.0), ("pos_weight",))
    with pytest.raises(ConfigError, match="'toy' is not a loss"):
        build_config({"train": {"loss": "toy"}})
    monkeypatch.setitem(LOSS_TERMS, "toy", toy)
    monkeypatch.setitem(sys.modules, "toy_losses", SimpleNamespace(toy_loss=toy_loss))

    config = build_config(
        {"train": {"pos_weight": [5, 1, 1, 1], "loss": "2 toy(3) + 0.5 bce + toy"}}
    )
    logits, masks = torch.full((1, 4, 2, 2), 3.0), torch.ones(1, 4, 2, 2)
    total = build_loss(config.train.loss, pos_weight=config.pos_weight)(logits, masks, None)

    bce = build_loss("bce", pos_weight=config.pos_weight)(logits, masks, None)
    assert total.item() == pytest.approx(5 * (2 * 2.0**3 + 2.0) + 0.5 * bce.item())
    with pytest.raises(ConfigError, match=r"power=10 of toy must be from 0 to 9"):
        build_config({"train": {"loss": "toy(10)"}})
    with pytest.raises(ConfigError, match=r", toy\.$"):
        build_config({"train": {"loss": "nothing"}})


def test_add_architecture(monkeypatch):
    """Settings accept it, and the network takes strips of any size."""
    asked = {"arch": "toy", "encoder": "tu-test_resnet", "encoder_weights": "none"}
    with pytest.raises(ConfigError, match="'toy' is not an architecture"):
        build_config({"model": asked})
    monkeypatch.setitem(ARCHITECTURES, "toy", Architecture("toy_networks:Toy"))
    monkeypatch.setitem(sys.modules, "toy_networks", SimpleNamespace(Toy=smp.Unet))

    network = build_network(build_config({"model": asked})).eval()

    assert network(torch.zeros(1, 1, 40, 70)).shape == (1, 4, 40, 70)
    with pytest.raises(ConfigError, match="toy has a fixed depth"):
        build_config({"model": {**asked, "encoder_depth": 3}})


def test_add_augmentation(monkeypatch):
    """A step of that name is applied, also with a probability; messages list it."""

    def invert(image_chw, mask_chw, _rng):
        return 255 - image_chw, mask_chw

    monkeypatch.setitem(STEPS, "invert", invert)
    image, mask = np.zeros((1, 2, 2), np.uint8), np.zeros((4, 2, 2), np.uint8)

    augment = find_augmentation(["none", "1.0 invert"])

    assert (augment(image, mask, np.random.default_rng(0))[0] == 255).all()
    with pytest.raises(ConfigError, match=", invert or module:callable"):
        find_augmentation("nothing")


def test_add_image_format(toy_format, trained_run, tmp_path):
    """Files of it are listed, decoded and served; messages, server and page name it."""
    (tmp_path / "a.TOY").write_bytes(toy_format(2, 3, 9))
    (tmp_path / "b.ty").write_bytes(toy_format(2, 3, 9, b"T2")[:-1])
    (tmp_path / "c.toy").write_bytes(b"none")

    assert images.list_images(tmp_path) == ["a.TOY", "b.ty", "c.toy"]
    assert images.measure_image(tmp_path / "a.TOY") == (2, 3)
    image_hwc = images.read_image(tmp_path / "a.TOY", channels=3)
    assert image_hwc.shape == (2, 3, 3)
    assert (image_hwc == 9).all()
    with pytest.raises(images.DataError, match=r"b\.ty: the image is truncated"):
        images.read_image(tmp_path / "b.ty", channels=1)
    with pytest.raises(images.DataError, match=r"not a .* or TOY, whatever its name says"):
        images.read_image(tmp_path / "c.toy", channels=1)

    service = Service(Model(trained_run, []), limits=Limits(), load_model=lambda _: None)
    with closing(service), TestClient(create_app(service)) as client:
        replies = [client.post("/v1/predict", content=p.read_bytes()) for p in tmp_path.iterdir()]
        described = client.get("/v1/model").json()["image_formats"]
        body = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]
    assert sorted(reply.status_code for reply in replies) == [200, 415, 422]
    # The page takes its list of extensions from here.
    assert described[-1] == {
        "name": "TOY",
        "media_type": "image/x-toy",
        "extensions": [".toy", ".ty"],
    }
    assert "image/x-toy" in body["content"]


def test_add_metric(monkeypatch):
    """It is computed overall and per class, and has its columns and its interval."""

    @metrics.dataclass(frozen=True)
    class WithToy(metrics.Figures):
        miss_rate: Annotated[
            float, metrics._Ratio(lambda t: (t["positives"] - t["found"], t["positives"]))
        ]

    WithToy.__annotations__ = {**metrics.Figures.__annotations__, **WithToy.__annotations__}
    monkeypatch.setattr(metrics, "Figures", WithToy)
    counts_nc3 = np.array([[[0, 0, 4], [1, 2, 3]], [[3, 3, 3], [0, 0, 0]]])

    row = metrics.flatten(metrics.score(counts_nc3))

    assert row["val_miss_rate"] == pytest.approx(1 / 3)
    assert (row["val_miss_rate_1"], row["val_miss_rate_2"]) == (0.5, 0.0)
    assert metrics.ratios(metrics.pair_terms(counts_nc3).sum(axis=0))["miss_rate"].shape == (2,)


class ToyBackend:
    """Files of `torch.export`, for images of one size."""

    @staticmethod
    def write(model, path, *, channels, size, for_int8):
        assert not for_int8
        core = nn.Module()
        core.model, core.forward = model, model.core
        images_nchw = torch.zeros(1, channels, *size, dtype=torch.uint8)
        torch.export.save(torch.export.export(core, (images_nchw,)), path)

    @staticmethod
    def load(path, **_):
        network = torch.export.load(path).module()

        def infer(image_nchw):
            return [network(torch.from_numpy(image_nchw)).detach().numpy()]

        return Loaded(infer, size=(32, 96), threads=1)

    @staticmethod
    def half_precision():
        return None

    @staticmethod
    def triton_config(_, *, largest_batch):
        return f'backend: "toy"\nmax_batch_size: {largest_batch}\n'


@pytest.mark.filterwarnings("ignore:No complete tensor found in the group")
def test_add_export_backend(monkeypatch, trained_run, tmp_path):
    """It is exported, verified, bundled, predicted, timed and written for a server."""
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    with pytest.raises(ConfigError, match="toy-fp32 is not an export"):
        api.export(run, format="toy")
    toy = ExportFormat("toy_backend", suffixes=(".pt2",), packages=("torch",), int8_packages=None)
    monkeypatch.setitem(EXPORT_FORMATS, "toy", toy)
    monkeypatch.setitem(sys.modules, "toy_backend", ToyBackend)
    strips = trained_run.parent / "input" / "test_images"

    with pytest.raises(ConfigError, match="toy-int8 is not an export"):
        api.export(run, format="toy", int8=True)
    command = ["export", str(run), "--format=toy", "--fixed-size", "--fold=0", "--strips=2"]
    assert main(command) == 0
    made = api.bundle(run, made_from="toy-fp32", folds=[0])
    out = api.repository(made, tmp_path / "repository", server="triton")
    (timed,) = api.bench(made, images=strips, rounds=1, strips=1).results

    assert timed.name == "toy fp32"
    assert (out / "fold_0" / "1" / "model.pt2").is_file()
    assert 'backend: "toy"' in (out / "fold_0" / "config.pbtxt").read_text()
    strip = min(strips.iterdir())
    expected = Predictor(run, folds=[0]).probs(strip)
    np.testing.assert_allclose(Predictor(made).probs(strip), expected, rtol=0, atol=1e-4)
    monkeypatch.delitem(EXPORT_FORMATS, "toy")
    with pytest.raises(CheckpointError, match="'toy' is not a backend; known are torch, onnx"):
        read_manifest(made)
    with pytest.raises(CheckpointError, match="'toy' is not an export format; known are onnx"):
        read_record(run / "export" / "toy-fp32")


def test_add_command(monkeypatch, capsys):
    """`steelseg --help` lists it, and it runs."""

    def _run_toy_thing(args):
        """Print the settings. Example: steelseg toy-thing."""
        print(args.settings)
        return 3

    def add_toy(commands):
        add_command(commands, _run_toy_thing, "do the toy thing")

    monkeypatch.setattr(data_commands, "COMMANDS", (*data_commands.COMMANDS, add_toy))

    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.search(r"toy-thing +do the toy thing", capsys.readouterr().out)
    assert main(["toy-thing", "train.epochs=2"]) == 3
    assert capsys.readouterr().out == "['train.epochs=2']\n"


def test_add_setting():
    """A field is read from files and command lines, checked, and refused out of its limits."""

    class WithToy(Section):
        knobs: int = Field(3, ge=1)
        """Number of knobs."""

    assert WithToy().knobs == 3
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        WithToy(knobs=0)
    assert WithToy.model_json_schema()["properties"]["knobs"]["description"] == "Number of knobs."
