"""The search: trials one after the other, each a training with settings of its own.

Reads  data.root, the precropped store in mode precropped
Writes SEARCH/study.db, folds.csv, trial_NNNN/ (a run folder each), best.yaml, report.html

It can be stopped or killed at any time; the same call goes on. best.yaml and report.html are
written anew after each trial.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import optuna

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
from steelseg.search.study import Asked, next_trial, open_study, read_search
from steelseg.search.trial import TimeIsUp, Unbuildable, run_trial
from steelseg.training.train import choose_folds, deal_folds

# Trials in a row that could not be built: what is wrong with them is wrong with all.
_MOST_UNBUILDABLE = 10


def search_run(
    config: Config, folder: Path, *, folds: Sequence[int] = (0,), minutes: float | None = None
) -> Search:
    """Search settings, or go on with a search.

    Args:
        config: The settings; section search says what is tried.
        folder: The folder of the search.
        folds: Folds that each trial trains; the first alone decides whether it is given up.
        minutes: Time for this call; the epoch under way ends, and its trial goes on next time.

    Returns:
        What was found so far.

    Raises:
        ConfigError: if the space is wrong, the folder holds something else, another process works
            in it, or no trial can be built.
        DataError: if the data set has a fault.
        CheckpointError: if study.db is damaged.
        Stopped: on Ctrl-C or SIGTERM, once the trial under way is saved.
    """
    begin, space = time.monotonic(), read_space(config)
    asked = Asked(config, space, tuple(choose_folds(folds, config.data.num_folds)))
    for setting in space:
        if isinstance(setting, Choice) and setting.name == "model.encoder":
            for encoder in setting.values.values():
                refuse_unknown_encoder(encoder)
    _refuse_strange(folder)
    if has_same_folds(space):
        deal_folds(config, RunFolder(folder))
    else:
        load_labels(config.data)
    folder.mkdir(parents=True, exist_ok=True)
    with open_study(folder, asked) as study:
        _go_on(
            *(study, asked, folder),
            end=None if minutes is None else begin + 60 * minutes,
        )
        return write_results(study, asked, folder)


def _refuse_strange(folder: Path) -> None:
    """Raise ConfigError if a folder holds something else than a search."""
    if RunFolder(folder).config_yaml.exists():
        raise ConfigError(f"{folder} holds a run. Choose another --out.")
    if not (folder / "study.db").exists() and any(folder.glob("trial_*")):
        raise ConfigError(
            f"{folder} holds trials, but their study.db is gone. Move them away, or choose "
            "another --out."
        )


def _go_on(study: optuna.Study, asked: Asked, folder: Path, *, end: float | None) -> None:
    """Run trials until there are enough, or the time is up."""
    config, wanted = asked.config, asked.config.search.trials
    most = count(asked.space)
    unbuildable = 0

    def is_time_up() -> bool:
        return end is not None and time.monotonic() >= end

    while (search := read_search(study, asked)).ended < wanted:
        if len({frozenset(t.drawn.items()) for t in search.ended_trials}) == most:
            _say(f"all {most} combinations were tried")
            return
        if is_time_up():
            return
        trial = next_trial(study, seed=config.train.seed)
        try:
            ended = run_trial(study, trial, asked, folder, is_time_up=is_time_up, say=_say)
        except TimeIsUp:
            _say(f"trial {trial.number}: the time is up; rerun the same command to resume")
            return
        unbuildable = unbuildable + 1 if isinstance(ended, Unbuildable) else 0
        write_results(study, asked, folder)
        if unbuildable == _MOST_UNBUILDABLE:
            raise ConfigError(f"{unbuildable} trials in a row could not be trained: {ended}")


def write_results(study: optuna.Study, asked: Asked, folder: Path) -> Search:
    """Write the settings of the best trial, and the report."""
    search = read_search(study, asked)
    text = ""
    if search.best is not None:
        text = dump_config(apply(asked.config, asked.space, search.best.drawn))
        write_text(folder / "best.yaml", text)
    try:
        write_search_report(study, search, folder, best_settings=text)
    except Exception as error:
        # Trials take hours; a fault in a chart must not end them.
        _say(f"report.html was not written: {error}. The search continues.")
    return search


def _say(text: str) -> None:
    """Tell of progress."""
    print(text, file=sys.stderr, flush=True)
