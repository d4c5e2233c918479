"""Refuse the kinds of runs that a stage cannot use: classifiers and combined runs."""

from pathlib import Path

from steelseg.config.config import Config
from steelseg.errors import ConfigError
from steelseg.run.run_folder import RunFolder


def refuse_classifier(config: Config, path: Path | str, *, what: str) -> None:
    """Raise ConfigError if a network is a classifier, where masks are needed.

    Args:
        config: The settings that it was trained with.
        path: The run or checkpoint.
        what: What the masks are needed for, such as "to tune".
    """
    if config.model.is_classifier:
        raise ConfigError(
            f"{path} is a classifier and does not predict masks, so there is nothing {what}. Use "
            "it as the first stage of a cascade (steelseg cascade RUN --first CLASSIFIER) or for "
            "presence (steelseg ensemble RUN --presence CLASSIFIER); for its scores run "
            "steelseg evaluate CLASSIFIER."
        )


def refuse_combined(run: RunFolder, remedy: str) -> None:
    """Raise ConfigError for a combined run, where a run with its own networks is needed."""
    if run.ensemble_json.exists():
        raise ConfigError(
            f"{run.path} combines other runs and does not have networks of its own. {remedy}"
        )
