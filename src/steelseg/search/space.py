"""The space that a search draws from, held against the settings themselves.

Each value is tried on the real setting before the first trial. A value that fits its setting and
contradicts another one is let in, since another trial may change that other one.
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

Drawn = Mapping[str, str | int | float]
"""What a trial drew, by setting: a number of a span, or the label of a choice."""

# Settings that a search cannot choose, or whole sections of them, and why.
_FIXED = {
    "search": "is how the search itself goes",
    "pseudo": "changes no score of a training; it is how steelseg pseudo labels strips",
    "tune": "changes no score of a training; it is chosen by steelseg tune",
    "train.monitor": "says which score counts, and scores of two kinds cannot be compared",
    "data.root": "says which strips are scored, which must be the same in every trial",
    "inference.cascade": "changes no score of a training",
    "inference.ensemble": "changes no score of a training",
    "inference.tta": "changes no score of a training, which validates without flips",
}

# Settings by which the strips are dealt to folds.
_DEALING = (
    *("data.num_classes", "data.num_folds", "data.group_duplicates"),
    *("data.img_height", "data.img_width", "data.fold_seed", "train.seed"),
)


@dataclass(frozen=True)
class Choice:
    """A setting with a list of values."""

    name: str
    values: Mapping[str, Any]
    """By their labels, which tables show and the study keeps."""


@dataclass(frozen=True)
class Number:
    """A setting with a span."""

    name: str
    low: float
    high: float
    is_log: bool
    is_whole: bool


Setting = Choice | Number


def read_space(config: Config) -> tuple[Setting, ...]:
    """The settings to search, in the order of the file.

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
    """One setting; ConfigError has a line a fault."""
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
    """Numbers of the kind that the setting takes."""
    built = _try(config, name, (span.low, span.high))
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in built):
        raise ConfigError(f"{name} takes no span of numbers; give a list of values.")
    is_whole = all(isinstance(value, int) for value in built)
    return Number(name, built[0], built[1], span.log, is_whole)


def _try(config: Config, name: str, values: tuple[Any, ...]) -> list[Any]:
    """Values as the setting takes them; ConfigError has a line for each that it does not."""
    section, key = name.split(".")
    built, faults = [], []
    for value in values:
        try:
            changed = Config.model_validate(_lay_over(config, {name: value}))
            built.append(changed.model_dump(mode="json")[section][key])
        except ValidationError as error:
            own = [fault for fault in error.errors() if fault["loc"][:2] == (section, key)]
            faults += [explain(fault) for fault in own[:1]]
            built.append(value)
    if faults:
        raise ConfigError("\n".join(faults))
    return built


def apply(config: Config, space: tuple[Setting, ...], drawn: Drawn) -> Config:
    """The settings of a trial.

    Raises:
        ConfigError: if they contradict each other; a line without the trial's name.
    """
    values = {
        setting.name: setting.values[str(drawn[setting.name])]
        if isinstance(setting, Choice)
        else drawn[setting.name]
        for setting in space
    }
    try:
        return build_config(_lay_over(config, values))
    except ConfigError as error:
        _, *lines = str(error).splitlines()
        raise ConfigError(" ".join(line.strip() for line in lines)) from None


def _lay_over(config: Config, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as nested dictionaries with some changed; those of the search at their default."""
    content = config.model_dump(mode="json")
    del content["search"]
    for name, value in values.items():
        section, key = name.split(".")
        content[section][key] = value
    return content


def count(space: tuple[Setting, ...]) -> int | None:
    """How many combinations there are; None if without end."""
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
    """Whether every trial deals the strips to the same folds."""
    return not any(setting.name in _DEALING for setting in space)
