"""What the query of `POST /v1/predict` asks for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from steelseg.errors import ConfigError
from steelseg.scoring.postprocess import MaskSettings, per_class
from steelseg.serving.messages import Refusal

Kind = Literal["json", "mask", "overlay", "probabilities"]

# What a list of numbers looks like; each has at most a hundred characters, so that none takes long.
_NUMBER = r"[0-9]{1,50}(\.[0-9]{1,40})?([eE]-?[0-9]{1,3})?"
NUMBERS = rf"^{_NUMBER}(,{_NUMBER})*$"
WHOLE_NUMBERS = r"^[0-9]{1,9}(,[0-9]{1,9})*$"

# No image that is read has as many pixels.
_MOST_PIXELS = 10**9


@dataclass(frozen=True)
class Options:
    """How a strip is to be answered."""

    kind: Kind
    masks: MaskSettings
    class_id: int | None
    """The class whose mask is asked for; None: of all classes."""


def read_options(query: Mapping[str, str], masks: MaskSettings) -> Options:
    """Read a query.

    Args:
        query: answer, class, threshold and min_size; all may be missing.
        masks: The model's settings, which hold where the query has none.

    Raises:
        Refusal: if a parameter is unknown, or its value is wrong.
    """
    if unknown := sorted(query.keys() - {"answer", "class", "threshold", "min_size"}):
        raise Refusal(
            400,
            f"{unknown[0][:40]!r} is not a parameter. Use answer, class, threshold or min_size.",
        )
    classes = len(masks.threshold)
    if "threshold" in query:
        values = _numbers(query, "threshold", NUMBERS, classes=classes, most=1)
        masks = replace(masks, threshold=values)
    if "min_size" in query:
        values = _numbers(query, "min_size", WHOLE_NUMBERS, classes=classes, most=_MOST_PIXELS)
        masks = replace(masks, min_size=tuple(map(int, values)))
    return Options(_kind(query), masks, _class_id(query, classes))


def _numbers(
    query: Mapping[str, str], name: str, pattern: str, *, classes: int, most: int
) -> tuple[float, ...]:
    """One number for all classes, or one a class with commas between."""
    text = query[name]
    values = [float(word) for word in text.split(",")] if re.fullmatch(pattern, text) else []
    if not values or max(values) > most:
        kind = "whole numbers" if pattern == WHOLE_NUMBERS else "numbers"
        raise Refusal(
            400, f"{name}={text[:40]} is wrong. Expected {kind} from 0 to {most}, commas between."
        )
    try:
        return per_class(values if len(values) > 1 else values[0], classes, name=name)
    except ConfigError as error:
        raise Refusal(400, str(error)) from None


def _kind(query: Mapping[str, str]) -> Kind:
    """What is to be sent."""
    text = query.get("answer", "json")
    for kind in get_args(Kind):
        if text == kind:
            return kind  # type: ignore[no-any-return]
    raise Refusal(400, f"answer={text[:40]} is none of {', '.join(get_args(Kind))}.")


def _class_id(query: Mapping[str, str], classes: int) -> int | None:
    """The class of a mask, counted from 1."""
    if "class" not in query:
        return None
    if query.get("answer") != "mask":
        raise Refusal(400, "class is allowed only with answer=mask.")
    text = query["class"]
    if not re.fullmatch("[1-9][0-9]{0,2}", text) or int(text) > classes:
        raise Refusal(400, f"class={text[:40]} is wrong. Expected 1 to {classes}.")
    return int(text)
