import pytest

from steelseg.errors import CheckpointError, DataError
from steelseg.evaluation.tune import tune_run
from steelseg.reporting.facts import read_tuning
from steelseg.run.run_folder import RunFolder

NAMES = ("class 1", "class 2")


def test_a_run_that_was_not_tuned_names_the_command(tmp_path):
    """That line stands in the page where the part would be."""
    with pytest.raises(CheckpointError, match=f"Create it with: steelseg tune {tmp_path}"):
        read_tuning(RunFolder(tmp_path), NAMES)


def test_the_facts_are_those_of_postprocess_json(predicted_run):
    """Settings by class, their spread over the parts, and the three scores."""
    config, run = predicted_run()
    tuned = tune_run(config, run)

    facts = read_tuning(run, NAMES)

    assert facts.strips == 12
    assert facts.parts == len(tuned.inner_folds)
    assert facts.classes[0].settings["threshold"] == tuned.settings.threshold[0]
    low, high = facts.classes[0].over_parts["min_area"]
    assert {part.min_area[0] for part in tuned.inner_folds} >= {low, high}
    assert [name for name, _, _ in facts.rows] == ["all", *NAMES]
    assert facts.rows[1][2]["naive"]["positives"] == 6
    scores = tuned.report["scores"]
    assert facts.optimism == scores["naive"]["dice"] - scores["cross_fitted"]["dice"]


def test_settings_of_other_classes_are_refused(predicted_run):
    """The settings may have been changed since."""
    config, run = predicted_run()
    tune_run(config, run)

    with pytest.raises(DataError, match=r"postprocess.json is damaged, or of an older version"):
        read_tuning(run, (*NAMES, "class 3"))
