"""Settings of older versions: renamed, replaced and removed ones, and renamed and removed values.

To rename or remove a setting or a value, add a row to one of the tables. A setting that a user
writes today is refused with what to use instead. Settings that an older version stored in a run
folder, a checkpoint or a bundle are translated.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

LAST_COMMIT = "0c2f354"
"""A commit that has every setting below, unless the setting names a later one."""

NO_GAIN = "it did not improve scores"


@dataclass(frozen=True)
class Removed:
    """Why a setting, or one of its values, was removed."""

    because: str
    """Completes "was removed because"."""

    instead: str
    """Completes "use"."""

    default: Any = None
    """Value at which a removed setting had no effect. Required for settings that change training:
    a run that was trained with another value can predict, but not resume."""

    commit: str = LAST_COMMIT
    """The last commit that had it."""


RENAMED = {
    "tune.parts": "tune.inner_folds",
}
"""Former name and name today, in the same section."""

RENAMED_VALUES = {
    ("train.monitor", "swept_dice"): "best_threshold_dice",
}
"""Setting and former value, and the value today."""

RENAMED_COLUMNS = {
    "val_swept_dice": "val_best_threshold_dice",
}
"""Former name and name today of a column of history.csv."""

REPLACED = {
    "train.average": "train.ema_decay, 0 without averaging (average=last did not improve scores)",
    "train.average_epochs": "train.ema_decay (average=last did not improve scores)",
    "train.focal_gamma": 'train.loss with the number in parentheses, as in "focal(2.0)"',
    "train.tversky_alpha": (
        'train.loss with the number in parentheses, as in "tversky(0.3)" or "focal_tversky(0.3)"'
    ),
}
"""Settings whose values moved into another one, and how to write them there."""

REMOVED = {
    "train.layer_decay": Removed(NO_GAIN, "train.encoder_rate", default=1.0),
    "train.freeze_encoder_epochs": Removed(
        NO_GAIN, "train.encoder_rate or train.freeze_batch_norm", default=0
    ),
    "train.swa_rate": Removed(NO_GAIN, "train.ema_decay", default=0.2),
    "train.hard_negative_weight": Removed(
        "only its default of 3 was measured", "train.hard_negatives", default=3.0, commit="180fe94"
    ),
    "inference.submission_form": Removed(
        "submission.csv has the columns of sample_submission.csv",
        "a sample_submission.csv with these columns in data.root",
    ),
    "tune.thresholds": Removed(
        "the default grid suits every data set", "postprocess.threshold for a fixed value"
    ),
    "tune.sizes": Removed(
        "the default grid follows the size of the strips", "postprocess.min_size for a fixed value"
    ),
    "search.warm_up_epochs": Removed(
        "it is now always 3 epochs", "search.pruning=none to train every trial to its end"
    ),
    "search.warm_up_trials": Removed(
        "it is now always 5 trials", "search.pruning=none to train every trial to its end"
    ),
    "pseudo.views": Removed(
        "predictions of all four flips must agree",
        "pseudo.agreement for a stricter or looser check",
    ),
}
"""Settings that were removed."""

REMOVED_VALUES = {
    ("train.average", "swa"): Removed(NO_GAIN, "train.ema_decay"),
    ("train.average", "soup"): Removed(NO_GAIN, "train.ema_decay"),
    ("train.average", "last"): Removed(NO_GAIN, "train.ema_decay", commit="180fe94"),
    ("train.sampling", "rare"): Removed(NO_GAIN, "balanced"),
}
"""Values that were removed from a setting."""

# Settings of the other sections have no effect on training.
_TRAINING_SECTIONS = ("data", "model", "train")


def advice(name: str, value: Any = None) -> str:
    """Explain what replaced a former setting or value; return "" for any other.

    Args:
        name: The setting, as section.name.
        value: The value given for it; None asks about the name only.
    """
    if name in RENAMED:
        return f"was renamed; use {RENAMED[name]}."
    if name in REPLACED:
        return f"was replaced; use {REPLACED[name]}."
    if removed := REMOVED.get(name):
        return f"was removed because {removed.because}; use {removed.instead}."
    if not isinstance(value, str):
        return ""
    if (name, value) in RENAMED_VALUES:
        return f"{value} was renamed; use {RENAMED_VALUES[name, value]}."
    removed = REMOVED_VALUES.get((name, value))
    if removed:
        return f"{value} was removed because {removed.because}; use {removed.instead}."
    return ""


def translate(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings with renamed ones renamed and removed ones left out."""
    translated = {k: dict(v) if isinstance(v, Mapping) else v for k, v in content.items()}
    for old, new in RENAMED.items():
        section, key = _locate(translated, old)
        if key in section:
            section.setdefault(_locate(translated, new)[1], section.pop(key))
    if isinstance(translated.get("train"), dict):
        _translate_average(translated["train"])
        _translate_loss(translated["train"])
    for name in REMOVED:
        section, key = _locate(translated, name)
        section.pop(key, None)
    for (name, value), today in RENAMED_VALUES.items():
        section, key = _locate(translated, name)
        if section.get(key) == value:
            section[key] = today
    for name, value in REMOVED_VALUES:
        section, key = _locate(translated, name)
        if section.get(key) == value:
            del section[key]
    return translated


def translate_row(row: Mapping[str, T]) -> dict[str, T]:
    """Return a row of history.csv with former columns renamed, in the same order."""
    return {RENAMED_COLUMNS.get(name, name): value for name, value in row.items()}


def _translate_average(train: dict[str, Any]) -> None:
    """Write train.average as train.ema_decay, in place."""
    train.pop("average_epochs", None)
    if "average" not in train:
        return
    if train.pop("average") == "ema":
        train.setdefault("ema_decay", 0.999)
    else:
        # Versions with train.average stored a decay even where it had no effect.
        train["ema_decay"] = 0.0


def _translate_loss(train: dict[str, Any]) -> None:
    """Write train.focal_gamma and train.tversky_alpha into the terms of the losses, in place."""
    gamma, alpha = train.pop("focal_gamma", 2.0), train.pop("tversky_alpha", 0.3)
    for name in ("loss", "later_loss"):
        text = train.get(name)
        if not isinstance(text, str):
            continue
        if gamma != 2.0:
            text = re.sub(r"\bfocal\b(?!\()", lambda term: f"{term[0]}({gamma})", text)
        if alpha != 0.3:
            names = r"\b(tversky|focal_tversky)\b(?!\()"
            text = re.sub(names, lambda term: f"{term[0]}({alpha})", text)
        train[name] = text


def removed_in_use(content: Mapping[str, Any]) -> str:
    """Return the first removed setting that changed training, as name=value; "" if there is none.

    Args:
        content: Stored settings, as nested dictionaries.
    """
    trained = {name: content.get(name) for name in _TRAINING_SECTIONS}
    for name, removed in REMOVED.items():
        section, key = _locate(trained, name)
        value = section.get(key, removed.default)
        if value != removed.default:
            return f"{name}={str(value)[:60]}"
    for name, value in REMOVED_VALUES:
        section, key = _locate(trained, name)
        if section.get(key) == value:
            return f"{name}={value}"
    return ""


def retrain_advice(setting: str) -> str:
    """Explain why training with a removed setting, name=value, cannot resume, and what to do."""
    name, _, value = setting.partition("=")
    removed = REMOVED.get(name) or REMOVED_VALUES[name, value]
    return (
        f"was trained with {setting}, which was removed. "
        f"Train again without it, or use steelseg at commit {removed.commit}."
    )


def _locate(content: Mapping[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """Split section.name; return the section, empty if it is missing, and the name in it."""
    section, _, key = name.partition(".")
    group = content.get(section)
    return (group if isinstance(group, dict) else {}), key
