"""Settings of section `pseudo`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from steelseg.config.section import Probability, Section

_CONFIDENCE = 0.8


class PseudoConfig(Section):
    """Which predictions `steelseg pseudo` accepts as pseudo-labels.

    A strip is accepted only if all its classes pass.
    """

    agreement: Probability = 0.8
    """Minimum Dice, per class, between the mask of each network and flip and the mask of their mean
    probability; 1 where both are empty."""

    confidence: Probability | tuple[Probability, ...] | None = None
    """Minimum mean probability inside a mask. For a class without a mask, 1 minus this is the
    maximum mean probability of any 8x8 block. One value, or one per class. null: chosen by
    `precision` if set, otherwise 0.8."""

    precision: Annotated[float, Field(gt=0, le=1)] | None = None
    """Choose the confidence of each class on out-of-fold predictions instead: the lowest at which
    this fraction of the pixels in accepted masks, and of the strips accepted as free of the
    class, is correct. null: use `confidence`."""

    @property
    def min_confidence(self) -> float | tuple[float, ...]:
        """`confidence`, or its default."""
        return _CONFIDENCE if self.confidence is None else self.confidence

    @model_validator(mode="after")
    def _check_one_is_set(self) -> Self:
        if self.confidence is not None and self.precision is not None:
            raise ValueError(
                f"precision={self.precision} chooses the confidence of each class, but "
                f"confidence={self.confidence} is given; set one of them to null"
            )
        return self
