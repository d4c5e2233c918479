import json
import shutil

import numpy as np
import pytest

from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.evaluation.evaluate import evaluate_run
from steelseg.evaluation.oof import oof_run
from steelseg.evaluation.tune import default_sizes, tune_run
from steelseg.run.held_out import open_held_out
from steelseg.run.oof_store import new_store
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import mask_maker, read_tuned
from steelseg.scoring.metrics import count_pixels, score


@pytest.fixture
def run(trained_run, tmp_path):
    """Give a copy of the trained run whose predictions are the truth with noise."""
    shutil.copytree(trained_run, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    oof_run(run.load_config(), run)
    blur(run)
    return run


def held_out_of(run):
    config = run.load_config()
    return open_held_out(config.data, run)


def blur(run):
    """Replace the predictions of an untrained network by something that can be tuned on."""
    random = np.random.default_rng(0)
    held_out = held_out_of(run)
    for fold, path in enumerate(held_out.paths):
        image_ids = [i for i, k in held_out.fold_of.items() if k == fold]
        with new_store(
            path,
            image_ids=image_ids,
            sizes=[held_out.labels.sizes[i] for i in image_ids],
            num_classes=2,
            model_sha256=held_out.models[fold],
        ) as array:
            for place, image_id in enumerate(image_ids):
                truth_chw = held_out.labels.draw(image_id)
                noise = random.integers(-80, 80, truth_chw.shape)
                array[place] = np.clip(truth_chw * 110 + 60 + noise, 0, 255).astype(np.uint8)


def tune(run, *overrides):
    return tune_run(run.load_config(overrides), run)


def test_the_naive_score_is_that_of_the_chosen_settings(run):
    """Made again from masks, the long way."""
    tuned = tune(run)

    to_mask = mask_maker(tuned.settings)
    counts = [count_pixels(to_mask(probs), truth) for _, probs, truth in held_out_of(run)]
    naive = tuned.report["scores"]["naive"]
    assert naive["dice"] == pytest.approx(score(np.stack(counts)).overall.dice)
    assert naive["dice"] > tuned.report["scores"]["untuned"]["dice"]


def test_evaluate_reports_the_cross_fitted_score(run):
    """Every strip is judged with what was chosen on the others, in both stages."""
    tuned = tune(run)

    metrics = evaluate_run(run.load_config(), run)

    fitted = tuned.report["scores"]["cross_fitted"]
    assert metrics["masks"] == "cross-fitted"
    assert metrics["oof"]["dice"] == pytest.approx(fitted["dice"])
    assert metrics["oof"]["false_alarms"] == fitted["false_alarms"]
    assert metrics["oof"]["dice_positive_2"] == pytest.approx(fitted["classes"][1]["dice_positive"])


def test_every_strip_is_in_one_part(run):
    """And no inner fold is empty."""
    tuned = tune(run, "tune.inner_folds=3")

    assert set(tuned.inner_fold_of) == set(held_out_of(run).fold_of)
    assert set(tuned.inner_fold_of.values()) == {0, 1, 2}
    assert len(tuned.inner_folds) == 3


def test_strips_that_look_alike_stay_in_one_part(run):
    """Else one of them would choose what the other is judged by."""
    header, *rows = run.folds_csv.read_text().splitlines()
    group = {row.partition(",")[0] for row in rows if ",0," in row}
    first = min(group)
    rows = [row + first if row.partition(",")[0] in group else row for row in rows]
    run.folds_csv.write_text("\n".join([header, *rows]) + "\n")

    tuned = tune(run)

    assert len({tuned.inner_fold_of[image_id] for image_id in group}) == 1
    assert set(tuned.inner_fold_of.values()) == set(range(len(tuned.inner_folds)))


def test_what_the_settings_give_is_kept(run):
    """Only what is left null is searched."""
    tuned = tune(run, "postprocess.threshold=[0.31, 0.62]", "postprocess.min_size=3")

    for settings in (tuned.settings, *tuned.inner_folds):
        assert settings.threshold == (0.31, 0.62)
        assert settings.min_size == (3, 3)


def test_nothing_left_to_choose_is_said(run):
    """Else a table of equal scores would look like a result."""
    given = [f"postprocess.{name}=0" for name in ("min_size", "min_area", "top_threshold")]

    with pytest.raises(ConfigError, match=r"nothing to choose. Set one to null"):
        tune(run, "postprocess.threshold=0.5", *given)


def test_what_tuning_was_told_holds_for_later_stages(run):
    """The stages behind it read the same settings from the run folder."""
    tuned = tune(run, "postprocess.threshold=[0.31, 0.62]")

    assert run.load_config().postprocess.threshold == (0.31, 0.62)
    metrics = evaluate_run(run.load_config(), run)
    assert metrics["oof"]["dice"] == pytest.approx(tuned.report["scores"]["cross_fitted"]["dice"])


def test_costs_are_one_a_class(run):
    """A class whose misses cost nothing is left empty; the other is found at any price."""
    tuned = tune(run, "tune.objective=cost", "tune.cost_miss=[0, 1000]")

    first, second = tuned.report["scores"]["naive"]["classes"]
    assert first["false_alarms"] == 0
    assert second["found"] == second["positives"]


def test_the_file_reads_back_to_what_was_chosen(run):
    """With landscapes and operating points of every class for the report."""
    tuned = tune(run)

    again = read_tuned(run.postprocess_json)
    assert (again.settings, again.inner_folds, again.inner_fold_of, again.models) == (
        tuned.settings,
        tuned.inner_folds,
        tuned.inner_fold_of,
        tuned.models,
    )
    content = json.loads(run.postprocess_json.read_text())
    for kind in content["classes"]:
        landscape = kind["landscape"]
        assert len(landscape["dice"]) == len(landscape["thresholds"])
        assert len(landscape["dice"][0]) == len(landscape["min_sizes"])
        assert kind["operating_points"][-1]["found"] > 0


def test_the_summary_warns_of_the_optimistic_score(run, capsys):
    """The biased score is shown next to the one to report."""
    tune(run)

    out = capsys.readouterr().out
    assert "untuned  cross-fitted  naive" in out
    assert "report this score" in out


def test_a_run_without_predictions_is_refused(trained_run):
    """By the command that makes them."""
    with pytest.raises(
        CheckpointError, match=r"no out-of-fold predictions. Create them with: steelseg"
    ):
        tune(RunFolder(trained_run))


def test_predictions_of_another_model_are_not_judged_by_it(run):
    """After more training the old choice no longer fits."""
    tune(run)
    content = json.loads(run.postprocess_json.read_text())
    content["models"]["1"] = "0" * 64
    run.postprocess_json.write_text(json.dumps(content))

    with pytest.raises(CheckpointError, match="Tune again: steelseg tune"):
        evaluate_run(run.load_config(), run)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"parts": [], "models": {}}', '{"parts": 3}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    """In one line that says how to make it again."""
    path = tmp_path / "postprocess.json"
    path.write_text(text)

    with pytest.raises(DataError, match=r"is damaged. Recreate it with: steelseg tune RUN."):
        read_tuned(path)


def test_sizes_follow_the_image():
    """25 to 25,600 pixels on a Severstal strip."""
    sizes = default_sizes(256 * 1600)

    assert sizes[:3] == (0, 25, 35)
    assert sizes[-1] == 25_600
    assert default_sizes(16)[:2] == (0, 1)
