"""Base class and types shared by all sections of settings."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=0)]
Cost = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A group of settings: immutable, unknown names rejected."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _reject_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject booleans that pydantic would convert to 1 or 0."""
        values = value if isinstance(value, list | tuple) else [value]
        is_switch = cls.model_fields[info.field_name or ""].annotation is bool
        if not is_switch and any(isinstance(v, bool) for v in values):
            raise ValueError(
                "true and false are not allowed here (in YAML also yes, no, on and off)"
            )
        return value
