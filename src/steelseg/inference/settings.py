"""How the settings say that a batch goes through a network."""

from steelseg.config import Config
from steelseg.inference.forward import ForwardPlan


def forward_plan(config: Config) -> ForwardPlan:
    """Flips, crops and precision of OOF and of prediction."""
    inference = config.inference
    crop = config.data.crop if inference.crops else None
    return ForwardPlan(tta=inference.tta, crop=crop, amp=inference.amp)
