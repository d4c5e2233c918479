import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from steelseg.api import train
from steelseg.cli.main import main
from steelseg.config.load import dump_config, load_config
from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.run.run_folder import RunFolder
from steelseg.search.results import table
from steelseg.search.search import search_run
from steelseg.search.space import read_space
from steelseg.search.study import SearchPlan, next_trial, open_study, read_search
from steelseg.search.trial import TimeIsUp, TrialRunner

KILLER = '''
"""Changes nothing; sends this process a signal when its environment asks for it."""
import os

calls = 0


def keep(image, mask):
    global calls
    calls += 1
    if calls == int(os.environ.get("SIGNAL_AFTER", 0)):
        if os.environ["SIGNAL"] == "memory":
            raise MemoryError
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
    return {"image": image, "mask": mask}
'''

SPACE = {
    "train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "train.loss": ["dice", "0.5 bce + 0.5 lovasz"],
}


@pytest.fixture(scope="module")
def place(make_strips, tmp_path_factory):
    """Give a folder with eight training strips and a user's module that can send signals."""
    folder = tmp_path_factory.mktemp("search")
    make_strips(folder / "input")
    (folder / "killer_of_searches.py").write_text(KILLER)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def settings(place, make_config):
    """Give what makes settings to search; two epochs a trial, none given up for its score."""

    def make(*overrides, space=SPACE, trials=4):
        return make_config(
            place / "input",
            "train.epochs=2",
            "train.augmentation=killer_of_searches:keep",
            "search.pruning=none",
            f"search.trials={trials}",
            f"search.space={json.dumps(space)}",
            *overrides,
        )

    return make


@pytest.fixture(scope="module")
def found(place, settings):
    """Give a search of four trials; tests leave its folder as it is."""
    return search_run(settings(), place / "found"), place / "found"


def history(folder, trial, fold=0):
    with (folder / trial.name / f"fold_{fold}" / "history.csv").open(newline="") as file:
        return [float(row["val_dice"]) for row in csv.DictReader(file)]


def outcome(search):
    return [(t.number, t.state, dict(t.params), t.score, t.epochs) for t in search.trials]


def test_every_trial_is_scored_by_its_best_epoch(found):
    """And is a run folder of its own, on the same folds."""
    search, folder = found

    assert [trial.state for trial in search.trials] == ["finished"] * 4
    for trial in search.trials:
        assert trial.score == max(history(folder, trial))
        assert [score for _, score in trial.epochs] == history(folder, trial)
        assert trial.images_per_second > 0
        folds = RunFolder(folder / trial.name).folds_csv.read_bytes()
        assert folds == (folder / "folds.csv").read_bytes()
    assert len({trial.params["train.learning_rate"] for trial in search.trials}) == 4


def test_best_yaml_holds_the_settings_of_the_best_trial(found, settings):
    """All of them, as its config.yaml does; steelseg run takes it as it is."""
    search, folder = found

    best = load_config(folder / "best.yaml")

    assert best == RunFolder(folder / search.best.name).load_config()
    assert best.train.learning_rate == search.best.params["train.learning_rate"]
    assert best.data == settings().data
    assert search.best.score == max(trial.score for trial in search.trials)


def test_the_report_shows_all_trials(found):
    """Optuna's charts, and a link to the folder of each trial."""
    search, folder = found
    page = (folder / "report.html").read_text()

    for title in ("Score by epoch", "Score by trial", "Importance of each setting"):
        assert f"<h3>{title}</h3>" in page
    for trial in search.trials:
        assert f'<a href="{trial.name}/">trial {trial.number}</a>' in page


def test_a_broken_report_does_not_end_a_search(settings, tmp_path, capsys):
    """Here report.html cannot be written; the trial and best.yaml are kept."""
    (tmp_path / "search" / "report.html").mkdir(parents=True)

    (trial,) = search_run(settings("train.epochs=1", trials=1), tmp_path / "search").trials

    assert trial.state == "finished"
    assert (tmp_path / "search" / "best.yaml").exists()
    assert "report.html was not written: " in capsys.readouterr().err


def test_the_table_has_the_best_first(found):
    """It is what the command prints."""
    search, _ = found
    header, first, *_, last = table(search).splitlines()

    assert header.split() == ["trial", "Dice", "epoch", "images/s", *SPACE]
    assert first.split()[0] == str(search.best.number)
    assert last == "4 of 4 trials: 4 finished"


def test_the_same_call_again_trains_nothing(found, settings):
    """What is finished is kept."""
    search, folder = found
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}

    assert outcome(search_run(settings(), folder)) == outcome(search)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before


def test_a_killed_search_goes_on_to_the_same_result(found, place, settings, tmp_path):
    """Killed in an epoch of its second trial; that trial trains on, and all draw the same."""
    search, _ = found
    config = settings(trials=2)
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    words = ["search", str(tmp_path / "search.yaml"), "--out", str(tmp_path / "killed")]
    path = os.pathsep.join([str(place), str(Path(__file__).parents[2] / "src")])
    asked = {"PYTHONPATH": path, "SIGNAL_AFTER": "15", "SIGNAL": str(int(signal.SIGKILL))}

    ended = subprocess.run(
        [sys.executable, "-c", "from steelseg.cli.main import main; main()", *words],
        env={**os.environ, **asked},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    again = search_run(config, tmp_path / "killed")

    assert outcome(again) == outcome(search)[:2]
    log = (tmp_path / "killed" / "trial_0001" / "training_log.txt").read_text()
    assert "resuming from" in log


def test_sigterm_stops_as_training_does(settings, tmp_path, monkeypatch, capsys):
    """It saves, says how to go on, and exits with 143; the same command ends the trial."""
    config = settings(trials=1)
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    words = ["search", str(tmp_path / "search.yaml"), "--out", str(tmp_path / "stopped")]
    killer = pytest.importorskip("killer_of_searches")
    monkeypatch.setenv("SIGNAL", str(int(signal.SIGTERM)))
    monkeypatch.setenv("SIGNAL_AFTER", str(killer.calls + 3))

    assert main(words) == 128 + signal.SIGTERM
    assert capsys.readouterr().err.splitlines()[-1] == (
        "interrupted; continue the run with the same command"
    )
    assert main(words) == 0
    out, err = capsys.readouterr()

    assert "resuming from" in err
    assert out.splitlines()[-3:] == [
        "1 of 1 trials: 1 finished",
        f"wrote {tmp_path / 'stopped' / 'best.yaml'}, the settings of trial 0",
        f"wrote {tmp_path / 'stopped' / 'report.html'}",
    ]


def test_a_network_that_is_too_slow_is_pruned_before_training(settings, tmp_path):
    """Its speed is kept, and told with what was asked for."""
    config = settings("search.min_images_per_second=1e9", trials=1)

    (trial,) = search_run(config, tmp_path / "slow").trials

    assert (trial.state, trial.score) == ("pruned", None)
    assert trial.images_per_second > 0
    assert re.fullmatch(
        r"linknet with tu-mobilenetv3_small_050 predicts [\d.]+ images/s, "
        r"search.min_images_per_second=1e\+09",
        trial.reason,
    )
    assert not (tmp_path / "slow" / trial.name).exists()
    assert not (tmp_path / "slow" / "best.yaml").exists()
    assert trial.reason in (tmp_path / "slow" / "report.html").read_text()


def test_an_encoder_that_does_not_exist_is_refused_at_once(settings, tmp_path):
    """Not by a trial, hours later."""
    config = settings(space={"model.encoder": ["resnet18", "resnet19"]})

    with pytest.raises(ConfigError, match="resnet19: no such encoder; did you mean resnet18"):
        search_run(config, tmp_path / "search")

    assert not (tmp_path / "search").exists()


def test_a_search_without_a_winner_is_no_success(settings, place, tmp_path, capsys):
    """What follows it has no best.yaml; the last reason is told."""
    (tmp_path / "mine.yaml").write_text(dump_config(settings(trials=1)))
    words = ["search", tmp_path / "mine.yaml", "--out", tmp_path / "slow"]

    code = main([*map(str, words), "search.min_images_per_second=1e9"])

    assert code == 1
    assert "error: No trial has a score, so there is no best.yaml. The last: linknet" in (
        capsys.readouterr().err
    )


def test_a_loss_that_is_no_number_ends_its_trial_alone(settings, tmp_path):
    """The search goes on with the next; the same settings are not tried twice."""
    config = settings("train.epochs=1", space={"train.learning_rate": [1e25, 1e-3]}, trials=6)

    search = search_run(config, tmp_path / "nan")

    lost = [trial for trial in search.trials if trial.params["train.learning_rate"] == "1e+25"]
    assert {trial.state for trial in lost} == {"pruned"}
    assert re.match(r"fold 0, epoch 1, (step .* is|the validation loss is) ", lost[0].reason)
    assert search.best.params == {"train.learning_rate": "0.001"}
    # All combinations were tried, so it ended before six trials.
    assert len({tuple(trial.params.values()) for trial in search.trials}) == 2
    assert len(search.trials) < 6
    assert len(list((tmp_path / "nan").glob("trial_*"))) == 2


def test_a_lack_of_memory_ends_its_trial_alone(settings, tmp_path, monkeypatch):
    """A network that is too large is nothing that a search cannot stand."""
    killer = pytest.importorskip("killer_of_searches")
    monkeypatch.setenv("SIGNAL", "memory")
    monkeypatch.setenv("SIGNAL_AFTER", str(killer.calls + 3))

    first, second = search_run(settings("train.epochs=1", trials=2), tmp_path / "large").trials

    assert (first.state, first.reason) == ("pruned", "out of memory")
    assert second.state == "finished"


def test_settings_that_contradict_each_other_end_their_trial(settings, tmp_path):
    """Ten in a row are no chance: what is wrong is said, and nothing is trained."""
    space = {"train.later_loss_epoch": [9], "train.learning_rate": {"low": 0.1, "high": 0.9}}

    with pytest.raises(ConfigError, match=r"10 trials in a row .*later_loss_epoch=9 is after"):
        search_run(settings("train.later_loss=dice", space=space, trials=40), tmp_path / "odd")

    page = (tmp_path / "odd" / "report.html").read_text()
    assert "10 of 40 trials: 10 pruned" in page
    assert list((tmp_path / "odd").glob("trial_*")) == []


def test_a_trial_behind_the_others_is_pruned(settings, tmp_path):
    """After the third epoch, once five trials are finished; score and epoch are the reason."""
    config = settings(
        *("search.pruning=median", "train.epochs=5"),
        space={"train.learning_rate": [0.01, 1e-9]},
        trials=6,
    )
    folder = tmp_path / "pruned"
    folder.mkdir()
    with open_study(folder, SearchPlan(config, read_space(config), (0,))) as (study, _):
        for rate in [*["0.01"] * 5, "1e-09"]:
            study.enqueue_trial({"train.learning_rate": rate})

    *finished, behind = search_run(config, folder).trials

    assert [trial.state for trial in finished] == ["finished"] * 5
    assert behind.state == "pruned"
    assert len(behind.epochs) == 4
    assert behind.reason.endswith("after 4 of 5 epochs is too far behind the others")


@pytest.fixture(scope="module")
def paused(place, settings):
    """Give settings of one trial and a search that ran out of time in it; tests copy the folder."""
    config, folder = settings(trials=1), place / "paused"
    plan = SearchPlan(config, read_space(config), (0,))
    assert search_run(config, folder, minutes=1e-9).trials == ()
    with open_study(folder, plan) as (study, storage):
        trial = next_trial(study, storage, seed=config.train.seed)
        with pytest.raises(TimeIsUp):
            TrialRunner(
                study=study, plan=plan, folder=folder, is_time_up=lambda: True, say=print
            ).run(trial)
    return config, folder


def test_when_the_time_is_up_the_trial_waits(found, paused, tmp_path):
    """The epoch under way ended; the next call trains on from there."""
    search, _ = found
    config, folder = paused
    shutil.copytree(folder, tmp_path / "copy")

    (trial,) = search_run(config, tmp_path / "copy").trials

    assert len(history(folder, trial)) == 1
    assert (trial.params, trial.score) == (search.trials[0].params, search.trials[0].score)


def test_a_trial_that_cannot_go_on_is_tried_again(paused, tmp_path):
    """Its checkpoints are damaged; another trial gets its settings."""
    config, folder = paused
    shutil.copytree(folder, tmp_path / "copy")
    for path in (tmp_path / "copy" / "trial_0000" / "fold_0" / "last").iterdir():
        path.write_bytes(b"")

    first, second = search_run(config, tmp_path / "copy").trials

    assert (first.state, second.state) == ("failed", "finished")
    assert first.params == second.params
    assert "its last/ has no checkpoint to resume from" in first.reason


def test_what_fails_for_all_trials_ends_the_search(settings, place, tmp_path):
    """Not tried for ever; once it is mended, the same command goes on."""
    start = place / "start.safetensors"
    config = settings(f"model.init_from={start}", trials=1)

    with pytest.raises(CheckpointError, match=r"trial 2 failed all 3 times .*no such run folder"):
        search_run(config, tmp_path / "search")

    run = RunFolder(train(settings(trials=1), tmp_path / "run", folds=[0]))
    shutil.copyfile(run.best_model(0), start)
    states = [trial.state for trial in search_run(config, tmp_path / "search").trials]
    assert states == ["failed", "failed", "failed", "finished"]


@pytest.mark.parametrize(
    ("overrides", "space", "odd"),
    [
        (
            [],
            {**SPACE, "train.loss": ["dice"]},
            r"search.space train.loss in \[.*\]; now it is in \[",
        ),
        (
            [],
            {"train.loss": SPACE["train.loss"]},
            "train.learning_rate from .* now it is not searched",
        ),
        (["train.epochs=3"], SPACE, "train.epochs=2; now it is 3"),
        (["search.min_images_per_second=1"], SPACE, "min_images_per_second None; now it is 1"),
    ],
)
def test_another_search_in_the_folder_is_refused(found, settings, overrides, space, odd):
    """Their scores cannot be compared; the way out is named."""
    _, folder = found

    with pytest.raises(ConfigError, match=f"contains a search with .*{odd}.*choose another --out"):
        search_run(settings(*overrides, space=space), folder)


def test_two_searches_in_one_folder_are_refused(found, settings):
    """The second says so at once, and the first is not disturbed."""
    search, folder = found
    config = settings()
    plan = SearchPlan(config, read_space(config), (0,))

    with open_study(folder, plan) as (study, _):
        with pytest.raises(ConfigError, match="Another steelseg search uses"):
            search_run(config, folder)
        assert outcome(read_search(study, plan)) == outcome(search)


def test_what_is_no_search_is_left_alone(trained_run, settings, tmp_path):
    """A run folder, trials without their study, a data set with a fault: nothing is written."""
    (tmp_path / "old" / "trial_0000").mkdir(parents=True)
    bad = settings(f"data.root={tmp_path / 'nowhere'}")

    with pytest.raises(ConfigError, match=r"already contains a run\. Choose another --out"):
        search_run(settings(), trained_run)
    with pytest.raises(ConfigError, match=r"contains trials, but their study\.db is missing"):
        search_run(settings(), tmp_path / "old")
    with pytest.raises(DataError):
        search_run(bad, tmp_path / "new")

    assert not (tmp_path / "new").exists()
    assert not (trained_run / "study.db").exists()


@pytest.mark.parametrize("name", ["Optuna", "Plotly"])
def test_without_its_extra_one_line_says_what_to_install(
    settings, tmp_path, monkeypatch, capsys, name
):
    """Plotly joined the extra later, so an environment with Optuna can lack it."""
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(settings().model_dump(mode="json")))
    monkeypatch.setitem(sys.modules, name.lower(), None)

    code = main(["search", str(tmp_path / "search.yaml"), "--out", str(tmp_path / "new")])

    assert (code, capsys.readouterr().err) == (
        1,
        f"error: steelseg search needs {name}, which is not installed: "
        "pip install 'steelseg[search]'.\n",
    )
    assert not (tmp_path / "new").exists()
