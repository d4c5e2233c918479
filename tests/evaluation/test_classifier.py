"""A classifier from training to screening: one run, seen by every stage."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from steelseg import Predictor
from steelseg.api import bundle, cascade, report, run
from steelseg.data.checks.check import load_labels
from steelseg.data.crops import Box
from steelseg.errors import ConfigError, DataError
from steelseg.evaluation.compare import compare_runs
from steelseg.evaluation.evaluate import evaluate_run
from steelseg.evaluation.oof import oof_run
from steelseg.evaluation.tune import tune_run
from steelseg.inference.members import checkpoint_member
from steelseg.models.checkpoint import load_checkpoint
from steelseg.run.cascade_json import read_cascade
from steelseg.run.oof_store import read_oof
from steelseg.run.run_folder import RunFolder
from steelseg.training.sampling import sample_chances

CLASSIFIER = ("model.arch=classifier", "model.encoder=tu-test_resnet", "train.epochs=2")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, trained_run, make_config):
    """Give a classifier with all that a whole job makes; tests leave it as it is.

    The settings of masks that any configuration may hold do not disturb it.
    """
    path = tmp_path_factory.mktemp("classifier") / "run"
    root = RunFolder(trained_run).load_config().data.root
    more = ("train.loss=lovasz", "postprocess.min_area=999999", "train.ema_decay=0.999")
    run(make_config(root, *CLASSIFIER, *more), path)
    return RunFolder(path)


@pytest.fixture
def behind(trained_run, tmp_path):
    """Give a run that makes masks, of the same folds, its strips predicted."""
    shutil.copytree(trained_run, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    oof_run(folder.load_config(), folder)
    return folder


def history_of(folder):
    with (folder.fold(0) / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_epoch_has_the_best_presence(classifier):
    """Of equals, that with the lower loss."""
    rows = history_of(classifier)
    order = [(float(row["val_presence"]), -float(row["val_loss"])) for row in rows]

    assert classifier.load_config().train.monitor == "presence"
    best = load_checkpoint(classifier.best_model(0)).state["epoch"]
    assert best == 1 + order.index(max(order))


def test_a_whole_job_ends_with_its_figures(classifier):
    """There are no masks to tune, predict or report."""
    metrics = json.loads(classifier.metrics_json.read_text())

    assert 0 <= metrics["average_precision"] <= 1
    assert len(metrics["classes"]) == 2
    assert metrics["oof"]["pairs"] == 16
    assert metrics["oof"]["dice"] == metrics["oof"]["presence_accuracy"]
    assert [row["miss_rate"] for row in metrics["first_look"]] == [0.005, 0.01, 0.02, 0.05]
    for name in ("postprocess.json", "submission.csv", "report.html"):
        assert not (classifier.path / name).exists()


def test_out_of_fold_it_is_a_run_like_any(classifier):
    """A strip is its presence everywhere, so a run on hard strips can learn from it."""
    samples = []
    for image_id, probs_chw in read_oof(classifier.oof(0)):
        assert (probs_chw == probs_chw[:, :1, :1]).all()
        samples.append((image_id, Box(0, 0, 32, 48)))

    chances = sample_chances(
        load_labels(classifier.load_config().data),
        samples,
        sampling="all",
        hard_negatives=classifier.path,
    )

    assert chances.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("stage", "what"),
    [
        (lambda folder: tune_run(folder.load_config(), folder), "tune"),
        (lambda folder: report(folder.path), "show"),
        (lambda folder: Predictor(folder.path), "predict"),
        (lambda folder: Predictor(folder.best_model(0)), "predict"),
        (lambda folder: bundle(folder.path, out=folder.path / "b"), "predict"),
        (lambda folder: cascade(folder.path, folder.path), "screen strips for"),
        (lambda folder: evaluate_run(folder.load_config(), folder, overlays=True), "draw"),
    ],
)
def test_what_needs_masks_says_what_to_do_instead(classifier, stage, what):
    with pytest.raises(ConfigError, match=rf"nothing to {what}\. .*cascade RUN --first CLASSIFIER"):
        stage(classifier)


def test_it_is_compared_only_with_classifiers(classifier, behind):
    evaluate_run(behind.load_config(), behind)

    assert compare_runs(classifier, classifier).differences[0].b >= 0
    with pytest.raises(DataError, match="only be compared with another classifier"):
        compare_runs(classifier, behind)


def test_it_screens(classifier, behind):
    """By the cut that its presence out of fold has, to the bit, as run and as bundle."""
    result = cascade(behind.path, classifier.path, miss_rate=0.3, fold=1)
    root = behind.load_config().data.root
    cut = read_cascade(behind.cascade_json).cut
    network = checkpoint_member(classifier.best_model(1)).load(torch.device("cpu"))
    path = bundle(behind.path, out=behind.path / "bundle")
    plain = Predictor(behind.path, ["inference.cascade=false"])
    predictors = [Predictor(place) for place in (behind.path, path)]

    assert result.defective == 6
    for image in sorted((root / "train_images").iterdir()):
        with torch.inference_mode():
            pixels = torch.from_numpy(plain._load(image)).permute(2, 0, 1)[None]
            is_clean = float(network(pixels)[1].sigmoid().max()) < cut
        expected = plain.probs(image) * (not is_clean)
        for predictor in predictors:
            np.testing.assert_array_equal(predictor.probs(image), expected)
