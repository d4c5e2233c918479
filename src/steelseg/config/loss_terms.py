"""Parser of `train.loss`: one of the baseline's five losses, a term, or a weighted sum of terms.

"0.5 focal(2) + 0.5 dice" is a sum. A term without a number in front has weight 1; the number in
parentheses is the parameter of the term, which has a default. The terms are listed in
`components.LOSS_TERMS` and computed by `models.losses`; nothing here imports torch.
"""

import math
import re
from typing import NamedTuple

from steelseg.config.components import LOSS_TERMS


class LossTerm(NamedTuple):
    """One term of a loss."""

    name: str
    weight: float = 1.0
    options: tuple[tuple[str, float], ...] = ()
    """Name and value of the parameter, for terms that have one."""


BASELINE: dict[str, tuple[LossTerm, ...]] = {
    "bce_with_logits": (LossTerm("bce"),),
    "dice": (LossTerm("dice"),),
    "combo": (LossTerm("bce", 0.5), LossTerm("dice", 0.5)),
    "bce_pos_weight": (LossTerm("bce_pos_weight"),),
    "bce_dice_pos_weight": (LossTerm("bce_pos_weight", 0.75), LossTerm("dice", 0.25)),
}
"""The losses of the baseline."""

# "0.5 focal(2)": weight, name, parameter.
_TERM = re.compile(r"(?:(?P<weight>.*\S)\s+)?(?P<name>\w+)(?:\((?P<value>[^()]*)\))?")


def parse_loss(text: str) -> tuple[LossTerm, ...]:
    """Read a loss.

    Args:
        text: A name, or a sum such as "0.5 bce + 0.5 lovasz" or "tversky(0.3)".

    Returns:
        The terms, in the order of the text.

    Raises:
        ValueError: if a term is unknown, its weight is not above 0, or its parameter is out of
            range.
    """
    name = text.strip()
    return BASELINE.get(name) or tuple(_parse_term(part.strip()) for part in name.split("+"))


def _parse_term(text: str) -> LossTerm:
    """Parse a term with or without weight and parameter."""
    match = _TERM.fullmatch(text)
    if match is None or match["name"] not in LOSS_TERMS:
        unknown = match["name"] if match else text
        raise ValueError(
            f"{unknown!r} is not a loss; use one of {', '.join(BASELINE)}, or a sum such as "
            f"'0.5 bce + 0.5 lovasz' of {', '.join(LOSS_TERMS)}"
        )
    name, weight = match["name"], match["weight"] or "1"
    try:
        value = float(weight)
    except ValueError:
        raise ValueError(f"{weight!r} before {name} is not a number") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"the weight {weight} of {name} is not above 0")
    return LossTerm(name, value, _parse_parameter(name, match["value"]))


def _parse_parameter(term: str, text: str | None) -> tuple[tuple[str, float], ...]:
    """Parse the parameter in parentheses after a term; None means the default."""
    parameter = LOSS_TERMS[term].parameter
    if parameter is None:
        if text is not None:
            raise ValueError(f"{term} has no parameter, so write it without ({text})")
        return ()
    try:
        value = parameter.default if text is None else float(text)
    except ValueError:
        value = math.nan
    if not (0 <= value <= parameter.highest and math.isfinite(value)):
        limits = (
            "0 or more" if parameter.highest == math.inf else f"from 0 to {parameter.highest:g}"
        )
        raise ValueError(
            f"{parameter.name}={text} of {term} must be {limits}, such as "
            f"{term}({parameter.default:g})"
        )
    return ((parameter.name, value),)
