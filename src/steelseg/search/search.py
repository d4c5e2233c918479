"""Hyperparameter search: run trials one after another, each a training with its own settings.

Reads  data.root, the precropped store in mode precropped
Writes SEARCH/study.db, folds.csv, trial_NNNN/ (a run folder each), best.yaml, report.html

A search can be stopped or killed at any time; the same call resumes it. best.yaml and report.html
are rewritten after each trial.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.storages import RDBStorage

from steelseg.config.config import Config
from steelseg.config.load import dump_config
from steelseg.data.checks.check import load_labels
from steelseg.errors import ConfigError
from steelseg.files.atomic import write_text
from steelseg.models.model import refuse_unknown_encoder
from steelseg.run.run_folder import RunFolder
from steelseg.search.report import write_search_report
from steelseg.search.results import Search
from steelseg.search.space import Choice, apply, count, has_same_folds, read_space
from steelseg.search.study import SearchPlan, next_trial, open_study, read_search
from steelseg.search.trial import TimeIsUp, TrialRunner, Unbuildable
from steelseg.training.train import choose_folds, ensure_folds

# After this many unbuildable trials in a row, the fault is in the settings that all trials share.
_MOST_UNBUILDABLE = 10


def search_run(
    config: Config, folder: Path, *, folds: Sequence[int] = (0,), minutes: float | None = None
) -> Search:
    """Start or resume a search.

    Args:
        config: The settings; section search defines the search space.
        folder: The folder of the search.
        folds: Folds that each trial trains; only the first decides whether a trial is pruned.
        minutes: Time budget of this call: the current epoch finishes, and the next call resumes
            its trial. None for no limit.

    Returns:
        The results so far.

    Raises:
        ConfigError: if the space is wrong, the folder holds something else, another process uses
            it, or no trial can be built.
        DataError: if the data set has a fault.
        CheckpointError: if study.db is damaged.
        Stopped: on Ctrl-C or SIGTERM, once the running trial is saved.
    """
    begin, space = time.monotonic(), read_space(config)
    plan = SearchPlan(config, space, tuple(choose_folds(folds, config.data.num_folds)))
    for setting in space:
        if isinstance(setting, Choice) and setting.name == "model.encoder":
            for encoder in setting.values.values():
                refuse_unknown_encoder(encoder)
    _refuse_other_content(folder)
    if has_same_folds(space):
        ensure_folds(config, RunFolder(folder))
    else:
        load_labels(config.data)
    folder.mkdir(parents=True, exist_ok=True)
    with open_study(folder, plan) as (study, storage):
        runner = TrialRunner(
            study=study,
            plan=plan,
            folder=folder,
            is_time_up=lambda: minutes is not None and time.monotonic() >= begin + 60 * minutes,
            say=_say,
        )
        _run_trials(runner, storage)
        return write_results(study, plan, folder)


def _refuse_other_content(folder: Path) -> None:
    """Raise ConfigError if the folder holds anything other than a search."""
    if RunFolder(folder).config_yaml.exists():
        raise ConfigError(f"{folder} already contains a run. Choose another --out.")
    if not (folder / "study.db").exists() and any(folder.glob("trial_*")):
        raise ConfigError(
            f"{folder} contains trials, but their study.db is missing. Move them away, or choose "
            "another --out."
        )


def _run_trials(runner: TrialRunner, storage: RDBStorage) -> None:
    """Run trials until there are enough or the time is up."""
    study, plan = runner.study, runner.plan
    most = count(plan.space)
    unbuildable = 0
    while (search := read_search(study, plan)).ended < search.wanted:
        if len({frozenset(trial.params.items()) for trial in search.ended_trials}) == most:
            _say(f"all {most} combinations were tried")
            return
        if runner.is_time_up():
            return
        trial = next_trial(study, storage, seed=plan.config.train.seed)
        try:
            pruned = runner.run(trial)
        except TimeIsUp:
            _say(f"trial {trial.number}: the time is up; rerun the same command to resume")
            return
        unbuildable = unbuildable + 1 if isinstance(pruned, Unbuildable) else 0
        write_results(study, plan, runner.folder)
        if unbuildable == _MOST_UNBUILDABLE:
            raise ConfigError(f"{unbuildable} trials in a row could not be trained: {pruned}")


def write_results(study: optuna.Study, plan: SearchPlan, folder: Path) -> Search:
    """Write best.yaml and report.html."""
    search = read_search(study, plan)
    text = ""
    if search.best is not None:
        text = dump_config(apply(plan.config, plan.space, search.best.params))
        write_text(folder / "best.yaml", text)
    try:
        write_search_report(study, search, folder, best_settings=text)
    except Exception as error:
        # Trials take hours; a fault in a chart must not end them.
        _say(f"report.html was not written: {error}. The search continues.")
    return search


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
