import json
import shutil

import numpy as np
import pytest

from steelseg.data.checks.check import load_labels
from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.evaluation.cascade import cascade_run
from steelseg.evaluation.evaluate import evaluate_run
from steelseg.evaluation.oof import oof_run
from steelseg.run.cascade_json import Cascade, read_cascade
from steelseg.run.held_out import open_held_out
from steelseg.run.oof_store import new_store
from steelseg.run.run_folder import RunFolder


@pytest.fixture
def runs(trained_run, tmp_path):
    """Give a run with predictions, and a cheap one that finds just what there is."""
    for name in ("run", "first"):
        shutil.copytree(trained_run, tmp_path / name)
    run, first = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "first")
    oof_run(run.load_config(), run)
    look(run, first, lambda truth_chw: 200 * truth_chw)
    return run, first


def look(run, first, guess):
    """Write the cheap run's predictions: what `guess` makes of the truth."""
    data = run.load_config().data
    labels = load_labels(data)
    held_out = open_held_out(data, run)
    for fold in (0, 1):
        image_ids = [i for i, f in held_out.fold_of.items() if f == fold]
        with new_store(
            first.oof(fold),
            image_ids=image_ids,
            sizes=[labels.sizes[i] for i in image_ids],
            num_classes=data.num_classes,
            model_sha256=f"digest {fold}",
        ) as array:
            for place, image_id in enumerate(image_ids):
                truth_chw = labels.draw(image_id).astype(np.uint8)
                array[place, :, : truth_chw.shape[1], : truth_chw.shape[2]] = guess(truth_chw)


def choose(run, first, *overrides, miss_rate=0.0, **options):
    return cascade_run(run.load_config(overrides), run, first, miss_rate=miss_rate, **options)


def test_a_perfect_screening_skips_exactly_the_clean_strips(runs, capsys):
    run, first = runs
    labels = load_labels(run.load_config().data)
    clean = sum(not labels.class_ids(image_id) for image_id in labels.sizes)

    found = choose(run, first)

    assert clean > 0
    assert (found.missed, found.skipped, found.clean) == (0, clean, clean)
    assert f"{clean} of {clean} clean strips skipped" in capsys.readouterr().out
    cascade = read_cascade(run.cascade_json)
    assert (cascade.first, cascade.fold, cascade.sha256) == ("../first", 0, "digest 0")
    assert 0 < cascade.cut < 1


def test_the_dice_beside_it_is_that_of_evaluate(runs):
    """And skipping clean strips takes false alarms away, never a defect."""
    run, first = runs
    choose(run, first)

    written = json.loads(run.cascade_json.read_text())
    config = run.load_config()
    assert written["dice_with_all"] == evaluate_run(config, run)["oof"]["dice"]
    assert written["dice_with_cascade"] >= written["dice_with_all"]


def test_an_uninformative_screening_skips_nothing(runs):
    """Every strip has the same defect score."""
    run, first = runs
    look(run, first, np.zeros_like)

    found = choose(run, first, miss_rate=0.3)

    assert (found.missed, found.skipped) == (0, 0)


def test_a_chosen_fold_screens(runs):
    run, first = runs
    choose(run, first, fold=1)

    assert read_cascade(run.cascade_json).sha256 == "digest 1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"miss_rate": 1.0}, "--miss-rate 1: expected at least 0 and less than 1"),
        ({"miss_rate": -0.1}, "--miss-rate -0.1"),
        ({"fold": 7}, "has no predictions of fold 7. It has predictions of 0, 1"),
    ],
)
def test_what_cannot_be_is_refused(runs, options, message):
    run, first = runs
    with pytest.raises(ConfigError, match=message):
        choose(run, first, **options)
    assert not run.cascade_json.exists()


def test_a_run_cannot_screen_for_itself(runs):
    run, _ = runs
    with pytest.raises(ConfigError, match="cannot screen for itself"):
        choose(run, RunFolder(run.path / ".." / run.path.name))


def test_both_runs_need_predictions_of_the_same_strips(runs):
    run, first = runs
    shutil.rmtree(first.oof(1))

    with pytest.raises(CheckpointError, match="has no prediction of"):
        choose(run, first)


def test_a_damaged_file_says_so(tmp_path):
    path = tmp_path / "cascade.json"
    assert read_cascade(path) is None
    path.write_text('{"first": "x", "fold": 0}')
    with pytest.raises(DataError, match=r"cascade.json is damaged"):
        read_cascade(path)
    path.write_text(json.dumps({"first": "x", "fold": 0, "sha256": "y", "cut": 0.5}))
    assert read_cascade(path) == Cascade("x", 0, "y", 0.5)
