"""The settings of section `pseudo`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from steelseg.config.section import Probability, Section

_CONFIDENCE = 0.8


class PseudoConfig(Section):
    """How sure `steelseg pseudo` must be of a strip to take what networks say of it for its label.

    A strip is kept only if every class of it passes.
    """

    views: Literal["hflip", "vflip", "both"] = "both"
    """Views of a strip that must agree: the strip and its flips; both has four."""

    agreement: Probability = 0.8
    """Least Dice, in every class, between the mask of each view by each network and the mask of
    their mean; 1 where both are empty."""

    confidence: Probability | tuple[Probability, ...] | None = None
    """Least mean probability inside a mask; a class without one may be no likelier than 1 minus
    this on any 8x8 block. One value, or one a class. null: chosen by `precision`, else 0.8."""

    precision: Annotated[float, Field(gt=0, le=1)] | None = None
    """Chooses confidences on out-of-fold predictions instead, for each class the lowest at which
    this share of the pixels in the masks that are kept, and of the classes that are kept as
    absent, is right. null: `confidence` says."""

    @property
    def least_confidence(self) -> float | tuple[float, ...]:
        """The confidence that is given, or the default."""
        return _CONFIDENCE if self.confidence is None else self.confidence

    @model_validator(mode="after")
    def _one_of_them_chooses(self) -> Self:
        if self.confidence is not None and self.precision is not None:
            raise ValueError(
                f"precision={self.precision} chooses the confidence of each class, but "
                f"confidence={self.confidence} is given; set one of them to null"
            )
        return self
