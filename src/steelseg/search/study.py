"""The Optuna study of a search, stored in study.db.

Only one process uses a study at a time. A trial that is running when the study is opened was
therefore left by a process that ended, and is resumed next. The settings of a trial depend only on
the seed, its number and the trials before it, so a search that was killed draws the same settings
as one that was not.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from steelseg.config.config import Config
from steelseg.config.load import build_stored_config
from steelseg.config.search import Span
from steelseg.errors import CheckpointError, ConfigError
from steelseg.files.lock import lock
from steelseg.search.results import Search, State, Trial
from steelseg.search.space import Choice, Params, Setting

_NAME = "steelseg search"

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}

# Settings and sections that do not affect a score.
_MAY_CHANGE = (
    *("search", "tune", "data.root", "data.precropped_dir", "data.pixel_mm"),
    *("train.num_workers", "train.save_minutes", "train.save_best_only"),
    *("inference.cascade", "inference.ensemble"),
)


# Scores of the first epochs say little about the last: encoder and decoder are still adapting.
_WARM_UP_EPOCHS = 3

# Finished trials that a median needs; Optuna's default.
_WARM_UP_TRIALS = 5


@dataclass(frozen=True)
class SearchPlan:
    """What is searched; it must stay the same when a search is resumed."""

    config: Config
    space: tuple[Setting, ...]
    folds: tuple[int, ...]


@contextmanager
def open_study(folder: Path, plan: SearchPlan) -> Iterator[tuple[optuna.Study, RDBStorage]]:
    """Create or open the study of a folder, and lock it until the block ends.

    Raises:
        ConfigError: if another process uses it, or it searches something else.
        CheckpointError: if study.db is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / "study.db"
    with _locked(folder), _database_errors(path):
        storage = RDBStorage(f"sqlite:///{path}")
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=_NAME,
                direction="maximize",
                pruner=_pruner(plan.config),
                load_if_exists=True,
            )
            _refuse_other_search(study, plan, folder)
            yield study, storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, or raise ConfigError."""
    handle = os.open(folder / "study.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        if not lock(handle):
            raise ConfigError(
                f"Another steelseg search uses {folder}. Wait for it, or choose another --out."
            )
        yield
    finally:
        os.close(handle)


@contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    """Turn errors of the database into a CheckpointError that names its file."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = str(getattr(error, "orig", None) or error.__cause__ or error).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be used: {cause}. If it is damaged, move its folder away; the "
            "same command then starts a new search."
        ) from None


def _refuse_other_search(study: optuna.Study, plan: SearchPlan, folder: Path) -> None:
    """Store the plan in a new study; raise ConfigError if an old study has another plan."""
    now = {
        "settings": plan.config.model_dump(mode="json", exclude={"search"}),
        "space": [_plain(setting) for setting in plan.space],
        "folds": list(plan.folds),
        "min_images_per_second": plan.config.search.min_images_per_second,
    }
    before = study.user_attrs.get("asked")
    if before is None:
        study.set_user_attr("asked", now)
        return
    if odd := _difference(before, now):
        raise ConfigError(
            f"{folder} already contains a search with {odd}. Scores of the two cannot be compared: "
            "change it back to resume, or choose another --out."
        )


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe the first difference between two plans; "" if there is none."""
    old, new = ({s["name"]: s for s in plan["space"]} for plan in (before, now))
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            before_text, now_text = _describe(old.get(name)), _describe(new.get(name))
            return f"search.space {name} {before_text}; now it is {now_text}"
    for name, word in (("folds", "--fold"), ("min_images_per_second",) * 2):
        if before[name] != now[name]:
            return f"{word} {before[name]}; now it is {now[name]}"
    first, second = _flat(before["settings"]), _flat(now["settings"])
    for name, value in first.items():
        may_change = name in _MAY_CHANGE or name.partition(".")[0] in _MAY_CHANGE
        if not may_change and value != second[name]:
            return f"{name}={json.dumps(value)}; now it is {json.dumps(second[name])}"
    return ""


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by section.name; settings that an older version lacked have their default."""
    config = build_stored_config(settings, source="the search", to_train=True)
    content = config.model_dump(mode="json")
    return {f"{section}.{key}": v for section, group in content.items() for key, v in group.items()}


def _plain(setting: Setting) -> dict[str, Any]:
    """Return a setting of the space as JSON stores it."""
    if isinstance(setting, Choice):
        return {"name": setting.name, "values": list(setting.values)}
    return asdict(setting)


def _describe(setting: Mapping[str, Any] | None) -> str:
    """Describe a setting of the space for a message."""
    if setting is None:
        return "not searched"
    if "values" in setting:
        return f"in {json.dumps(setting['values'])}"
    scale = ", log" if setting["is_log"] else ""
    return f"from {setting['low']:g} to {setting['high']:g}{scale}"


def _pruner(config: Config) -> optuna.pruners.BasePruner:
    """Build the pruner."""
    search = config.search
    if search.pruning == "none":
        return optuna.pruners.NopPruner()
    if search.pruning == "median":
        return optuna.pruners.MedianPruner(
            n_startup_trials=_WARM_UP_TRIALS, n_warmup_steps=_WARM_UP_EPOCHS + 1
        )
    most = _most_epochs(config)
    return optuna.pruners.HyperbandPruner(
        min_resource=min(most, _WARM_UP_EPOCHS), max_resource=most
    )


def _most_epochs(config: Config) -> int:
    """Return the number of epochs of the longest trial."""
    entry = config.search.space.get("train.epochs", (config.train.epochs,))
    return int(entry.high) if isinstance(entry, Span) else max(map(int, entry))


def next_trial(study: optuna.Study, storage: RDBStorage, *, seed: int) -> optuna.Trial:
    """Return the trial that was interrupted, else a new one.

    Args:
        study: The study.
        storage: Where it is stored.
        seed: Seed of the search; each trial derives its own from it.
    """
    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    number = left[0].number if left else len(study.get_trials(deepcopy=False))
    draw = np.random.SeedSequence([seed, number]).generate_state(1)[0]
    study.sampler = optuna.samplers.TPESampler(seed=int(draw))
    if not left:
        return study.ask()
    study_id = storage.get_study_id_from_name(_NAME)
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


def suggest(trial: optuna.Trial, space: tuple[Setting, ...]) -> Params:
    """Return the values of a trial; those it lacks are drawn."""
    return {setting.name: _suggest(trial, setting) for setting in space}


def _suggest(trial: optuna.Trial, setting: Setting) -> str | int | float:
    if isinstance(setting, Choice):
        return trial.suggest_categorical(setting.name, tuple(setting.values))
    name, is_log = setting.name, setting.is_log
    if setting.is_whole:
        return trial.suggest_int(name, int(setting.low), int(setting.high), log=is_log)
    return trial.suggest_float(name, setting.low, setting.high, log=is_log)


def read_search(study: optuna.Study, plan: SearchPlan) -> Search:
    """Return the trials of a study as plain records."""
    search, trials = plan.config.search, study.get_trials(deepcopy=False)
    return Search(
        space=plan.space,
        trials=tuple(
            _record(trial) for trial in trials if trial.state != TrialState.WAITING and trial.params
        ),
        wanted=search.trials,
        folds=plan.folds,
        score_name=plan.config.train.monitor.replace("_", " ").replace("dice", "Dice"),
        min_images_per_second=search.min_images_per_second,
    )


def _record(trial: optuna.trial.FrozenTrial) -> Trial:
    epochs = tuple(sorted(trial.intermediate_values.items()))
    is_finished = trial.state == TrialState.COMPLETE
    best = max((score for _, score in epochs), default=None)
    return Trial(
        number=trial.number,
        state=_STATES[trial.state],
        params=trial.params,
        epochs=epochs,
        score=trial.value if is_finished else best,
        images_per_second=trial.user_attrs.get("images_per_second"),
        seconds=trial.user_attrs.get("seconds", 0.0),
        reason=trial.user_attrs.get("reason", ""),
    )
