"""How the settings say that a batch goes through a network."""

from steelseg.config import Config
from steelseg.inference.forward import ForwardPlan


def forward_plan(config: Config) -> ForwardPlan:
    """Flips, crops and precision of OOF and of prediction."""
    data, inference = config.data, config.inference
    crop = (data.crop_height, data.crop_width, data.crop_stride) if inference.crops else None
    return ForwardPlan(tta=inference.tta, crop=crop, amp=inference.amp)
