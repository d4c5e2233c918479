"""Parser of `train.loss`: one of the baseline's five losses, a term, or a weighted sum of terms.

"0.5 bce + 0.5 lovasz" is a sum; a term without a number has weight 1. The terms are listed in
`components.LOSS_TERMS` and computed by `models.losses`; nothing here imports torch.
"""

import math

from steelseg.config.components import LOSS_TERMS

BASELINE: dict[str, tuple[tuple[str, float], ...]] = {
    "bce_with_logits": (("bce", 1.0),),
    "dice": (("dice", 1.0),),
    "combo": (("bce", 0.5), ("dice", 0.5)),
    "bce_pos_weight": (("bce_pos_weight", 1.0),),
    "bce_dice_pos_weight": (("bce_pos_weight", 0.75), ("dice", 0.25)),
}
"""Terms and weights of the baseline's losses."""


def parse_loss(text: str) -> tuple[tuple[str, float], ...]:
    """Read a loss.

    Args:
        text: A name, or a sum such as "0.5 bce + 0.5 lovasz".

    Returns:
        Each term with its weight, in the order of the text.

    Raises:
        ValueError: if a term is unknown or a weight is not above 0.
    """
    name = text.strip()
    return BASELINE.get(name) or tuple(_parse_term(part) for part in name.split("+"))


def _parse_term(text: str) -> tuple[str, float]:
    """Read a term with or without its weight."""
    weight, _, term = text.strip().rpartition(" ")
    if term not in LOSS_TERMS:
        raise ValueError(
            f"{term or text!r} is not a loss; use one of {', '.join(BASELINE)}, or a sum such as "
            f"'0.5 bce + 0.5 lovasz' of {', '.join(LOSS_TERMS)}"
        )
    try:
        value = float(weight or 1)
    except ValueError:
        raise ValueError(f"{weight.strip()!r} before {term} is not a number") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"the weight {weight.strip()} of {term} is not above 0")
    return term, value
