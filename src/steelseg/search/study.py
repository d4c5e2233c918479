"""The study of a search: what Optuna keeps in study.db, and what it draws next.

One process works on a study at a time. So a trial that is under way when the study is opened was
left by a process that ended, and is the next to go on. What a trial draws follows from the seed,
its number and the trials before it, so a search that was killed draws what it would have drawn.
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
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from steelseg.config.config import Config
from steelseg.config.load import build_stored_config
from steelseg.config.search import Span
from steelseg.errors import CheckpointError, ConfigError
from steelseg.files.lock import lock
from steelseg.search.results import Search, State, Trial
from steelseg.search.space import Choice, Drawn, Setting

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "given up",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "under way",
}

# Settings that change no score, and sections of them.
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
class Asked:
    """What a study is about: going on asks for the same."""

    config: Config
    space: tuple[Setting, ...]
    folds: tuple[int, ...]


@contextmanager
def open_study(folder: Path, asked: Asked) -> Iterator[optuna.Study]:
    """Make the study of a folder, or go on with it; nobody else may until the block ends.

    Raises:
        ConfigError: if another process works on it, or it is about something else.
        CheckpointError: if study.db is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / "study.db"
    with _alone(folder), _naming(path):
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        try:
            study = optuna.create_study(
                storage=storage,
                study_name="steelseg search",
                direction="maximize",
                pruner=_pruner(asked.config),
                load_if_exists=True,
            )
            _hold_against(study, asked, folder)
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder."""
    handle = os.open(folder / "study.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        if not lock(handle):
            raise ConfigError(
                f"Another steelseg search works in {folder}. Wait for it, or choose another --out."
            )
        yield
    finally:
        os.close(handle)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in what its database says."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = str(getattr(error, "orig", None) or error.__cause__ or error).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be used: {cause}. If it is damaged, move its folder away; the search "
            "begins anew."
        ) from None


def _hold_against(study: optuna.Study, asked: Asked, folder: Path) -> None:
    """Keep what is asked for in a new study; raise ConfigError if an old one is about another."""
    now = {
        "settings": asked.config.model_dump(mode="json", exclude={"search"}),
        "space": [_plain(setting) for setting in asked.space],
        "folds": list(asked.folds),
        "min_images_per_second": asked.config.search.min_images_per_second,
    }
    before = study.user_attrs.get("asked")
    if before is None:
        study.set_user_attr("asked", now)
        return
    if odd := _difference(before, now):
        raise ConfigError(
            f"{folder} holds a search with {odd}. Scores of the two cannot be compared: put it "
            "back to go on, or choose another --out."
        )


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing in which two searches differ; "" if there is none."""
    old, new = ({s["name"]: s for s in asked["space"]} for asked in (before, now))
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            return f"search.space {name} {_words(old.get(name))}, not {_words(new.get(name))}"
    for name, word in (("folds", "--fold"), ("min_images_per_second",) * 2):
        if before[name] != now[name]:
            return f"{word} {before[name]}, not {now[name]}"
    first, second = _flat(before["settings"]), _flat(now["settings"])
    for name, value in first.items():
        may_change = name in _MAY_CHANGE or name.partition(".")[0] in _MAY_CHANGE
        if not may_change and value != second[name]:
            return f"{name}={json.dumps(value)}, not {json.dumps(second[name])}"
    return ""


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by section.name; those that an older version did not know at their default."""
    config = build_stored_config(settings, source="the search", to_train=True)
    content = config.model_dump(mode="json")
    return {f"{section}.{key}": v for section, group in content.items() for key, v in group.items()}


def _plain(setting: Setting) -> dict[str, Any]:
    """A setting of the space as JSON keeps it."""
    if isinstance(setting, Choice):
        return {"name": setting.name, "values": list(setting.values)}
    return asdict(setting)


def _words(setting: Mapping[str, Any] | None) -> str:
    """A setting of the space for a message."""
    if setting is None:
        return "left alone"
    if "values" in setting:
        return f"of {json.dumps(setting['values'])}"
    scale = ", log" if setting["is_log"] else ""
    return f"from {setting['low']:g} to {setting['high']:g}{scale}"


def _pruner(config: Config) -> optuna.pruners.BasePruner:
    """What gives trials up for their score."""
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
    """Epochs of the longest trial."""
    entry = config.search.space.get("train.epochs", (config.train.epochs,))
    return int(entry.high) if isinstance(entry, Span) else max(map(int, entry))


def next_trial(study: optuna.Study, *, seed: int) -> optuna.Trial:
    """The trial that was left under way, else a new one.

    Args:
        study: The study.
        seed: What a trial draws follows from it.
    """
    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    number = left[0].number if left else len(study.get_trials(deepcopy=False))
    draw = np.random.SeedSequence([seed, number]).generate_state(1)[0]
    study.sampler = optuna.samplers.TPESampler(seed=int(draw))
    # Optuna has no public way back to a trial of another process; its own callbacks do this.
    return optuna.Trial(study, left[0]._trial_id) if left else study.ask()


def draw(trial: optuna.Trial, space: tuple[Setting, ...]) -> Drawn:
    """The settings of a trial: those it has drawn already, and the rest."""
    return {setting.name: _suggest(trial, setting) for setting in space}


def _suggest(trial: optuna.Trial, setting: Setting) -> str | int | float:
    """One setting."""
    if isinstance(setting, Choice):
        return trial.suggest_categorical(setting.name, tuple(setting.values))
    name, is_log = setting.name, setting.is_log
    if setting.is_whole:
        return trial.suggest_int(name, int(setting.low), int(setting.high), log=is_log)
    return trial.suggest_float(name, setting.low, setting.high, log=is_log)


def read_search(study: optuna.Study, asked: Asked) -> Search:
    """What the study holds, as plain records."""
    search, trials = asked.config.search, study.get_trials(deepcopy=False)
    return Search(
        space=asked.space,
        trials=tuple(
            _record(trial) for trial in trials if trial.state != TrialState.WAITING and trial.params
        ),
        wanted=search.trials,
        folds=asked.folds,
        score_name=asked.config.train.monitor.replace("_", " ").replace("dice", "Dice"),
        min_images_per_second=search.min_images_per_second,
    )


def _record(trial: optuna.trial.FrozenTrial) -> Trial:
    """One trial."""
    epochs = tuple(sorted(trial.intermediate_values.items()))
    is_finished = trial.state == TrialState.COMPLETE
    best = max((score for _, score in epochs), default=None)
    return Trial(
        number=trial.number,
        state=_STATES[trial.state],
        drawn=trial.params,
        epochs=epochs,
        score=trial.value if is_finished else best,
        images_per_second=trial.user_attrs.get("images_per_second"),
        seconds=trial.user_attrs.get("seconds", 0.0),
        reason=trial.user_attrs.get("reason", ""),
    )
