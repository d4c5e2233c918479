"""Settings that older versions had: removed ones, and renamed ones.

What a user writes today is refused if it names one of them; the message says what to use instead.
What an older version stored in a run folder, a checkpoint or a bundle is translated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RENAMED = {"tune.parts": "tune.inner_folds"}
"""Former name and name today."""


@dataclass(frozen=True)
class Removed:
    """A setting that is gone. It affected training only, so prediction does without it."""

    default: Any
    """The value with which training is as it is today."""

    instead: str
    """What to use in its place."""


REMOVED = {
    "train.layer_decay": Removed(1.0, "train.encoder_rate"),
    "train.freeze_encoder_epochs": Removed(0, "train.encoder_rate or train.freeze_batch_norm"),
    "train.swa_rate": Removed(0.2, "train.average=ema or last"),
}

REMOVED_VALUES = {
    ("train.average", "swa"): "ema or last",
    ("train.average", "soup"): "ema or last",
    ("train.sampling", "rare"): "balanced",
}
"""Setting and value that it no longer takes, and what to use instead. All affect training only."""

LAST_COMMIT = "0c2f354"
"""The last commit with the settings that were removed."""


def advice(name: str, value: Any = None) -> str:
    """Say what became of a former setting, or of a value of it; "" if it is not a former one.

    Args:
        name: The setting, as section.name.
        value: The value that a setting of today was given; None asks about the name alone.
    """
    if name in RENAMED:
        return f"was renamed; use {RENAMED[name]}."
    if name in REMOVED:
        return f"was removed because it did not improve scores; use {REMOVED[name].instead}."
    if isinstance(value, str) and (name, value) in REMOVED_VALUES:
        instead = REMOVED_VALUES[name, value]
        return f"{value} was removed because it did not improve scores; use {instead}."
    return ""


def translate(content: Mapping[str, Any]) -> dict[str, Any]:
    """Bring settings that an older version stored to the names of today, without removed ones."""
    translated = {k: dict(v) if isinstance(v, Mapping) else v for k, v in content.items()}
    for old, new in RENAMED.items():
        section, key = old.split(".")
        if key in _group(translated, section):
            translated[section].setdefault(new.split(".")[1], translated[section].pop(key))
    for name in REMOVED:
        section, key = name.split(".")
        _group(translated, section).pop(key, None)
    for name, value in REMOVED_VALUES:
        section, key = name.split(".")
        if _group(translated, section).get(key) == value:
            del translated[section][key]
    return translated


def removed_in_use(content: Mapping[str, Any]) -> str:
    """Name the first removed setting by which stored settings train otherwise; "" if none does."""
    for name, removed in REMOVED.items():
        section, key = name.split(".")
        value = _group(content, section).get(key, removed.default)
        if value != removed.default:
            return f"{name}={str(value)[:60]}"
    for name, value in REMOVED_VALUES:
        section, key = name.split(".")
        if _group(content, section).get(key) == value:
            return f"{name}={value}"
    return ""


def way_out(setting: str) -> str:
    """Say what to do about stored settings that training cannot go on with."""
    return (
        f"was trained with {setting}, which was removed. "
        f"Train again without it, or use steelseg at commit {LAST_COMMIT}."
    )


def _group(content: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The settings of a section; none where it is missing or not a section."""
    group = content.get(section)
    return group if isinstance(group, dict) else {}
