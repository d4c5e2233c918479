"""Read settings from YAML files and the command line, and write them back.

A file has the sections of `steelseg.config.config`; `section.name=value` overrides it. Unknown
names are rejected with the closest known name, and all errors are listed at once. The `stored`
functions also accept settings that an older version wrote: see `steelseg.config.former`.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from steelseg.config import former, strict_yaml
from steelseg.config.config import Config, setting_names
from steelseg.errors import ConfigError


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `section.name=value` overrides.

    Args:
        path: The YAML file.
        overrides: Such as "train.epochs=3"; the value is parsed as YAML.

    Raises:
        ConfigError: if the file cannot be read, or a setting is unknown or invalid; all errors
            are listed at once.
    """
    return build_config(_read(Path(path)), overrides, source=str(path))


def load_stored_config(
    path: Path, overrides: Sequence[str] = (), *, to_train: bool = False
) -> Config:
    """Read the config.yaml that this or an older version wrote to a run folder.

    Args:
        path: The YAML file.
        overrides: As for `load_config`.
        to_train: As for `build_stored_config`.

    Raises:
        ConfigError: as `load_config` and `build_stored_config` do.
    """
    return build_stored_config(_read(path), overrides, source=str(path), to_train=to_train)


def _read(path: Path) -> dict[str, Any]:
    """Read the sections of a YAML file, or raise ConfigError."""
    try:
        content = strict_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {_reason(error)}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path} must contain sections such as `data:` and `train:`.")
    return content or {}


def build_config(
    content: dict[str, Any], overrides: Sequence[str] = (), *, source: str = "the settings"
) -> Config:
    """Build a Config from nested dictionaries and `section.name=value` overrides.

    Raises:
        ConfigError: as `load_config`; `source` says where `content` came from.
    """
    # YAML reads a section with only comments as None.
    merged = {k: dict(v or {}) if isinstance(v, dict | None) else v for k, v in content.items()}
    for override in overrides:
        _apply_override(merged, override)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        lines = [f"  {explain(fault)}" for fault in error.errors()]
        places = {place for fault in error.errors() for place in _places(fault, overrides, content)}
        named = [f"in {source}"] * ("file" in places) + ["on the command line"] * ("line" in places)
        title = f"Wrong settings {' and '.join(named)}:"
        raise ConfigError("\n".join([title, *lines])) from None


def build_stored_config(
    content: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    source: str,
    to_train: bool = False,
) -> Config:
    """Build a Config from settings that this or an older version stored.

    Args:
        content: Nested dictionaries; renamed settings are translated, removed ones dropped.
        overrides: As for `build_config`.
        source: Where `content` came from.
        to_train: True rejects removed settings that changed training.

    Raises:
        ConfigError: as `build_config`.
    """
    if to_train and (setting := former.removed_in_use(content)):
        raise ConfigError(f"{source} {former.retrain_advice(setting)}")
    return build_config(former.translate(content), overrides, source=source)


def _places(fault: Any, overrides: Sequence[str], content: Mapping[str, Any]) -> list[str]:
    """Return where the settings of a pydantic error were given: "file", "line" or both."""
    name = ".".join(str(part) for part in fault["loc"][:2])
    given = [override.partition("=")[0] for override in overrides]
    if name in given:
        return ["line"]
    # The error concerns a whole section, or all settings.
    if not any(not name or setting.startswith(f"{name}.") for setting in given):
        return ["file"]
    return ["file", "line"] if not name or name in content else ["line"]


def _apply_override(content: dict[str, Any], override: str) -> None:
    """Apply one `section.name=value` to nested dictionaries, in place."""
    name, equals, value = override.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot and key):
        raise ConfigError(f"'{override}' does not have the form section.name=value.")
    group = content.setdefault(section, {})
    if not isinstance(group, dict):
        raise ConfigError(f"'{section}' must be a section that contains settings.")
    try:
        group[key] = strict_yaml.load(value)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"The value of '{override[:60]}' is not YAML: {reason}") from None


def explain(fault: Any) -> str:
    """Format one pydantic error as a line that names the setting."""
    # After section and name, pydantic adds union branches and list positions.
    name = ".".join(str(part) for part in fault["loc"][:2])
    if fault["type"] == "extra_forbidden":
        known = [*setting_names(), *(() if "." in name else Config.model_fields)]
        return f"{name}: {no_such_setting(name, known)}"
    if advice := former.advice(name, fault["input"]):
        return f"{name}: {advice}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not name or fault["type"] == "value_error":
        return f"{name}: {message}." if name else f"{message}."
    return f"{name}: {message}, got {str(fault['input'])[:60]}"


def no_such_setting(name: str, known: Sequence[str]) -> str:
    """Say that a setting does not exist, and suggest the closest known one."""
    if advice := former.advice(name):
        return advice
    near = difflib.get_close_matches(name, known, n=1)
    return "no such setting" + (f"; did you mean {near[0]}?" if near else ".")


def _reason(error: Exception) -> str:
    """Return the operating system's reason, without the path."""
    return getattr(error, "strerror", None) or str(error)


def dump_config(config: Config) -> str:
    """Format a Config as YAML that `load_config` reads back to the same values."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
