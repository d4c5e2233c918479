import json
import shutil

import numpy as np
import pytest

from steelseg.data.checks.check import load_labels
from steelseg.evaluation.evaluate import evaluate_run
from steelseg.evaluation.oof import oof_run
from steelseg.run.oof_store import read_oof
from steelseg.run.run_folder import RunFolder
from steelseg.run.scores_csv import read_scores
from steelseg.scoring.metrics import all_empty, count_pixels, score


@pytest.fixture
def run(trained_run, tmp_path):
    """Give a copy of the trained run with its out-of-fold predictions."""
    shutil.copytree(trained_run, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    oof_run(run.load_config(), run)
    return run


def evaluate(run, *overrides, **options):
    return evaluate_run(run.load_config(overrides), run, **options)


def test_the_scores_are_those_of_the_stored_masks(run):
    """By the settings, as long as nothing was tuned."""
    metrics = evaluate(run, "postprocess.threshold=0.501")

    labels = load_labels(run.load_config().data)
    counts = np.stack(
        [
            count_pixels(levels_chw >= 128, labels.draw(image_id))
            for fold in (0, 1)
            for image_id, levels_chw in read_oof(run.oof(fold))
        ]
    )
    scores = score(counts)
    assert metrics["masks"] == "by the settings"
    assert metrics["oof"]["dice"] == scores.overall.dice
    assert metrics["oof"]["iou_2"] == pytest.approx(scores.per_class[1].iou, nan_ok=True)
    assert metrics["all_empty"]["dice"] == all_empty(counts).overall.dice
    assert metrics["all_empty"]["dice"] == 6 / 16
    np.testing.assert_array_equal(read_scores(run.scores_csv).counts_nc3, counts)


def test_metrics_are_written_as_json(run):
    """Overall and per class, for all folds and each, beside what empty masks score."""
    metrics = evaluate(run)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    written = json.loads(run.metrics_json.read_text(), parse_constant=refuse)
    assert written == json.loads(json.dumps(metrics))
    assert set(metrics["folds"]) == {"0", "1"}
    assert {"dice", "dice_positive", "image_recall_1", "false_alarm_rate_2"} < set(metrics["oof"])
    assert metrics["all_empty"]["precision"] is None
    assert (metrics["strips"], metrics["oof"]["pairs"]) == (8, 16)


def test_every_figure_has_an_interval_around_it(run):
    """Over strips, so that a reader sees how little eight of them show."""
    metrics = evaluate(run)

    low, high = metrics["intervals"]["dice"]
    assert low <= metrics["oof"]["dice"] <= high
    assert len(metrics["classes"]) == 2
    for kind in metrics["classes"]:
        assert set(kind) == {"components", "precision_recall", "calibration"}


def test_the_table_is_printed_and_kept_in_the_log(run, capsys):
    """With what an empty submission would score, because Dice alone flatters."""
    metrics = evaluate(run)

    text = capsys.readouterr().out
    assert "out-of-fold, 8 strips of folds 0, 1, masks by the settings:" in text
    assert "found/all, by quartile of their size" in text
    last = f"Dice {metrics['oof']['dice']:.4f}; all-empty masks would score 0.3750"
    assert last in text
    assert last in (run.path / "training_log.txt").read_text()


def test_a_class_that_is_never_found_is_shouted_about(run, capsys):
    """Mean Dice would hide it."""
    evaluate(run, "postprocess.min_area=[0, 100000]")

    assert "warning: out-of-fold, no strip with class 2 was found." in capsys.readouterr().err


def test_only_the_folds_named_are_scored(run):
    """Or all that were predicted."""
    assert set(evaluate(run, folds=[1])["folds"]) == {"1"}
    assert len(read_scores(run.scores_csv).fold_of) == 4
    shutil.rmtree(run.oof(1))

    assert set(evaluate(run)["folds"]) == {"0"}


def test_overlays_show_every_held_out_strip(run):
    """Truth above prediction."""
    evaluate(run, folds=[0], overlays=True)

    assert len(list((run.path / "overlays_oof").iterdir())) == 4
