import json
import shutil

import numpy as np
import pytest

from steelseg import Predictor
from steelseg.api import bundle, evaluate, oof, train
from steelseg.errors import CheckpointError, ConfigError
from steelseg.inference.model_source import resolve_model
from steelseg.run.bundle_manifest import read_manifest
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import TunedPostprocessing, write_tuned
from steelseg.scoring.postprocess import MaskSettings


@pytest.fixture(scope="module")
def strips(trained_run):
    """Give strips the run has not seen."""
    return sorted((trained_run.parent / "input" / "test_images").iterdir())


@pytest.fixture(scope="module")
def threshold(trained_run, strips):
    """Give an override that splits the probabilities, so that masks have pixels."""
    return f"postprocess.threshold={np.median(Predictor(trained_run).probs(strips[0]))}"


@pytest.fixture
def run(trained_run, tmp_path):
    """Give a copy of the run that a test may change."""
    shutil.copytree(trained_run, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def tune_by_hand(run, digests):
    """Write a postprocess.json as `steelseg tune` does, chosen on these models."""
    settings = MaskSettings((0.25, 0.75), (3, 0), (5, 6), (0.5, 0.0))
    write_tuned(run.postprocess_json, TunedPostprocessing(settings, (settings,), {}, digests, {}))
    return settings


def contents(folder):
    """Give the bytes of every file of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("folds", [None, [1]])
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["inference.ensemble=sequential"],
        ["inference.tta=both", "inference.crops=true", "postprocess.min_size=20"],
    ],
)
def test_a_bundle_gives_the_masks_of_its_run(
    trained_run, strips, threshold, tmp_path, folds, overrides
):
    """To the bit, with settings baked in or given to the bundle, alone or as an ensemble."""
    expected = Predictor(trained_run, [threshold, *overrides], folds=folds)
    baked = bundle(trained_run, [threshold, *overrides], out=tmp_path / "a", folds=folds)
    plain = bundle(trained_run, out=tmp_path / "b", folds=folds)

    for found in (Predictor(baked), Predictor(plain, [threshold, *overrides])):
        for strip in strips:
            np.testing.assert_array_equal(found.probs(strip), expected.probs(strip))
            np.testing.assert_array_equal(found(strip), expected(strip))
    assert expected(strips[0]).any()


def test_a_bundle_of_a_shallow_encoder_predicts(make_strips, make_config, tmp_path):
    """Its depth is not the architecture's own."""
    make_strips(tmp_path / "input")
    shallow = ["model.encoder=tu-test_resnet", "model.arch=linknet", "model.encoder_depth=3"]
    train(make_config(tmp_path / "input", *shallow), tmp_path / "run", folds=[0])
    strip = next((tmp_path / "input" / "test_images").iterdir())

    path = bundle(tmp_path / "run")

    expected = Predictor(tmp_path / "run", folds=[0]).probs(strip)
    np.testing.assert_array_equal(Predictor(path).probs(strip), expected)


def test_a_fold_of_a_bundle_is_that_fold_of_the_run(trained_run, strips, tmp_path):
    """As of a run; one that it does not hold is refused."""
    path = bundle(trained_run, out=tmp_path / "a")

    found = Predictor(path, folds=[1]).probs(strips[0])

    np.testing.assert_array_equal(found, Predictor(trained_run, folds=[1]).probs(strips[0]))
    with pytest.raises(CheckpointError, match=r"has no fold 3. It contains: 0, 1"):
        Predictor(path, folds=[3])


def test_bundling_again_gives_the_same_bytes(run, trained_run, tmp_path):
    """Also of a copy of the run elsewhere, and over the bundle that is there."""
    first = contents(bundle(trained_run, out=tmp_path / "first"))

    assert bundle(run.path) == run.path / "bundle"
    assert contents(run.path / "bundle") == first
    assert bundle(run.path) == run.path / "bundle"
    assert contents(run.path / "bundle") == first
    assert sorted(first) == [
        "manifest.json",
        "models/fold_0.safetensors",
        "models/fold_1.safetensors",
    ]


def test_a_bundle_works_where_its_run_is_not(run, strips, tmp_path):
    """Nothing in it points back."""
    expected = Predictor(run.path)(strips[0])
    shutil.move(bundle(run.path), tmp_path / "elsewhere")
    shutil.rmtree(run.path)

    np.testing.assert_array_equal(Predictor(tmp_path / "elsewhere")(strips[0]), expected)


def test_a_bundle_does_not_tell_of_the_machine_that_made_it(run, trained_run):
    """No path of it, whatever the checkpoints hold."""
    place = str(trained_run.parent).encode()
    assert place in run.best_model(0).read_bytes()

    for name, content in contents(bundle(run.path)).items():
        assert place not in content, name
        assert str(run.path.parent).encode() not in content, name


def test_the_manifest_says_what_holds_and_where_it_comes_from(run):
    """Settings as plain values, the run by its name, and the epoch of each fold."""
    manifest = read_manifest(bundle(run.path, ["inference.tta=hflip"]))

    assert manifest.config["data"]["class_names"] == ["class 1", "class 2"]
    assert manifest.config["data"]["mean"] == [0.449]
    assert manifest.config["inference"]["tta"] == "hflip"
    assert manifest.config["postprocess"]["threshold"] == [0.5, 0.5]
    assert "root" not in manifest.config["data"]
    assert manifest.provenance["run"] == "run"
    assert manifest.provenance["evaluation"] is None
    assert [model.fold for model in manifest.models] == [0, 1]
    for fold, origin in manifest.provenance["folds"].items():
        events = map(json.loads, run.events_jsonl.read_text().splitlines())
        (event,) = (e for e in events if e["event"] == "epoch" and e["fold"] == int(fold))
        assert origin["epoch"] == 1
        assert origin["trained_at"] == event["time"]
        assert origin["validation_dice"] == event["val_dice"]


def test_what_was_tuned_becomes_the_bundles_own(run):
    """Thresholds and sizes of every class, without postprocess.json."""
    digests = [member.sha256 for member in resolve_model(run.path).members]
    tuned = tune_by_hand(run, dict(enumerate(digests)))
    path = bundle(run.path, ["postprocess.min_size=9"])

    found = resolve_model(path).masks

    assert found == MaskSettings(tuned.threshold, (9, 9), tuned.min_area, tuned.top_threshold)
    assert resolve_model(path, ["postprocess.threshold=0.4"]).masks.threshold == (0.4, 0.4)


def test_thresholds_of_another_model_are_not_bundled(run):
    """They were chosen on other predictions."""
    tune_by_hand(run, {0: "0" * 64})

    with pytest.raises(CheckpointError, match=r"postprocess.json was tuned on a diff.*fold_0"):
        bundle(run.path)
    assert not (run.path / "bundle").exists()


def test_scores_come_along_if_they_are_of_these_checkpoints(run, capsys):
    """Of others they would be a false claim."""
    oof(run.path)
    metrics = evaluate(run.path)
    scores = read_manifest(bundle(run.path)).provenance["evaluation"]

    assert scores["all"] == metrics["oof"]
    assert scores["folds"] == metrics["folds"]
    assert scores["masks"] == "by the settings"

    shutil.copy(run.best_model(1), run.best_model(0))
    capsys.readouterr()
    assert read_manifest(bundle(run.path)).provenance["evaluation"] is None
    assert "metrics.json is of other checkpoints" in capsys.readouterr().err


def test_a_damaged_checkpoint_leaves_the_old_bundle(run):
    """The new one takes its place only when it is whole."""
    path = bundle(run.path, folds=[0])
    before = contents(path)
    content = bytearray(run.best_model(1).read_bytes())
    content[-100] ^= 1
    run.best_model(1).write_bytes(content)

    with pytest.raises(CheckpointError, match=r"fold_1.*is damaged"):
        bundle(run.path)

    assert contents(path) == before
    assert [p.name for p in run.path.iterdir() if "partial" in p.name or "old" in p.suffix] == []


def test_a_folder_of_something_else_is_left_alone(run, tmp_path):
    """Whether it is no bundle, holds more than one, or is no folder at all."""
    path = bundle(run.path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("a")
    (path / "submission.csv").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(path)

    for out, reason in (
        (tmp_path / "photos", "photos is not a bundle and holds files"),
        (run.path, "run is not a bundle and holds files"),
        (path, "submission.csv is not part of the bundle"),
        (tmp_path / "file", "file is not a folder"),
        (tmp_path / "link", "link is not a folder"),
    ):
        with pytest.raises(ConfigError, match=reason):
            bundle(run.path, out=out)
    assert (path / "submission.csv").read_text() == "mine"
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_a_bundle_with_a_damaged_model_is_replaced(run):
    """Bundling again is how to mend it; one whose manifest is damaged might be anything."""
    path = bundle(run.path)
    before = contents(path)
    (path / "models" / "fold_0.safetensors").write_text("")

    assert contents(bundle(run.path)) == before

    (path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="Remove it, or choose another --out"):
        bundle(run.path)


def test_an_empty_folder_may_be_filled(run, tmp_path):
    """As `mkdir` leaves it."""
    (tmp_path / "new").mkdir()

    assert contents(bundle(run.path, out=tmp_path / "new"))


def test_only_a_run_can_be_bundled(trained_run, tmp_path):
    """A bundle is complete already: it can be copied."""
    path = bundle(trained_run, out=tmp_path / "bundle", folds=[0])

    with pytest.raises(ConfigError, match="Only a run folder can be bundled"):
        bundle(path, out=tmp_path / "again")
