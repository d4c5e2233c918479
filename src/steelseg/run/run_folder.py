"""The run folder: paths of the files of a run, and its log.

    outputs/NAME/
      config.yaml  environment.json  folds.csv  training_log.txt  events.jsonl
      fold_0/  best_model.safetensors  last/  history.csv  oof_predictions.zarr
      postprocess.json  metrics.json  scores.csv  report.html  submission.csv

Stages exchange only these files, so each can be rerun alone.
"""

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from steelseg.config.config import Config
from steelseg.config.load import dump_config, load_stored_config
from steelseg.errors import CheckpointError
from steelseg.files.atomic import write_text

_PACKAGES = (
    "steelseg",
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "timm",
    "numpy",
    "opencv-python-headless",
    "zarr",
    "safetensors",
)


class RunFolder:
    """The paths of a run, and its log."""

    def __init__(self, path: Path) -> None:
        """Set the paths; nothing is read or created."""
        self.path = path
        self.config_yaml = path / "config.yaml"
        self.folds_csv = path / "folds.csv"
        self.metrics_json = path / "metrics.json"
        self.scores_csv = path / "scores.csv"
        self.postprocess_json = path / "postprocess.json"
        self.cascade_json = path / "cascade.json"
        self.ensemble_json = path / "ensemble.json"
        self.report_html = path / "report.html"
        self._log = path / "training_log.txt"
        self.events_jsonl = path / "events.jsonl"

    def fold(self, fold: int) -> Path:
        """Return the folder of one fold."""
        return self.path / f"fold_{fold}"

    def best_model(self, fold: int) -> Path:
        """Return the path of the best checkpoint of one fold."""
        return self.fold(fold) / "best_model.safetensors"

    def oof(self, fold: int) -> Path:
        """Return the path of the out-of-fold predictions of one fold."""
        return self.fold(fold) / "oof_predictions.zarr"

    def trained_folds(self, num_folds: int) -> list[int]:
        """List the folds that have a best checkpoint, in ascending order.

        Raises:
            CheckpointError: if no fold was trained.
        """
        folds = [fold for fold in range(num_folds) if self.best_model(fold).exists()]
        if not folds:
            raise CheckpointError(
                f"{self.path} has no trained fold. Train first: steelseg train CONFIG."
            )
        return folds

    def load_config(self, overrides: tuple[str, ...] = (), *, to_train: bool = False) -> Config:
        """Read the settings of the run, with overrides.

        Args:
            overrides: Such as "train.epochs=3".
            to_train: True refuses settings that were removed since and changed the training.

        Raises:
            CheckpointError: if this is not a run folder.
            ConfigError: if a setting is wrong.
        """
        if not self.config_yaml.exists():
            raise CheckpointError(f"{self.path} is not a run folder: it has no config.yaml.")
        return load_stored_config(self.config_yaml, overrides, to_train=to_train)

    def save_config(self, config: Config) -> None:
        """Write the settings of the run."""
        write_text(self.config_yaml, dump_config(config))

    def say(self, text: str) -> None:
        """Print a result and append it to training_log.txt."""
        print(text, flush=True)
        _append(self._log, f"{_now()} {text}\n")

    def warn(self, text: str) -> None:
        """Print a warning to stderr and append it to training_log.txt."""
        print(f"warning: {text}", file=sys.stderr, flush=True)
        _append(self._log, f"{_now()} warning: {text}\n")

    def event(self, kind: str, values: Mapping[str, Any]) -> None:
        """Append one line of JSON to events.jsonl; NaN becomes null."""
        plain = {name: None if value != value else value for name, value in values.items()}
        line = json.dumps({"time": _now(), "event": kind, **plain})
        _append(self.events_jsonl, line + "\n")


def _append(path: Path, text: str) -> None:
    """Append to a log. A link is not followed, because the run folder can be untrusted."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        # A full disk is reported without the name of the file.
        error.filename = str(path)
        raise


def create_run(path: Path, config: Config) -> RunFolder:
    """Create a run folder with config.yaml and environment.json."""
    run = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / "environment.json", json.dumps(_environment(), indent=1) + "\n")
    run.save_config(config)
    return run


def default_run_path() -> Path:
    """Return outputs/YYYYMMDD_HHMMSS, in local time."""
    return Path("outputs") / datetime.now().strftime("%Y%m%d_%H%M%S")


def _environment() -> dict[str, Any]:
    """Return time, command and versions for environment.json."""
    return {
        "time": _now(),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
