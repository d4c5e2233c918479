"""The search space, validated against the settings.

Each value is validated against its setting before the first trial. A value that is valid but
contradicts another setting is accepted, because another trial may change that other setting.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from pydantic import ValidationError

from steelseg.config.config import Config, setting_names
from steelseg.config.load import build_config, explain, no_such_setting
from steelseg.config.search import Span
from steelseg.errors import ConfigError

Params = Mapping[str, str | int | float]
"""Values of a trial, by setting: a number of a range, or the label of a choice."""

# Settings and sections that cannot be searched, and why.
_FIXED = {
    "search": "configures the search itself",
    "pseudo": "does not affect the score of a training; it is for steelseg pseudo",
    "tune": "does not affect the score of a training; it is for steelseg tune",
    "train.monitor": "selects the score, and different scores cannot be compared",
    "data.root": "selects the strips, which must be the same in every trial",
    "inference.cascade": "does not affect the score of a training",
    "inference.ensemble": "does not affect the score of a training",
    "inference.tta": "does not affect the score of a training, which validates without flips",
}

# Settings that determine the fold assignment.
_FOLD_SETTINGS = (
    *("data.num_classes", "data.num_folds", "data.group_duplicates"),
    *("data.img_height", "data.img_width", "data.fold_seed", "train.seed"),
)


@dataclass(frozen=True)
class Choice:
    """A setting with a list of values."""

    name: str
    values: Mapping[str, Any]
    """Value by label; tables and the study contain the labels."""


@dataclass(frozen=True)
class Number:
    """A setting with a range of numbers."""

    name: str
    low: float
    high: float
    is_log: bool
    is_whole: bool


Setting = Choice | Number


def read_space(config: Config) -> tuple[Setting, ...]:
    """Return the settings to search, in the order of the file.

    Raises:
        ConfigError: if there is none, or a name or value is wrong; all faults are listed at once.
    """
    entries = config.search.space
    if not entries:
        raise ConfigError(
            "search.space is empty. Name settings with the values to try, such as "
            "search.space='{train.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}'."
        )
    settings, faults = [], []
    for name, entry in entries.items():
        try:
            settings.append(_read(config, name, entry))
        except ConfigError as error:
            faults += [f"  search.space: {line}" for line in str(error).splitlines()]
    if faults:
        raise ConfigError("\n".join(["Wrong settings to search:", *faults]))
    return tuple(settings)


def _read(config: Config, name: str, entry: Span | tuple[Any, ...]) -> Setting:
    """Validate one setting; ConfigError has one line per fault."""
    known = list(setting_names())
    if name not in known:
        raise ConfigError(f"{name}: {no_such_setting(name, known)}")
    for fixed in (name, name.partition(".")[0]):
        if fixed in _FIXED:
            raise ConfigError(f"{name} {_FIXED[fixed]}.")
    if isinstance(entry, Span):
        return _read_span(config, name, entry)
    values: dict[str, Any] = {}
    for value, built in zip(entry, _try(config, name, entry), strict=True):
        label = built if isinstance(built, str) else json.dumps(built)
        if label in values:
            raise ConfigError(f"{name}: {label} is duplicated.")
        values[label] = value
    return Choice(name, values)


def _read_span(config: Config, name: str, span: Span) -> Number:
    """Validate a range; its numbers are integers if the setting takes integers."""
    built = _try(config, name, (span.low, span.high))
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in built):
        raise ConfigError(f"{name} does not take a range of numbers; give a list of values.")
    is_whole = all(isinstance(value, int) for value in built)
    return Number(name, built[0], built[1], span.log, is_whole)


def _try(config: Config, name: str, values: tuple[Any, ...]) -> list[Any]:
    """Return the values as the setting stores them; ConfigError has one line per wrong value."""
    section, key = name.split(".")
    built, faults = [], []
    for value in values:
        try:
            changed = Config.model_validate(_with_values(config, {name: value}))
            built.append(changed.model_dump(mode="json")[section][key])
        except ValidationError as error:
            own = [fault for fault in error.errors() if fault["loc"][:2] == (section, key)]
            faults += [explain(fault) for fault in own[:1]]
            built.append(value)
    if faults:
        raise ConfigError("\n".join(faults))
    return built


def apply(config: Config, space: tuple[Setting, ...], params: Params) -> Config:
    """Return the settings of a trial.

    Raises:
        ConfigError: if they contradict each other; one line.
    """
    values = {
        setting.name: setting.values[str(params[setting.name])]
        if isinstance(setting, Choice)
        else params[setting.name]
        for setting in space
    }
    try:
        return build_config(_with_values(config, values))
    except ConfigError as error:
        _, *lines = str(error).splitlines()
        raise ConfigError(" ".join(line.strip() for line in lines)) from None


def _with_values(config: Config, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as nested dictionaries, some changed, without section search."""
    content = config.model_dump(mode="json")
    del content["search"]
    for name, value in values.items():
        section, key = name.split(".")
        content[section][key] = value
    return content


def count(space: tuple[Setting, ...]) -> int | None:
    """Return the number of combinations; None if it is infinite."""
    sizes = [
        len(setting.values)
        if isinstance(setting, Choice)
        else int(setting.high - setting.low) + 1
        if setting.is_whole
        else None
        for setting in space
    ]
    return None if None in sizes else prod(size or 0 for size in sizes)


def has_same_folds(space: tuple[Setting, ...]) -> bool:
    """Return whether all trials have the same fold assignment."""
    return not any(setting.name in _FOLD_SETTINGS for setting in space)
