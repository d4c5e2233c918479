import json
import re

import optuna
import pytest
from optuna.trial import TrialState

from steelseg.search.report import write_search_report
from steelseg.search.results import Search, Trial
from steelseg.search.space import Choice, Number

NASTY = '<script>alert("1")</script> & "quotes"'

SPACE = (
    Number("train.learning_rate", 1e-4, 1e-2, is_log=True, is_whole=False),
    Choice("model.encoder", {"resnet18": "resnet18", NASTY: NASTY}),
)

STATES = {
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}


def trial(number, state="finished", score=0.5, word="resnet18", **changes):
    values = {
        "params": {"train.learning_rate": 1e-3 * (number + 1), "model.encoder": word},
        "epochs": () if score is None else ((1, score / 2), (2, score)),
        "images_per_second": 12.5,
        "seconds": 60.0,
        "reason": "",
    }
    return Trial(number=number, state=state, score=score, **{**values, **changes})


def study_of(trials):
    """Make the study that holds the same trials."""
    study = optuna.create_study(direction="maximize")
    distributions = {
        "train.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "model.encoder": optuna.distributions.CategoricalDistribution(("resnet18", NASTY)),
    }
    for one in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=STATES[one.state],
                value=one.score if one.state == "finished" else None,
                params=dict(one.params),
                distributions=distributions,
                intermediate_values=dict(one.epochs),
            )
        )
    return study


def page(folder, *trials):
    search = Search(SPACE, trials, 40, (0,), "Dice", 10.0)
    path = write_search_report(study_of(trials), search, folder, best_settings="a: 1\n")
    return path.read_text()


def titles(text):
    return re.findall(r"<h3>(.*?)</h3>", text)


def test_a_search_that_has_just_begun_has_a_page(tmp_path):
    """Each empty part says so."""
    text = page(tmp_path)

    assert "No trial is finished yet" in text
    assert "No trial has a score yet" in text
    assert titles(text) == []


@pytest.mark.parametrize(("finished", "has_importance"), [(1, False), (4, True)])
def test_charts_appear_once_they_have_something_to_show(tmp_path, finished, has_importance):
    """Importances of fewer than four trials are a guess."""
    trials = [trial(n, score=0.5 + 0.1 * n, word=["resnet18", NASTY][n % 2]) for n in range(4)]

    shown = titles(page(tmp_path, *trials[:finished]))

    assert {"Score by epoch", "Score by trial", "Settings of each trial", "Timeline"} <= set(shown)
    assert ("Importance of each setting" in shown) == has_importance


def test_a_page_without_a_finished_trial_shows_the_epochs_so_far(tmp_path):
    assert titles(page(tmp_path, trial(0, "pruned", 0.2))) == ["Score by epoch"]


def test_the_page_is_one_file_that_may_load_nothing(tmp_path):
    """Its policy refuses every address, and Plotly's script is inside."""
    text = page(tmp_path, trial(0))

    assert "default-src 'none'; script-src 'unsafe-inline'; style-src" in text
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", text)
    assert text.count("Plotly.newPlot(") >= 3
    assert len(text) > 4e6


def test_names_that_a_user_chose_are_escaped(tmp_path):
    """Encoders, reasons and settings are text, also within the data of the charts."""
    trials = [
        trial(0),
        trial(1, score=0.7, word=NASTY),
        trial(2, "pruned", None, reason=NASTY, images_per_second=None),
        trial(3, "failed", 0.1, reason=NASTY),
        trial(4, "running", 0.2),
    ]

    text = page(tmp_path, *trials)

    assert NASTY not in text
    assert json.dumps(NASTY) not in text
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;") >= 3
    assert "3 of 40 trials: 2 finished, 1 pruned, 1 failed, 1 running" in text


def test_the_table_lists_all_trials_the_best_first(tmp_path):
    """Then those without a final score, with the reason."""
    trials = [trial(0), trial(1, "pruned", 0.9, reason="too slow"), trial(2, score=0.7)]

    rows = re.findall(r'<th scope="row">trial (\d)</th>', page(tmp_path, *trials))

    assert rows == ["2", "0", "1"]
    assert "too slow" in (tmp_path / "report.html").read_text()


def test_trials_link_to_their_reports_or_folders(tmp_path):
    """A trial without a folder has no link."""
    (tmp_path / "trial_0000").mkdir()
    (tmp_path / "trial_0001").mkdir()
    (tmp_path / "trial_0001" / "report.html").write_text("")

    text = page(tmp_path, trial(0), trial(1), trial(2))

    assert '<a href="trial_0000/">trial 0</a>' in text
    assert '<a href="trial_0001/report.html">trial 1</a>' in text
    assert "trial_0002" not in text
