"""The query of `POST /v1/predict`."""

import re
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException

from steelseg.errors import ConfigError
from steelseg.scoring.postprocess import MaskSettings, per_class

Kind = Literal["json", "mask", "overlay", "probabilities"]

# Each number has at most a hundred characters, so that none takes long to parse.
_NUMBER = r"[0-9]{1,50}(\.[0-9]{1,40})?([eE]-?[0-9]{1,3})?"
_NUMBERS = rf"^{_NUMBER}(,{_NUMBER})*$"
_WHOLE_NUMBERS = r"^[0-9]{1,9}(,[0-9]{1,9})*$"

# More than any image that is read has.
_MAX_PIXELS = 10**9

_Optional = SkipJsonSchema[None]


class PredictQuery(BaseModel):
    """The parameters, as FastAPI reads and documents them."""

    model_config = ConfigDict(extra="forbid")

    answer: Kind = Field("json", description="Form of the response.")

    class_id: Annotated[int, Field(ge=1, le=255)] | _Optional = Field(
        None, alias="class", description="With answer=mask: only this class, as 0 and 255."
    )

    # The pattern is for the document: `read_options` gives a better reason than pydantic would.
    threshold: str | _Optional = Field(
        None,
        description="Lowest probability that is kept: one number, or one per class.",
        json_schema_extra={"pattern": _NUMBERS},
    )

    min_size: str | _Optional = Field(
        None,
        description="Smallest defect that is kept, in pixels: one number, or one per class.",
        json_schema_extra={"pattern": _WHOLE_NUMBERS},
    )


@dataclass(frozen=True)
class Options:
    """How to answer a strip."""

    kind: Kind
    masks: MaskSettings
    class_id: int | None
    """The class whose mask is requested; None for all classes."""


def read_options(query: PredictQuery, masks: MaskSettings) -> Options:
    """Combine a query with the settings of the model.

    Args:
        query: The parameters of the request.
        masks: Settings for what the query leaves out.

    Raises:
        HTTPException: 400 if a value does not suit the model.
    """
    classes = len(masks.threshold)
    if query.threshold is not None:
        values = _numbers("threshold", query.threshold, _NUMBERS, classes=classes, most=1)
        masks = replace(masks, threshold=values)
    if query.min_size is not None:
        values = _numbers(
            "min_size", query.min_size, _WHOLE_NUMBERS, classes=classes, most=_MAX_PIXELS
        )
        masks = replace(masks, min_size=tuple(map(int, values)))
    if query.class_id is not None:
        if query.answer != "mask":
            raise HTTPException(400, "class is allowed only with answer=mask.")
        if query.class_id > classes:
            raise HTTPException(400, f"class={query.class_id} is wrong. Expected 1 to {classes}.")
    return Options(query.answer, masks, query.class_id)


def _numbers(name: str, text: str, pattern: str, *, classes: int, most: int) -> tuple[float, ...]:
    """Parse one number for all classes, or one per class separated by commas."""
    values = [float(word) for word in text.split(",")] if re.fullmatch(pattern, text) else []
    if not values or max(values) > most:
        kind = "whole numbers" if pattern == _WHOLE_NUMBERS else "numbers"
        raise HTTPException(
            400,
            f"{name}={text[:40]} is wrong. Expected {kind} from 0 to {most}, separated by commas.",
        )
    try:
        return per_class(values if len(values) > 1 else values[0], classes, name=name)
    except ConfigError as error:
        raise HTTPException(400, str(error)) from None
