"""One trial: its settings, its speed, its training, and how it ends.

Training knows nothing of the search: it tells of each epoch, and what is raised there ends it. A
trial that was stopped or killed has its run folder, and trains on from there to the same bits.
"""

import gc
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from steelseg.config.config import Config
from steelseg.errors import (
    CheckpointError,
    ConfigError,
    OutOfMemory,
    TrainingError,
    raising_out_of_memory,
)
from steelseg.files.atomic import write_bytes
from steelseg.run.run_folder import RunFolder
from steelseg.search.results import trial_name, write_value
from steelseg.search.space import apply, has_same_folds
from steelseg.search.speed import images_per_second, speed_key
from steelseg.search.study import Asked, draw
from steelseg.training.train import train_run
from steelseg.training.trainer import monitor_value

# A trial that fails so often fails of something that all trials share.
_MOST_FAILURES = 3

# A process that dies so often before an epoch of a trial has ended dies of that trial.
_MOST_STARTS = 5


class GivenUp(Exception):  # noqa: N818 - nothing is wrong
    """A trial ends without a score that counts, for this reason."""


class Unbuildable(GivenUp):
    """Its settings contradict each other or the machine, so nothing was trained."""


class TimeIsUp(Exception):  # noqa: N818 - nothing is wrong
    """The search ends for now; the trial under way goes on next time."""


@dataclass
class _Hook:
    """Brings what training tells of each epoch to the study."""

    trial: optuna.Trial
    folds: tuple[int, ...]
    epochs: int
    """Of the whole training of a fold."""
    is_time_up: Callable[[], bool]
    told: set[int]
    """Epochs that the study knows already."""
    best: dict[int, float] = field(default_factory=dict)
    """Best score so far, by fold."""
    seconds: float = 0.0

    def __call__(self, fold: int, row: Mapping[str, float]) -> None:
        """Take a row of history.csv; raises GivenUp or TimeIsUp where training shall end."""
        epoch, score = int(row["epoch"]), monitor_value(dict(row))
        self.best[fold] = max(score, self.best.get(fold, score))
        self.seconds += row["seconds"]
        self.trial.set_user_attr("seconds", self.seconds)
        self.trial.set_user_attr("starts", 0)
        if fold == self.folds[0]:
            self._report(epoch, score)
        if self.is_time_up():
            raise TimeIsUp

    def _report(self, epoch: int, score: float) -> None:
        """Tell the study; raises GivenUp if the others are far ahead."""
        if epoch not in self.told:
            self.told.add(epoch)
            self.trial.report(score, epoch)
        # What is trained to its end is kept, however it did.
        is_through = epoch == self.epochs and len(self.folds) == 1
        if not is_through and self.trial.should_prune():
            best = self.best[self.folds[0]]
            raise GivenUp(
                f"{best:.4f} after {epoch} of {self.epochs} epochs is too far behind the others"
            )


def run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    asked: Asked,
    folder: Path,
    *,
    is_time_up: Callable[[], bool],
    say: Callable[[str], None],
) -> GivenUp | None:
    """Bring a trial to its end, and tell the study.

    Args:
        study: Where it is from.
        trial: New, or left under way.
        asked: What is searched.
        folder: The folder of the search; the trial gets one inside.
        is_time_up: Asked after each epoch.
        say: Told what happens, a line each.

    Returns:
        Why it was given up; None if it has a score, or is to be tried again.

    Raises:
        TimeIsUp: if the time is up; the trial is left under way.
        Stopped: on Ctrl-C or SIGTERM; the same.
        DataError: if the data set has a fault; the same.
        CheckpointError: if it failed for the third time; it is tried again next time.
    """
    drawn, name = draw(trial, asked.space), f"trial {trial.number}"
    say(f"{name}: " + ", ".join(f"{key}={write_value(value)}" for key, value in drawn.items()))
    try:
        score = _score(study, trial, asked, folder, is_time_up=is_time_up, say=say)
    except GivenUp as end:
        trial.set_user_attr("reason", str(end))
        study.tell(trial, state=TrialState.PRUNED)
        say(f"{name}: given up: {end}")
        return end
    except CheckpointError as error:
        # In this order: a kill between the two tries the trial twice, not never.
        study.enqueue_trial(dict(drawn))
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=TrialState.FAIL)
        if (times := _failures(study, trial)) >= _MOST_FAILURES:
            raise CheckpointError(
                f"{name} failed, the {times} times it was tried: {error}"
            ) from None
        say(f"{name}: failed, and is tried again: {error}")
        return None
    study.tell(trial, score)
    say(f"{name}: {asked.config.train.monitor} {score:.4f}")
    return None


def _score(
    study: optuna.Study,
    trial: optuna.Trial,
    asked: Asked,
    folder: Path,
    *,
    is_time_up: Callable[[], bool],
    say: Callable[[str], None],
) -> float:
    """The score of a trial; GivenUp if it gets none."""
    if twin := _twin(study, trial):
        return _take_over(trial, twin)
    starts = trial.user_attrs.get("starts", 0)
    if starts >= _MOST_STARTS:
        raise GivenUp(
            f"the process died {starts} times before an epoch of it had ended; memory may be short"
        )
    trial.set_user_attr("starts", starts + 1)
    try:
        return _trained(study, trial, asked, folder, is_time_up=is_time_up, say=say)
    except BaseException:
        # What Python can tell of did not kill the process.
        trial.set_user_attr("starts", 0)
        raise


def _failures(study: optuna.Study, trial: optuna.Trial) -> int:
    """How often the settings of a trial have failed."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return sum(other.params == trial.params for other in failed)


def _twin(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial | None:
    """An earlier trial of the same settings; training gives the same bits again."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return next((other for other in ended if other.params == trial.params), None)


def _take_over(trial: optuna.Trial, twin: FrozenTrial) -> float:
    """The score of a trial with the same settings, or its end."""
    for name in ("images_per_second", "speed_key"):
        if name in twin.user_attrs:
            trial.set_user_attr(name, twin.user_attrs[name])
    told = _told(trial)
    for epoch, score in twin.intermediate_values.items():
        if epoch not in told:
            trial.report(score, epoch)
    if twin.state == TrialState.PRUNED:
        first = str(twin.user_attrs.get("reason", "")).removeprefix("as trial ")
        raise GivenUp(f"as trial {twin.number}, whose settings it has: {first}")
    trial.set_user_attr("reason", f"settings and score of trial {twin.number}")
    assert twin.value is not None
    return twin.value


def _told(trial: optuna.Trial) -> set[int]:
    """Epochs of a trial that its study knows."""
    (own,) = (t for t in trial.study.get_trials(deepcopy=False) if t.number == trial.number)
    return set(own.intermediate_values)


def _trained(
    study: optuna.Study,
    trial: optuna.Trial,
    asked: Asked,
    folder: Path,
    *,
    is_time_up: Callable[[], bool],
    say: Callable[[str], None],
) -> float:
    """Time and train a trial, and turn what its settings can cause into GivenUp."""
    hook = None
    try:
        with raising_out_of_memory():
            config = apply(asked.config, asked.space, trial.params)
            _refuse_slow(config, _speed(study, trial, config, say), asked.config)
            hook = _Hook(trial, asked.folds, config.train.epochs, is_time_up, told=_told(trial))
            _train(config, asked, folder, folder / trial_name(trial.number), hook)
            return fmean(hook.best.values())
    except ConfigError as error:
        raise Unbuildable(str(error)) from None
    except TrainingError as error:
        raise GivenUp(str(error).partition(". ")[0]) from None
    except OutOfMemory:
        # The frames of the error hold memory until the block ends.
        pass
    gc.collect()
    torch.cuda.empty_cache()
    raise GivenUp("there is not enough memory for it")


def _speed(
    study: optuna.Study, trial: optuna.Trial, config: Config, say: Callable[[str], None]
) -> float:
    """Images a second, as they were measured for the same network, or are now."""
    key, known = speed_key(config), study.get_trials(deepcopy=False)
    rates = [
        t.user_attrs["images_per_second"] for t in known if t.user_attrs.get("speed_key") == key
    ]
    rate = float(rates[0]) if rates else images_per_second(config)
    trial.set_user_attr("images_per_second", rate)
    trial.set_user_attr("speed_key", key)
    say(f"trial {trial.number}: {rate:.1f} images/s")
    return rate


def _refuse_slow(config: Config, rate: float, base: Config) -> None:
    """Raise GivenUp if a network is slower than was asked for."""
    least = base.search.min_images_per_second
    if least is not None and rate < least:
        raise GivenUp(
            f"{config.model.arch} with {config.model.encoder} predicts {rate:.1f} images/s, "
            f"search.min_images_per_second={least:g}"
        )


def _train(config: Config, asked: Asked, folder: Path, path: Path, hook: _Hook) -> None:
    """Train the folds, from where they stand; what training prints goes to stderr."""
    folds_csv = RunFolder(path).folds_csv
    if has_same_folds(asked.space) and not folds_csv.exists():
        # All trials are scored on the same strips, which are looked through once.
        write_bytes(folds_csv, RunFolder(folder).folds_csv.read_bytes())
    with redirect_stdout(sys.stderr):
        train_run(config, path, folds=asked.folds, go_on=True, after_epoch=hook)
