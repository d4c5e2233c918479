"""Which kind of run a stage is given, and the refusal of a kind it cannot take."""

from pathlib import Path

from steelseg.config.config import Config
from steelseg.errors import ConfigError
from steelseg.run.run_folder import RunFolder


def refuse_classifier(config: Config, place: Path | str, *, what: str) -> None:
    """Raise ConfigError if a network makes no masks, where masks are needed.

    Args:
        config: The settings that it was trained with.
        place: The run or checkpoint.
        what: What masks are needed for: "to tune".
    """
    if config.model.is_classifier:
        raise ConfigError(
            f"{place} is a classifier: it makes no masks, so there is nothing {what}. Use it "
            "as first stage of a run that does: steelseg cascade RUN --first CLASSIFIER; for its "
            "scores run steelseg evaluate CLASSIFIER."
        )


def refuse_combined(run: RunFolder, way_out: str) -> None:
    """Raise ConfigError if a run combines others, where one with networks of its own is needed."""
    if run.ensemble_json.exists():
        raise ConfigError(
            f"{run.path} combines other runs and has no networks of its own. {way_out}"
        )
