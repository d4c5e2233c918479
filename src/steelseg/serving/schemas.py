"""JSON bodies of responses; the OpenAPI document is generated from these models."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
ClassId = Annotated[int, Field(ge=1, le=255)]
Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rle = Annotated[
    str,
    Field(description="start length ...; pixels counted from 1, down then right, as on Kaggle."),
]


class _Schema(BaseModel):
    """A JSON object without further properties, whose fields are read and written by alias."""

    model_config = ConfigDict(extra="forbid", validate_by_name=True)


class ErrorBody(_Schema):
    """Every error."""

    error: str = Field(description="The reason, one line.")


class Live(_Schema):
    """Body of `/live`."""

    live: Literal[True] = True


class Ready(_Schema):
    """Body of `/ready`."""

    ready: Literal[True] = True


class ClassMask(_Schema):
    """The whole mask of a class, found or not."""

    class_id: ClassId = Field(alias="class")
    name: str
    max_probability: Probability
    threshold: Probability
    min_size: Count
    rle: Rle
    area: Count = Field(description="Pixels.")


class Defect(_Schema):
    """A connected component of the mask of a class."""

    class_id: ClassId = Field(alias="class")
    rle: Rle
    box: Annotated[list[Count], Field(min_length=4, max_length=4)] = Field(
        description="Left, top, width and height in pixels, from 0."
    )
    area: Count = Field(description="Pixels.")
    score: Probability = Field(description="Mean probability of its pixels.")


class Prediction(_Schema):
    """The defects of a strip."""

    model: Sha256
    height: Count
    width: Count
    classes: list[ClassMask]
    defects: list[Defect]
    seconds: Annotated[float, Field(ge=0)]


class ClassSettings(_Schema):
    """A class of the model and how its masks are made."""

    class_id: ClassId = Field(alias="class")
    name: str
    threshold: Probability
    min_size: Count
    min_area: Count
    top_threshold: Probability
    gate: Probability = Field(
        default=0, description="Lowest presence; missing where the model has no hard gate."
    )


class ImageFormatInfo(_Schema):
    """A format of the images that are read."""

    name: str
    media_type: str
    extensions: list[str] = Field(description="Endings of file names, in lower case.")


class RequestLimits(_Schema):
    """The largest request that is read."""

    max_bytes: Count
    max_pixels: Count


class ModelInfo(_Schema):
    """The model that answers."""

    sha256: Sha256
    classes: list[ClassSettings]
    pixel_mm: float | None = Field(description="Side of a pixel in mm, if it is known.")
    channels: Literal[1, 3]
    inference: dict[str, Any]
    provenance: dict[str, Any]
    image_formats: list[ImageFormatInfo]
    limits: RequestLimits


class ModelChoice(_Schema):
    """Which folder of `--models` takes over."""

    name: str
