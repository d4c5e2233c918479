"""postprocess.json, and which post-processing applies: the user's, the tuned one or the default.

`steelseg tune` writes postprocess.json. It holds settings chosen on all strips, for new strips, and
settings for each inner fold, chosen on the other inner folds, for unbiased scores.
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
    """The content of postprocess.json."""

    settings: MaskSettings
    """Chosen on all strips."""

    inner_folds: tuple[MaskSettings, ...]
    """For the strips of each inner fold, chosen on the other inner folds."""

    inner_fold_of: Mapping[str, int]
    """Inner fold of each strip, by image_id."""

    models: Mapping[int, str]
    """SHA-256 of the model of each fold whose predictions were used."""

    report: Mapping[str, Any]
    """Objective, scores, landscapes and operating points."""


def write_tuned(path: Path, tuned: TunedPostprocessing) -> None:
    """Write postprocess.json."""
    content = {
        **given(tuned.settings),
        "parts": [
            {
                **given(settings),
                "image_ids": [i for i, own in tuned.inner_fold_of.items() if own == number],
            }
            for number, settings in enumerate(tuned.inner_folds)
        ],
        "models": {str(fold): digest for fold, digest in tuned.models.items()},
        **tuned.report,
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_tuned(path: Path) -> TunedPostprocessing | None:
    """Read postprocess.json.

    Returns:
        Its content; None without the file.

    Raises:
        DataError: if it is damaged.
    """
    if not path.exists():
        return None
    return read_json(path, _parse, remedy="Recreate it with: steelseg tune RUN.")


def _parse(content: dict[str, Any]) -> TunedPostprocessing:
    inner_folds = content.pop("parts")
    models = content.pop("models")
    return TunedPostprocessing(
        settings=_settings(content),
        inner_folds=tuple(_settings(fold) for fold in inner_folds),
        inner_fold_of={i: n for n, fold in enumerate(inner_folds) for i in fold["image_ids"]},
        models={int(fold): str(digest) for fold, digest in models.items()},
        report={k: v for k, v in content.items() if k not in MaskSettings.__annotations__},
    )


def _settings(content: Mapping[str, Any]) -> MaskSettings:
    """Parse the settings of every class."""
    return MaskSettings(
        threshold=tuple(map(float, content["threshold"])),
        min_size=tuple(map(int, content["min_size"])),
        min_area=tuple(map(int, content["min_area"])),
        top_threshold=tuple(map(float, content["top_threshold"])),
        gate=tuple(map(float, content.get("gate", ()))),
    )


def given(settings: MaskSettings) -> dict[str, tuple[float, ...]]:
    """Return the settings by name; `gate` only with a hard gate."""
    return {name: values for name, values in asdict(settings).items() if values}


def has_untuned_settings(config: Config) -> bool:
    """Return whether any setting is left for tuning to choose."""
    is_hard = config.inference.gate == "hard"
    return any(value is None for name, value in config.postprocess if name != "gate" or is_hard)


def mask_settings(config: Config, tuned: MaskSettings | None = None) -> MaskSettings:
    """Return each setting as the user set it, otherwise as tuned, otherwise the default.

    Raises:
        ConfigError: if a setting has another number of values than there are classes.
    """
    classes = config.data.num_classes
    chosen: dict[str, Any] = {}
    defaults = _DEFAULTS | ({"gate": _DEFAULT_GATE} if config.inference.gate == "hard" else {})
    for name, default in defaults.items():
        value = getattr(config.postprocess, name)
        if value is None:
            # Tuning without a hard gate does not choose one.
            value = (getattr(tuned, name) if tuned else ()) or default
        chosen[name] = per_class(value, classes, name=f"postprocess.{name}")
    return MaskSettings(**chosen)


def mask_maker(settings: MaskSettings) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    """Return a function from probs_chw after the gate (float, or uint8 as stored) to mask_chw."""
    return partial(
        binarize,
        threshold=settings.threshold,
        min_size=settings.min_size,
        min_area=settings.min_area,
        top_threshold=settings.top_threshold,
    )


def gate_of(config: Config, settings: MaskSettings) -> Gate:
    """Return the gate of inference.gate, with the values of `settings` for a hard one."""
    return build_gate(config.inference.gate, settings.gate)
