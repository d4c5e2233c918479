"""How the settings say that strips are predicted; shared by validation, OOF and prediction."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from steelseg.config import Config
from steelseg.evaluation.postprocess import binarize, per_class
from steelseg.inference.forward import ForwardPlan


def forward_plan(config: Config) -> ForwardPlan:
    """Flips, crops and precision of a prediction."""
    data, inference = config.data, config.inference
    crop = (data.crop_height, data.crop_width, data.crop_stride) if inference.crops else None
    return ForwardPlan(tta=inference.tta, crop=crop, amp=inference.amp)


def mask_maker(config: Config) -> Callable[[NDArray[np.generic]], NDArray[np.bool_]]:
    """A function from probs_chw (float, or uint8 as OOF keeps them) to mask_chw.

    Raises:
        ConfigError: if a setting has another number of values than there are classes.
    """
    settings, classes = config.postprocess, config.data.num_classes
    return partial(
        binarize,
        threshold=per_class(settings.threshold, classes, name="postprocess.threshold"),
        min_size=per_class(settings.min_size, classes, name="postprocess.min_size"),
        min_area=per_class(settings.min_area, classes, name="postprocess.min_area"),
    )
