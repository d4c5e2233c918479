"""Settings of section `search`.

Whether each value is valid for its setting is checked by `steelseg.search.space`, where all other
settings are known.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from steelseg.config.section import Section


class Span(Section):
    """A range of numbers from `low` to `high`, inclusive; integers for an integer setting."""

    low: int | float
    """Smallest value."""

    high: int | float
    """Largest value."""

    log: bool = False
    """true samples on a logarithmic scale."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} has no logarithm; log=true needs low above 0")
        return self


class SearchConfig(Section):
    """Search space of `steelseg search`, and when it prunes a trial."""

    trials: int = Field(40, ge=1)
    """Total number of trials, including pruned ones."""

    space: dict[str, Span | tuple[Any, ...]] = Field({})
    """Settings to search, by name: a list of values, or {low: 1.0e-4, high: 1.0e-2, log: true}."""

    min_images_per_second: Annotated[float, Field(gt=0)] | None = None
    """Minimum speed of one network on this machine, in strips per second. Slower trials are pruned
    before training. null: no minimum."""

    pruning: Literal["median", "hyperband", "none"] = "median"
    """median: prune a trial whose best score so far is below the median of the others at the same
    epoch, after 3 epochs and once 5 trials have finished. hyperband: keep the best third at each
    rung, the first after 3 epochs. none: train every trial to its end."""

    @field_validator("space", mode="before")
    @classmethod
    def _check_entries(cls, value: Any) -> Any:
        """Validate each entry; pydantic alone would report every form that it does not match."""
        if not isinstance(value, Mapping):
            raise ValueError("give the names of settings, each with its values")
        return {str(name): _entry(str(name), entry) for name, entry in value.items()}


def _entry(name: str, entry: Any) -> "Span | tuple[Any, ...]":
    """Return a range or choices, or raise ValueError."""
    if isinstance(entry, Span):
        return entry
    if isinstance(entry, list | tuple) and entry:
        return tuple(entry)
    if not isinstance(entry, Mapping) or not {"low", "high"} <= set(entry):
        raise ValueError(f"{name} needs a list of values, or a range such as {{low: 1, high: 9}}")
    if odd := [word for word in entry if word not in Span.model_fields]:
        raise ValueError(f"{name} has {odd[0]}, but a range has only low, high and log")
    try:
        return Span.model_validate(dict(entry))
    except ValidationError as error:
        fault = error.errors()[0]
        if not fault["loc"]:
            raise ValueError(f"{name}: {_plain(fault)}") from None
        word = str(fault["loc"][0])
        kind = "neither true nor false" if word == "log" else "not a number"
        raise ValueError(f"{name}: {word}={entry[word]} is {kind}") from None


def _plain(fault: Any) -> str:
    """Return the message of one of our validators."""
    return str(fault["msg"]).removeprefix("Value error, ")
