import json
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest

from steelseg.api import bench, bundle
from steelseg.cli.main import main
from steelseg.errors import ConfigError, DataError
from steelseg.export import bench_candidates
from steelseg.export.bench import Bench, Result, advice, describe
from steelseg.export.bench_candidates import run_candidates
from steelseg.export.timing import Measured, measure
from steelseg.inference.backends import openvino
from steelseg.inference.model_source import resolve_model
from steelseg.inference.predictor import Predictor


def result(name, rate, difference=0.0):
    """Give what one way to predict did."""
    backend, precision = name.split()
    return Result(backend, precision, f"get {name}", Measured(rate, 1.0, 2.0, difference, 0, 8))


def resolved(place, folds):
    """Give a run in full precision, and the function that resolves it in half precision."""
    plain, half = ([f"inference.amp={amp}"] for amp in ("false", "true"))
    return resolve_model(place, plain, folds=folds), partial(
        resolve_model, place, half, folds=folds
    )


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.export
def test_every_way_there_is_takes_part_and_the_run_stays_as_it_is(exported_run):
    """Exports that are there are used; their probabilities are what exporting promised."""
    before = files_of(exported_run.path)

    found = bench(exported_run.path, folds=[0], rounds=1, backends=["torch", "openvino"])

    by_name = {each.name: each for each in found.results}
    expected = {"torch fp32", "openvino fp32", "openvino int8"}
    expected |= {"openvino bf16"} if openvino.half_precision() else set()
    assert by_name.keys() - {"torch bf16", "torch fp16"} == expected
    assert found.results[0].name == "torch fp32"
    assert by_name["torch fp32"].measured.difference == 0
    assert by_name["openvino fp32"].measured.difference <= 1e-4
    assert by_name["openvino int8"].measured.difference > 1e-4
    assert by_name["openvino int8"].command == (
        f"steelseg bundle {exported_run.path} --fold 0 --from openvino-int8"
    )
    assert found.strips == 2
    assert all(each.measured.strips_per_second > 0 for each in found.results)
    assert files_of(exported_run.path) == before


@pytest.mark.export
def test_an_export_that_is_missing_is_made_elsewhere(exported_run, tmp_path):
    """Its command begins with exporting it; a network of another fold is no substitute."""
    told = []
    strip_hwc = np.random.default_rng(0).integers(0, 256, (32, 96, 1), dtype=np.uint8)

    found = run_candidates(
        exported_run,
        *resolved(exported_run.path, folds=[1]),
        folds=[1],
        backends=["openvino"],
        strips=lambda: [strip_hwc],
        work=tmp_path,
        tell=told.append,
    )

    there, *_, made = found
    assert (there.name, made.name) == ("openvino fp32", "openvino int8")
    assert there.command.startswith("steelseg bundle")
    assert made.command.startswith(
        f"steelseg export {exported_run.path} --format openvino --int8 --fold 1 && steelseg bundle"
    )
    assert made.model.members[0].name == str(tmp_path / "openvino_1" / "int8.xml")
    probs = [Predictor(each.model).probs(strip_hwc) for each in (there, made)]
    np.testing.assert_allclose(*probs, atol=0.2)
    assert told == []


@pytest.mark.export
def test_a_runtime_that_is_not_installed_is_left_out_with_a_word(
    exported_run, tmp_path, monkeypatch
):
    """Who has torch alone is told of the others, and not stopped."""
    monkeypatch.setattr(
        bench_candidates,
        "find_spec",
        lambda name: None if name == "onnxruntime" else find_spec(name),
    )
    told = []

    found = run_candidates(
        exported_run,
        *resolved(exported_run.path, folds=[0]),
        folds=[0],
        backends=["torch", "onnx"],
        strips=list,
        work=tmp_path,
        tell=told.append,
    )

    assert {each.backend for each in found} == {"torch"}
    assert told == ["onnx is left out: onnxruntime is not installed."]


def test_a_bundle_is_timed_as_it_is(trained_run, tmp_path):
    """From any folder of images; without one it says what it needs."""
    path = bundle(trained_run, out=tmp_path / "bundle", folds=[0])
    images = trained_run.parent / "input" / "train_images"

    found = bench(path, images=images, strips=3, rounds=2)

    assert {each.backend for each in found.results} == {"torch"}
    assert (found.strips, found.rounds) == (3, 2)
    with pytest.raises(ConfigError, match="A bundle has no images"):
        bench(path)
    with pytest.raises(DataError, match=r"contains no .jpg"):
        bench(path, images=path)


def test_differences_are_counted_from_the_first(trained_run):
    """Largest difference of any probability, and every mask that is another."""
    paths = sorted((trained_run.parent / "input" / "test_images").iterdir())
    models = {
        "all": resolve_model(trained_run, ["postprocess.threshold=0"]),
        "none": resolve_model(trained_run, ["postprocess.threshold=1"], folds=[1]),
    }

    found = measure(models, paths, rounds=1)

    first, second = (
        np.stack([Predictor(model).probs(path) for path in paths]) for model in models.values()
    )
    assert (found["all"].difference, found["all"].masks_that_differ) == (0, 0)
    assert found["none"].difference == pytest.approx(np.abs(first - second).max(), abs=1e-7)
    assert (found["none"].masks_that_differ, found["none"].masks) == (4, 4)


def test_the_fastest_with_the_same_masks_is_chosen():
    """What is faster with other masks is named beside it, if it is worth it."""
    exact = [result("torch fp32", 2.0), result("onnx fp32", 6.0, 1e-6)]

    assert advice(exact) == "Choose onnx fp32, the fastest with the same masks: get onnx fp32"
    assert advice([*exact, result("onnx int8", 6.3, 0.01)]) == advice(exact)
    assert advice([*exact, result("openvino int8", 15.0, 0.01)]) == (
        "Choose onnx fp32, the fastest with the same masks: get onnx fp32\n"
        "openvino int8 is 2.5 times as fast, with different masks; if their Dice is good enough: "
        "get openvino int8"
    )


def test_the_table_has_a_line_for_each():
    """With the ratio to the first."""
    text = describe(
        Bench({"cores": 2, "gpu": None}, 32, 3, (result("torch fp32", 4.0), result("onnx fp32", 6)))
    )

    title, header, first, second, _ = text.splitlines()
    assert title == "32 strips, 3 rounds; cores 2"
    assert header.split() == [
        "strips/s",
        "times",
        "ms",
        "ms",
        "95",
        "%",
        "difference",
        "other",
        "masks",
    ]
    assert first.split() == ["torch", "fp32", "4.00", "1.00", "1.0", "2.0", "0.0e+00", "0/8"]
    assert second.split() == ["onnx", "fp32", "6.00", "1.50", "1.0", "2.0", "0.0e+00", "0/8"]


def test_the_command_prints_a_table_and_writes_json(trained_run, tmp_path, capsys):
    """What the table says, with the machine it holds for."""
    out = tmp_path / "bench.json"

    code = main(["bench", str(trained_run), "--backends", "torch", "--rounds=1", f"--out={out}"])

    printed = capsys.readouterr().out
    content = json.loads(out.read_text())
    assert code == 0
    assert "torch fp32" in printed
    assert printed.splitlines()[-1] == f"wrote {out}"
    assert content["machine"]["cores"] >= 1
    assert content["results"][0]["command"] == f"steelseg bundle {trained_run}"
    assert content["results"][0]["measured"]["latency_95_ms"] > 0
