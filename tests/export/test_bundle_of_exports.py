import shutil

import numpy as np
import pytest
import torch

from steelseg import Predictor
from steelseg.api import bundle, oof, repository, tune
from steelseg.data.formats.images import read_image
from steelseg.errors import CheckpointError, ConfigError
from steelseg.export.exported import (
    EXPORT_JSON,
    export_folder,
    read_record,
    record_text,
)
from steelseg.inference.ensemble import Ensemble
from steelseg.inference.forward import ForwardPlan, predict_batch
from steelseg.inference.load_exported import load_exported
from steelseg.inference.members import checkpoint_member
from steelseg.models.checkpoint import load_checkpoint
from steelseg.models.device import pick_device
from steelseg.run.bundle_manifest import read_manifest
from steelseg.run.cascade_json import Cascade, write_cascade
from steelseg.run.ensemble_json import EnsembleMember, EnsembleSpec, write_ensemble
from steelseg.run.run_folder import RunFolder, create_run

FORMATS = ("onnx", "openvino")


@pytest.fixture
def run(exported_run):
    """Give it by a short name."""
    return exported_run


@pytest.fixture
def copy(run, tmp_path):
    """Give a copy of the run that a test may change."""
    shutil.copytree(run.path, tmp_path / "copy")
    return RunFolder(tmp_path / "copy")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("folds", "overrides"),
    [
        (None, []),
        ([1], []),
        (None, ["inference.ensemble=sequential", "inference.tta=both"]),
        ([0], ["inference.crops=true", "inference.tta=hflip"]),
    ],
)
def test_a_bundle_of_an_export_gives_the_masks_of_its_run(run, tmp_path, format, folds, overrides):
    """Probabilities to 1e-4, so masks are equal but where one lies that near to the threshold."""
    path = bundle(run.path, out=tmp_path / "b", folds=folds, made_from=f"{format}-fp32")
    strips = sorted((run.path.parent / "input" / "test_images").iterdir())
    plain = Predictor(run.path, overrides, folds=folds)
    threshold = clear_threshold(plain.probs(strips[0]))
    expected = Predictor(run.path, [threshold, *overrides], folds=folds)
    found = Predictor(path, [threshold, *overrides])

    for strip in strips:
        np.testing.assert_allclose(found.probs(strip), expected.probs(strip), atol=1e-4, rtol=0)
    mask_chw = found(strips[0])
    np.testing.assert_array_equal(mask_chw, expected(strips[0]))
    assert 0 < mask_chw.mean() < 1


@pytest.mark.parametrize("made_from", ["torch", "onnx-fp32", "openvino-fp32"])
def test_a_bundle_gates_as_its_run(copy, tmp_path, made_from):
    """The second output travels with every format, and the tuned gate with the manifest."""
    oof(copy.path)
    tune(copy.path, ["inference.gate=hard", "postprocess.threshold=0.3"])
    path = sorted((copy.load_config().data.root / "train_images").iterdir())[0]
    between = mean_presence(copy, path)

    made = bundle(copy.path, out=tmp_path / "b", folds=[0], made_from=made_from)

    for override in ([], [f"postprocess.gate={between}"], ["inference.gate=soft"]):
        expected = Predictor(copy.path, override, folds=[0]).probs(path)
        np.testing.assert_allclose(Predictor(made, override).probs(path), expected, atol=1e-4)


def mean_presence(run, path):
    """Return the mean over the classes of fold 0's presence, before any gate."""
    member = checkpoint_member(run.best_model(0))
    ensemble = Ensemble([member], sequential=False, device=pick_device())
    batch = (("",), read_image(path, channels=1)[None])
    ((_, _, _, presence_c),) = ensemble.predict_ungated([batch], ForwardPlan())
    return float(presence_c.mean())


def clear_threshold(probs_chw):
    """Give the middle of the widest gap between probabilities near their median."""
    levels = np.sort(probs_chw.ravel())[len(probs_chw.ravel()) // 4 : -len(probs_chw.ravel()) // 4]
    gap = int(np.argmax(np.diff(levels)))
    return f"postprocess.threshold={(float(levels[gap]) + float(levels[gap + 1])) / 2}"


def test_a_bundle_of_int8_gives_what_its_export_gives(run, tmp_path):
    """To the bit: the file is the same."""
    path = bundle(run.path, out=tmp_path / "b", folds=[0], made_from="openvino-int8")
    strip = run.path.parent / "input" / "test_images" / "test_000.jpg"
    file = export_folder(run, "openvino", "int8") / "fold_0.xml"

    network = load_exported(file, multiple=32, amp=False)
    images_nhwc = read_image(strip, channels=1)[None]
    expected = predict_batch(network, images_nhwc, ForwardPlan(), torch.device("cpu")).probs_nchw

    np.testing.assert_array_equal(Predictor(path).probs(strip), expected[0].numpy())
    assert np.abs(Predictor(run.path, folds=[0]).probs(strip) - expected[0].numpy()).max() > 1e-4
    assert read_manifest(path).precision == "int8"


def test_the_first_look_of_an_int8_bundle_is_not_int8(copy, run, tmp_path):
    """Its cut was chosen on probabilities in full precision; it runs on the same backend."""
    digest = load_checkpoint(run.best_model(1)).sha256
    write_cascade(copy.cascade_json, Cascade(str(run.path), 1, digest, 0.0), {})
    path = bundle(copy.path, folds=[0], made_from="openvino-int8")
    strip = run.path.parent / "input" / "test_images" / "test_000.jpg"

    fp32 = (export_folder(run, "openvino", "fp32") / "fold_1.bin").read_bytes()
    assert (path / "models" / "first.bin").read_bytes() == fp32
    plain = Predictor(path, ["inference.cascade=false"]).probs(strip)
    np.testing.assert_array_equal(Predictor(path).probs(strip), plain)
    assert plain.any()
    for file in path.rglob("*.*"):
        assert str(run.path).encode() not in file.read_bytes(), file


def test_a_first_look_that_was_not_exported_is_named(copy, run):
    """With both ways out: export it, or do without."""
    first = copy.path.with_name("first")
    shutil.copytree(run.path, first, ignore=shutil.ignore_patterns("export"))
    digest = load_checkpoint(run.best_model(1)).sha256
    write_cascade(copy.cascade_json, Cascade("../first", 1, digest, 0.0), {})

    with pytest.raises(CheckpointError, match=r"steelseg export .*first .*inference.cascade=false"):
        bundle(copy.path, made_from="onnx-fp32")


def test_a_batch_changes_no_bit_of_a_strip(run, tmp_path):
    """Exported networks take several strips at once on a processor, each by itself."""
    path = bundle(run.path, out=tmp_path / "b", made_from="openvino-fp32")
    folder = run.path.parent / "input" / "train_images"
    names = sorted(file.name for file in folder.iterdir())
    predictor = Predictor(path, ["train.batch_size_val=3"])

    found = predictor.stream(names, lambda name: read_image(folder / name, channels=1))

    for name, _, _, probs_chw in found:
        np.testing.assert_array_equal(probs_chw, predictor.probs(folder / name))


def test_the_manifest_says_what_the_export_is(run, tmp_path):
    """Backend, precision, checkpoint and how it was checked."""
    manifest = read_manifest(bundle(run.path, out=tmp_path / "b", made_from="openvino-fp32"))

    assert (manifest.backend, manifest.precision) == ("openvino", "fp32")
    assert sorted(manifest.files) == [
        f"models/fold_{k}.{end}" for k in (0, 1) for end in ("bin", "xml")
    ]
    assert [model.multiple for model in manifest.models] == [32, 32]
    for model in manifest.models:
        assert model.checkpoint_sha256 == load_checkpoint(run.best_model(model.fold)).sha256
        origin = manifest.provenance["exports"][str(model.fold)]
        assert origin["figures"]["fp32"]["difference"] <= 1e-4
        assert origin["strips"] == 4


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_in_a_bundle_does_not_tell_of_the_machine(run, tmp_path, format):
    """Exporters note files and source lines."""
    path = bundle(run.path, out=tmp_path / "b", made_from=f"{format}-fp32")

    for file in path.rglob("*.*"):
        content = file.read_bytes()
        for place in (str(run.path.parent), str(tmp_path), "site-packages", ".py"):
            assert place.encode() not in content, (file, place)


def test_an_export_of_another_checkpoint_is_not_bundled(copy):
    """The fold was trained on since."""
    shutil.copy(copy.best_model(1), copy.best_model(0))

    with pytest.raises(CheckpointError, match=r"was made from another .*fold_0"):
        bundle(copy.path, made_from="onnx-fp32")
    assert not (copy.path / "bundle").exists()


def test_a_damaged_export_is_not_bundled(copy):
    """It would be sealed as if it were whole."""
    file = export_folder(copy, "openvino", "fp32") / "fold_1.bin"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(CheckpointError, match=r"fold_1.bin is damaged"):
        bundle(copy.path, made_from="openvino-fp32")


def test_an_export_that_is_not_there_is_named_with_its_command(copy):
    """As a whole, or a fold of it."""
    with pytest.raises(CheckpointError, match=r"onnx-int8.export.json. Make it: steelseg export"):
        bundle(copy.path, made_from="onnx-int8")

    folder = export_folder(copy, "onnx", "fp32")
    record = read_record(folder)
    (folder / EXPORT_JSON).write_text(
        record_text(record.model_copy(update={"folds": record.folds[:1]}))
    )
    with pytest.raises(CheckpointError, match=r"lacks fold 1. Export it too, or use --fold 0"):
        bundle(copy.path, made_from="onnx-fp32")
    assert Predictor(bundle(copy.path, made_from="onnx-fp32", folds=[0]))


@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_network_replaced_while_in_use_is_refused(run, tmp_path, format):
    """Its weights too, which lie beside the file that is loaded."""
    path = bundle(run.path, out=tmp_path / "b", made_from=f"{format}-fp32")
    predictor = Predictor(path, ["inference.ensemble=sequential"])
    other = next((path / "models").glob("fold_1.[bo]*"))
    other.write_bytes(other.read_bytes()[::-1])

    with pytest.raises(CheckpointError, match=f"{other.name} was replaced while it was in use"):
        predictor(np.zeros((32, 96), np.uint8))


def test_a_combined_run_is_bundled_from_the_exports_of_its_members(copy, tmp_path):
    """It has none of its own; an inference server could not weigh them."""
    flipped = create_run(tmp_path / "flipped", copy.load_config())
    models = {fold: checkpoint_member(copy.best_model(fold)).sha256 for fold in (0, 1)}
    member = EnsembleMember(
        "../copy", models, tta="hflip", crop=None, weights=(1.0, 1.0), presence=1.0
    )
    write_ensemble(
        flipped.ensemble_json, EnsembleSpec((member,), [], (), ("../copy",), ()), report={}
    )
    strip = next((copy.load_config().data.root / "test_images").iterdir())

    made = bundle(tmp_path / "flipped", made_from="onnx-fp32")

    expected = Predictor(copy.path, ["inference.tta=hflip"]).probs(strip)
    np.testing.assert_allclose(Predictor(made).probs(strip), expected, atol=1e-4)
    with pytest.raises(ConfigError, match="whose weights and flips an inference server cannot"):
        repository(made, tmp_path / "repository", server="triton")
