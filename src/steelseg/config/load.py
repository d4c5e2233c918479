"""Settings from YAML files and the command line, and back.

A file holds the sections of `steelseg.config.config`; `section.name=value` is laid over it. Unknown
names are refused with the nearest known one, and all faults are listed at once. What an older
version stored is read by the `stored` functions: see `steelseg.config.former`.
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
    """Read a YAML file and lay `section.name=value` overrides over it.

    Args:
        path: The YAML file.
        overrides: Such as "train.epochs=3"; the value is read as YAML.

    Raises:
        ConfigError: if the file cannot be read, or a setting is unknown or wrong; all faults
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
        raise ConfigError(f"{path} must hold sections such as `data:` and `train:`.")
    return content or {}


def build_config(
    content: dict[str, Any], overrides: Sequence[str] = (), *, source: str = "the settings"
) -> Config:
    """Make a Config of nested dictionaries, with `section.name=value` laid over them.

    Raises:
        ConfigError: as `load_config` does; `source` names where `content` came from.
    """
    # A section whose every line is a comment is None in YAML.
    merged = {k: dict(v or {}) if isinstance(v, dict | None) else v for k, v in content.items()}
    for override in overrides:
        _lay_over(merged, override)
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
    """Make a Config of settings that this or an older version stored.

    Args:
        content: Nested dictionaries; renamed settings are translated, removed ones dropped.
        overrides: As for `build_config`.
        source: Names where `content` came from.
        to_train: True refuses removed settings by which training was another.

    Raises:
        ConfigError: as `build_config` does.
    """
    if to_train and (setting := former.removed_in_use(content)):
        raise ConfigError(f"{source} {former.way_out(setting)}")
    return build_config(former.translate(content), overrides, source=source)


def _places(fault: Any, overrides: Sequence[str], content: Mapping[str, Any]) -> list[str]:
    """Where the settings of a pydantic fault were given: in the file, on the command line."""
    name = ".".join(str(part) for part in fault["loc"][:2])
    given = [override.partition("=")[0] for override in overrides]
    if name in given:
        return ["line"]
    # Of a section, or of all, as a whole.
    if not any(not name or setting.startswith(f"{name}.") for setting in given):
        return ["file"]
    return ["file", "line"] if not name or name in content else ["line"]


def _lay_over(content: dict[str, Any], override: str) -> None:
    """Put one `section.name=value` into nested dictionaries."""
    name, equals, value = override.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot and key):
        raise ConfigError(f"'{override}' is not of the form section.name=value.")
    group = content.setdefault(section, {})
    if not isinstance(group, dict):
        raise ConfigError(f"'{section}' must be a section with settings in it.")
    try:
        group[key] = strict_yaml.load(value)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"The value of '{override[:60]}' is not YAML: {reason}") from None


def explain(fault: Any) -> str:
    """Turn one pydantic fault into a line that names the setting."""
    # Beyond section and name pydantic adds union branches and list positions.
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
    """Say that there is no such setting, and which known one is meant."""
    if advice := former.advice(name):
        return advice
    near = difflib.get_close_matches(name, known, n=1)
    return "no such setting" + (f"; did you mean {near[0]}?" if near else ".")


def _reason(error: Exception) -> str:
    """Say why the system refused, without the path it repeats."""
    return getattr(error, "strerror", None) or str(error)


def dump_config(config: Config) -> str:
    """Write a Config as YAML that `load_config` reads back to the same values."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
