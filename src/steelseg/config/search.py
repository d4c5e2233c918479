"""The settings of section `search`: what `steelseg search` tries.

Whether each value fits the setting that it is for is checked by `steelseg.search.space`, where all
other settings are known.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from steelseg.config.section import Section


class Span(Section):
    """Numbers from `low` to `high`, both among them; whole ones where the setting is whole."""

    low: int | float
    """Smallest value."""

    high: int | float
    """Largest value."""

    log: bool = False
    """true draws evenly on a logarithmic scale."""

    @model_validator(mode="after")
    def _ends_must_be_ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} has no logarithm; log=true needs low above 0")
        return self


class SearchConfig(Section):
    """What `steelseg search` tries, and when it gives a trial up."""

    trials: int = Field(40, ge=1)
    """Trials in all, those given up among them."""

    space: dict[str, Span | tuple[Any, ...]] = Field({})
    """Settings to choose, by name: a list of values, or {low: 1.0e-4, high: 1.0e-2, log: true}."""

    min_images_per_second: Annotated[float, Field(gt=0)] | None = None
    """Slower networks are given up before training; strips that one network predicts a second on
    this machine. null asks for no speed."""

    pruning: Literal["median", "hyperband", "none"] = "median"
    """median gives a trial up whose best epoch so far is worse than the median of the others at
    that epoch; hyperband lets a third of them go on each time; none trains each to its end."""

    warm_up_epochs: int = Field(3, ge=0)
    """Epochs before a trial is given up for its score."""

    warm_up_trials: int = Field(5, ge=1)
    """Trials that must be finished before median gives another up."""

    @field_validator("space", mode="before")
    @classmethod
    def _each_is_a_list_or_a_span(cls, value: Any) -> Any:
        """Say what is wrong with an entry, where pydantic would list every form that it is not."""
        if not isinstance(value, Mapping):
            raise ValueError("give the names of settings, each with its values")
        return {str(name): _entry(str(name), entry) for name, entry in value.items()}


def _entry(name: str, entry: Any) -> "Span | tuple[Any, ...]":
    """A span or choices, or ValueError."""
    if isinstance(entry, Span):
        return entry
    if isinstance(entry, list | tuple) and entry:
        return tuple(entry)
    if not isinstance(entry, Mapping) or not {"low", "high"} <= set(entry):
        raise ValueError(f"{name} needs a list of values, or a span such as {{low: 1, high: 9}}")
    if odd := [word for word in entry if word not in Span.model_fields]:
        raise ValueError(f"{name} has {odd[0]}, but a span knows low, high and log alone")
    try:
        return Span.model_validate(dict(entry))
    except ValidationError as error:
        fault = error.errors()[0]
        if not fault["loc"]:
            raise ValueError(f"{name}: {_plain(fault)}") from None
        word = str(fault["loc"][0])
        kind = "neither true nor false" if word == "log" else "no number"
        raise ValueError(f"{name}: {word}={entry[word]} is {kind}") from None


def _plain(fault: Any) -> str:
    """What a validator of ours said."""
    return str(fault["msg"]).removeprefix("Value error, ")
