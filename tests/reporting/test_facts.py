import json

import pytest

from steelseg.errors import CheckpointError, DataError
from steelseg.evaluation.evaluate import evaluate_run
from steelseg.reporting.facts import read_environment, read_evaluation, read_histories
from steelseg.run.run_folder import RunFolder

NAMES = ("class 1", "class 2")


@pytest.mark.parametrize(
    ("read", "command"),
    [
        (lambda run: read_histories(run, 2), "steelseg train {} --resume"),
        (lambda run: read_evaluation(run, NAMES), "steelseg evaluate {}"),
    ],
)
def test_a_missing_file_names_the_command_that_makes_it(read, command, tmp_path):
    """That line stands in the page where the part would be."""
    with pytest.raises(CheckpointError, match=command.format(tmp_path)):
        read(RunFolder(tmp_path))


def test_a_run_need_not_say_what_it_was_made_with(tmp_path):
    """environment.json is a courtesy."""
    assert read_environment(RunFolder(tmp_path)) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"strips": 3}'])
def test_a_damaged_file_is_named(content, tmp_path):
    """A page of half the figures would be worse than none."""
    run = RunFolder(tmp_path)
    for path in (run.metrics_json, tmp_path / "environment.json"):
        path.write_text(content)

    with pytest.raises(DataError, match=r"metrics.json is damaged, or of an older version"):
        read_evaluation(run, NAMES)
    with pytest.raises(DataError, match=r"environment.json is damaged"):
        read_environment(run)


def test_a_history_without_its_columns_is_damaged(tmp_path):
    """As an interrupted copy may be."""
    run = RunFolder(tmp_path)
    run.fold(0).mkdir()
    (run.fold(0) / "history.csv").write_text("epoch,val_dice\n1,0.5\n")

    with pytest.raises(DataError, match=r"history.csv is damaged"):
        read_histories(run, 2)


def test_an_empty_cell_of_the_history_is_no_figure(predicted_run):
    """history.csv leaves a cell empty where there was nothing to divide by."""
    _, run = predicted_run(folds=1)

    (history,) = read_histories(run, 2)

    assert history.epochs == [1, 2, 3]
    assert history.columns["val_dice_positive"] == (None, 0.5, 0.6)
    assert history.best == 1
    assert history.all_empty == 1 - 4 / 16


def test_the_figures_are_those_of_metrics_json(predicted_run):
    """Class 2 is never found, and one strip without class 1 has a mask of it."""
    config, run = predicted_run()
    metrics = evaluate_run(config, run)

    facts = read_evaluation(run, NAMES)

    assert facts.strips == 12
    assert not facts.is_cross_fitted
    assert facts.overall.figures["dice"] == metrics["oof"]["dice"]
    assert facts.classes[1].figures["dice_positive"] == metrics["oof"]["dice_positive_2"]
    assert tuple(facts.classes[0].bounds["dice"]) == metrics["intervals"]["dice_1"]
    assert [row.name for row in facts.never_found] == ["class 2"]
    assert facts.classes[0].figures["false_alarms"] == 1
    assert facts.overall.gain == pytest.approx(
        metrics["oof"]["dice"] - metrics["all_empty"]["dice"]
    )
    assert [row.name for row in facts.folds] == ["fold 0", "fold 1"]


def test_metrics_of_other_classes_are_refused(predicted_run):
    """The settings may have been changed since."""
    config, run = predicted_run()
    evaluate_run(config, run)

    with pytest.raises(DataError, match=r"metrics.json"):
        read_evaluation(run, ("class 1",))


def test_a_class_that_is_not_there_is_not_called_never_found(predicted_run):
    """There was nothing to find."""
    config, run = predicted_run()
    content = evaluate_run(config, run)
    content["oof"] |= {"positives_2": 0, "misses_2": 0}
    run.metrics_json.write_text(json.dumps(content))

    assert not read_evaluation(run, NAMES).never_found
