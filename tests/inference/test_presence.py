"""The presence head from training to bundle: one gated run, seen by every stage."""

import shutil

import numpy as np
import pytest
import zarr

from steelseg import Predictor
from steelseg.api import report
from steelseg.data.formats.images import read_image
from steelseg.errors import CheckpointError, ConfigError
from steelseg.evaluation.evaluate import evaluate_run
from steelseg.evaluation.oof import oof_run
from steelseg.evaluation.tune import tune_run
from steelseg.inference.ensemble import Ensemble
from steelseg.inference.forward import ForwardPlan
from steelseg.inference.members import checkpoint_member
from steelseg.models.device import pick_device
from steelseg.run.held_out import open_held_out
from steelseg.run.oof_store import read_oof
from steelseg.run.run_folder import RunFolder
from steelseg.scoring.gate import build_gate
from steelseg.training.train import train_run


@pytest.fixture(scope="module")
def gated(tmp_path_factory, make_config, make_strips):
    """Give a run with a presence head, its strips predicted; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("gated")
    make_strips(folder / "input")
    config = make_config(
        folder / "input",
        "model.presence_head=true",
        "model.encoder=tu-test_resnet",
        "train.epochs=2",
    )
    train_run(config, folder / "run")
    run = RunFolder(folder / "run")
    oof_run(config, run)
    return run


@pytest.fixture
def run(gated, tmp_path):
    """Give a copy that a test may change."""
    shutil.copytree(gated.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def strip_of(run):
    image_id, _ = next(read_oof(run.oof(0)))
    return image_id, run.load_config().data.root / "train_images" / image_id


def raw_answer(run, path):
    """Probabilities and presence of one strip by fold 0, before any gate."""
    member = checkpoint_member(run.best_model(0))
    ensemble = Ensemble([member], sequential=False, device=pick_device())
    batch = (("",), read_image(path, channels=1)[None])
    ((_, _, probs_chw, presence_c),) = ensemble.predict_ungated([batch], ForwardPlan())
    return probs_chw, presence_c


def test_oof_keeps_presence_to_the_bit(gated):
    """Tuning and scoring gate by what prediction will see."""
    image_id, path = strip_of(gated)
    config = gated.load_config()
    held_out = open_held_out(config.data, gated, gate="hard")

    _, presence_c = raw_answer(gated, path)

    assert set(held_out.presence) == set(held_out.fold_of)
    np.testing.assert_array_equal(held_out.presence[image_id], presence_c)
    assert ((presence_c > 0) & (presence_c < 1)).all()


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_a_predictor_gates(gated, mode):
    """Hard between the two presences empties one class; soft multiplies both."""
    _, path = strip_of(gated)
    probs_chw, presence_c = raw_answer(gated, path)
    between = float(presence_c.mean())

    overrides = [f"inference.gate={mode}", f"postprocess.gate={between}"]
    found = Predictor(gated.path, overrides, folds=[0]).probs(path)

    expected = build_gate(mode, (between, between))(probs_chw, presence_c)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, probs_chw)


def test_another_gate_is_another_model(gated):
    """Whoever compares two answers by the model's hash must see that a gate lies between them."""
    hashes = {
        Predictor(gated.path, [f"inference.gate={mode}"], folds=[0]).sha256
        for mode in ("none", "soft")
    }

    assert len(hashes) == 2


def test_hard_gates_are_tuned_and_cross_fitted_with_the_rest(run):
    """What tune reports is what evaluate finds with masks, each strip by its own part's gate."""
    config = run.load_config(("inference.gate=hard", "tune.objective=cost"))

    tuned = tune_run(config, run)
    metrics = evaluate_run(config, run)

    fitted = tuned.report["scores"]["cross_fitted"]
    assert len(tuned.settings.gate) == 2
    assert metrics["oof"]["dice"] == pytest.approx(fitted["dice"])
    assert metrics["oof"]["false_alarms"] == fitted["false_alarms"]
    assert "<th>gate</th>" in report(run.path).read_text()


def test_a_gate_that_is_right_takes_the_false_alarms_away(run):
    """Presence that equals the truth lets every clean class pass no mask."""
    config = run.load_config(("inference.gate=hard", "postprocess.threshold=0.002"))
    held_out = open_held_out(config.data, run)
    for fold in (0, 1):
        array = zarr.open_array(str(run.oof(fold)))
        array.attrs["presence"] = [
            [0.9 if class_id in held_out.present[i] else 0.1 for class_id in (1, 2)]
            for i in array.attrs["image_ids"]
        ]

    open_gate = evaluate_run(run.load_config(("postprocess.threshold=0.002",)), run)["oof"]
    tune_run(config, run)
    gated = evaluate_run(config, run)["oof"]

    assert open_gate["false_alarms"] > 0
    assert gated["false_alarms"] == 0
    assert gated["image_recall"] == open_gate["image_recall"] == 1


def test_predictions_without_presence_cannot_be_gated(trained_run, tmp_path):
    """Neither in tuning nor with the network."""
    shutil.copytree(trained_run, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    oof_run(run.load_config(), run)

    with pytest.raises(ConfigError, match=r"model\.presence_head=true"):
        run.load_config(("inference.gate=soft",))
    with pytest.raises(CheckpointError, match="without presence"):
        tune_run(run.load_config(("inference.gate=soft", "model.presence_head=true")), run)
    with pytest.raises(CheckpointError, match=r"trained with model\.presence_head=False"):
        Predictor(run.path, ["model.presence_head=true"])
