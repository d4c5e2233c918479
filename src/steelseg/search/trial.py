"""Run one trial: settings, speed, training, and the outcome.

Training does not know about the search. It calls `after_epoch`, whose exceptions end it. A
trial that was stopped or killed resumes from its run folder with the same bits.
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
from steelseg.search.space import Params, apply, has_same_folds
from steelseg.search.speed import images_per_second, speed_key
from steelseg.search.study import SearchPlan, suggest
from steelseg.training.train import train_run
from steelseg.training.trainer import monitor_value

# Settings that failed this often fail for a reason that all trials share.
_MOST_FAILURES = 3

# If the process died this often before an epoch ended, the trial itself is the cause.
_MOST_STARTS = 5


class Unbuildable(optuna.TrialPruned):
    """The settings contradict each other or the machine, so nothing was trained."""


class TimeIsUp(Exception):  # noqa: N818 - not an error
    """The time budget is used up; the next call resumes the running trial."""


@dataclass
class _AfterEpoch:
    """Callback that reports each epoch of a training to the study."""

    trial: optuna.Trial
    folds: tuple[int, ...]
    epochs: int
    """Epochs of a complete fold."""
    is_time_up: Callable[[], bool]
    reported: set[int]
    """Epochs that the study has."""
    best: dict[int, float] = field(default_factory=dict)
    """Best score so far, by fold."""
    seconds: float = 0.0

    def __call__(self, fold: int, row: Mapping[str, float]) -> None:
        """Take a row of history.csv; raise TrialPruned or TimeIsUp to end the training."""
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
        """Report a score; raise TrialPruned if it is too low."""
        if epoch not in self.reported:
            self.reported.add(epoch)
            self.trial.report(score, epoch)
        # A trial that has trained all its epochs is kept, whatever its score.
        is_complete = epoch == self.epochs and len(self.folds) == 1
        if not is_complete and self.trial.should_prune():
            best = self.best[self.folds[0]]
            raise optuna.TrialPruned(
                f"{best:.4f} after {epoch} of {self.epochs} epochs is too far behind the others"
            )


@dataclass(frozen=True, kw_only=True)
class TrialRunner:
    """Runs the trials of one study."""

    study: optuna.Study
    plan: SearchPlan
    folder: Path
    """Folder of the search; each trial has a folder in it."""
    is_time_up: Callable[[], bool]
    """Called after each epoch."""
    say: Callable[[str], None]
    """Called with each line of progress."""

    def run(self, trial: optuna.Trial) -> optuna.TrialPruned | None:
        """Run a trial to its end, and store the outcome in the study.

        Args:
            trial: A new trial, or one that was interrupted.

        Returns:
            Why it was pruned; None if it has a score, or was queued again.

        Raises:
            TimeIsUp: if the time is up; the trial stays running.
            Stopped: on Ctrl-C or SIGTERM; the same.
            DataError: if the data set has a fault; the same.
            CheckpointError: if it failed for the third time; the next call tries it again.
        """
        params, name = suggest(trial, self.plan.space), f"trial {trial.number}"
        values = ", ".join(f"{key}={write_value(value)}" for key, value in params.items())
        self.say(f"{name}: {values}")
        try:
            score = self._score(trial)
        except optuna.TrialPruned as pruned:
            trial.set_user_attr("reason", str(pruned))
            self.study.tell(trial, state=TrialState.PRUNED)
            self.say(f"{name}: pruned: {pruned}")
            return pruned
        except CheckpointError as error:
            self._queue_again(trial, params, error)
            return None
        self.study.tell(trial, score)
        self.say(f"{name}: {self.plan.config.train.monitor} {score:.4f}")
        return None

    def _queue_again(self, trial: optuna.Trial, params: Params, error: CheckpointError) -> None:
        """Mark a trial as failed and queue its settings; raise after the third failure."""
        # In this order, a kill between the two tries the settings twice instead of never.
        self.study.enqueue_trial(dict(params))
        trial.set_user_attr("reason", str(error))
        self.study.tell(trial, state=TrialState.FAIL)
        failed = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        times = sum(other.params == trial.params for other in failed)
        if times >= _MOST_FAILURES:
            raise CheckpointError(
                f"trial {trial.number} failed all {times} times it was tried: {error}"
            ) from None
        self.say(f"trial {trial.number}: failed and queued again: {error}")

    def _score(self, trial: optuna.Trial) -> float:
        """Return the score of a trial, or raise TrialPruned."""
        ended = self.study.get_trials(
            deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)
        )
        if twin := next((other for other in ended if other.params == trial.params), None):
            return self._copy_outcome(trial, twin)
        starts = trial.user_attrs.get("starts", 0)
        if starts >= _MOST_STARTS:
            raise optuna.TrialPruned(
                f"the process died {starts} times before an epoch ended; memory may be short"
            )
        trial.set_user_attr("starts", starts + 1)
        try:
            return self._train_and_score(trial)
        except BaseException:
            # An exception in Python did not kill the process.
            trial.set_user_attr("starts", 0)
            raise

    def _copy_outcome(self, trial: optuna.Trial, twin: FrozenTrial) -> float:
        """Return the score of an earlier trial with the same settings, or raise TrialPruned.

        Training the same settings again would give the same bits.
        """
        for name in ("images_per_second", "speed_key"):
            if name in twin.user_attrs:
                trial.set_user_attr(name, twin.user_attrs[name])
        reported = self._reported_epochs(trial)
        for epoch, score in twin.intermediate_values.items():
            if epoch not in reported:
                trial.report(score, epoch)
        if twin.state == TrialState.PRUNED:
            reason = str(twin.user_attrs.get("reason", "")).removeprefix("as trial ")
            raise optuna.TrialPruned(f"as trial {twin.number}, whose settings it has: {reason}")
        trial.set_user_attr("reason", f"settings and score of trial {twin.number}")
        assert twin.value is not None
        return twin.value

    def _reported_epochs(self, trial: optuna.Trial) -> set[int]:
        """Return the epochs of a trial that the study has."""
        trials = self.study.get_trials(deepcopy=False)
        return set(trials[trial.number].intermediate_values)

    def _train_and_score(self, trial: optuna.Trial) -> float:
        """Measure and train a trial; errors that its settings can cause become TrialPruned."""
        try:
            with raising_out_of_memory():
                config = apply(self.plan.config, self.plan.space, trial.params)
                self._refuse_slow(config, self._speed(trial, config))
                after_epoch = _AfterEpoch(
                    trial,
                    self.plan.folds,
                    config.train.epochs,
                    self.is_time_up,
                    reported=self._reported_epochs(trial),
                )
                self._train(config, self.folder / trial_name(trial.number), after_epoch)
                return fmean(after_epoch.best.values())
        except ConfigError as error:
            raise Unbuildable(str(error)) from None
        except TrainingError as error:
            raise optuna.TrialPruned(str(error).partition(". ")[0]) from None
        except OutOfMemory:
            # The frames of the error keep the memory until this block ends.
            pass
        gc.collect()
        torch.cuda.empty_cache()
        raise optuna.TrialPruned("out of memory")

    def _speed(self, trial: optuna.Trial, config: Config) -> float:
        """Return images per second, measured once per network, and store it in the trial."""
        key, known = speed_key(config), self.study.get_trials(deepcopy=False)
        rates = [
            t.user_attrs["images_per_second"] for t in known if t.user_attrs.get("speed_key") == key
        ]
        rate = float(rates[0]) if rates else images_per_second(config)
        trial.set_user_attr("images_per_second", rate)
        trial.set_user_attr("speed_key", key)
        self.say(f"trial {trial.number}: {rate:.1f} images/s")
        return rate

    def _refuse_slow(self, config: Config, rate: float) -> None:
        """Raise TrialPruned if a network is slower than the minimum."""
        minimum = self.plan.config.search.min_images_per_second
        if minimum is not None and rate < minimum:
            raise optuna.TrialPruned(
                f"{config.model.arch} with {config.model.encoder} predicts {rate:.1f} images/s, "
                f"search.min_images_per_second={minimum:g}"
            )

    def _train(self, config: Config, path: Path, after_epoch: _AfterEpoch) -> None:
        """Train the folds, or resume them; the output of training goes to stderr."""
        folds_csv = RunFolder(path).folds_csv
        if has_same_folds(self.plan.space) and not folds_csv.exists():
            # All trials are scored on the same strips, which are compared only once.
            write_bytes(folds_csv, RunFolder(self.folder).folds_csv.read_bytes())
        with redirect_stdout(sys.stderr):
            train_run(config, path, folds=self.plan.folds, resume=True, after_epoch=after_epoch)
