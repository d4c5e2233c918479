"""Which post-processing applies: the user's settings, what `steelseg tune` chose, or the default.

postprocess.json is what tune chose, and what it was chosen on. Two kinds of settings
are in it: those chosen on every strip, for new ones; and those of each part of the strips,
chosen on the others, by which a strip can be scored honestly.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.files.atomic import write_text
from steelseg.files.json_file import read_json
from steelseg.scoring.gate import Gate, build_gate
from steelseg.scoring.postprocess import MaskSettings, binarize, per_class

_DEFAULTS = {"threshold": 0.5, "min_size": 0, "min_area": 0, "top_threshold": 0.0}
_DEFAULT_GATE = 0.5


@dataclass(frozen=True)
class TunedPostprocessing:
    """What tuning chose."""

    settings: MaskSettings
    """Chosen on all strips."""

    parts: tuple[MaskSettings, ...]
    """For the strips of each part, chosen on the other parts."""

    part_of: Mapping[str, int]
    """Part of each strip, by image_id."""

    models: Mapping[int, str]
    """SHA-256 of the model of each fold whose predictions were used."""

    report: Mapping[str, Any]
    """What else is worth knowing: objective, scores, landscapes, operating points."""


def write_tuned(path: Path, tuned: TunedPostprocessing) -> None:
    """Write postprocess.json."""
    content = {
        **given(tuned.settings),
        "parts": [
            {
                **given(settings),
                "image_ids": [i for i, part in tuned.part_of.items() if part == number],
            }
            for number, settings in enumerate(tuned.parts)
        ],
        "models": {str(fold): digest for fold, digest in tuned.models.items()},
        **tuned.report,
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_tuned(path: Path) -> TunedPostprocessing | None:
    """Read postprocess.json.

    Returns:
        What it holds; None without the file.

    Raises:
        DataError: if it is damaged.
    """
    if not path.exists():
        return None
    return read_json(path, _parse, remedy="Make it again: steelseg tune RUN.")


def _parse(content: dict[str, Any]) -> TunedPostprocessing:
    parts = content.pop("parts")
    models = content.pop("models")
    return TunedPostprocessing(
        settings=_settings(content),
        parts=tuple(_settings(part) for part in parts),
        part_of={i: number for number, part in enumerate(parts) for i in part["image_ids"]},
        models={int(fold): str(digest) for fold, digest in models.items()},
        report={k: v for k, v in content.items() if k not in MaskSettings.__annotations__},
    )


def _settings(content: Mapping[str, Any]) -> MaskSettings:
    """Take the settings of every class out of JSON."""
    return MaskSettings(
        threshold=tuple(map(float, content["threshold"])),
        min_size=tuple(map(int, content["min_size"])),
        min_area=tuple(map(int, content["min_area"])),
        top_threshold=tuple(map(float, content["top_threshold"])),
        gate=tuple(map(float, content.get("gate", ()))),
    )


def given(settings: MaskSettings) -> dict[str, tuple[float, ...]]:
    """The settings by name; without a hard gate there is none of it."""
    return {name: values for name, values in asdict(settings).items() if values}


def has_untuned_settings(config: Config) -> bool:
    """Whether the settings leave something for tuning to choose."""
    is_hard = config.inference.gate == "hard"
    return any(value is None for name, value in config.postprocess if name != "gate" or is_hard)


def mask_settings(config: Config, tuned: MaskSettings | None = None) -> MaskSettings:
    """Settle each setting: the user's own, else the tuned one, else the default.

    Raises:
        ConfigError: if a setting has another number of values than there are classes.
    """
    classes = config.data.num_classes
    chosen: dict[str, Any] = {}
    defaults = _DEFAULTS | ({"gate": _DEFAULT_GATE} if config.inference.gate == "hard" else {})
    for name, default in defaults.items():
        value = getattr(config.postprocess, name)
        if value is None:
            # Tuning before the gate was hard chose none.
            value = (getattr(tuned, name) if tuned else ()) or default
        chosen[name] = per_class(value, classes, name=f"postprocess.{name}")
    return MaskSettings(**chosen)


def mask_maker(settings: MaskSettings) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    """A function from probs_chw (float, or uint8 as OOF keeps them) behind the gate to mask_chw."""
    return partial(
        binarize,
        threshold=settings.threshold,
        min_size=settings.min_size,
        min_area=settings.min_area,
        top_threshold=settings.top_threshold,
    )


def gate_of(config: Config, settings: MaskSettings) -> Gate:
    """The gate that the settings ask for, with what is settled of it."""
    return build_gate(config.inference.gate, settings.gate)
