"""The masks that held-out strips are scored by.

Of a tuned run every strip is masked with settings that were chosen without it, else with the
settings of the run. What scores strips and what shows them both ask here, so that a picture is
of the mask that was scored.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from steelseg.config import Config
from steelseg.errors import CheckpointError
from steelseg.evaluation.gate import close
from steelseg.evaluation.oof_store import HeldOut, views_in_words
from steelseg.evaluation.postprocess import MaskSettings
from steelseg.evaluation.tuned import Tuned, is_open, mask_maker, mask_settings
from steelseg.run_folder import RunFolder

ToMask = Callable[[str, NDArray[np.uint8]], NDArray[np.bool_]]
"""From image_id and probs_chw to mask_chw."""


def held_out_masks(
    config: Config, run: RunFolder, held_out: HeldOut, tuned: Tuned | None
) -> ToMask:
    """Make masks by the settings, or by what was tuned without the strip, behind a hard gate.

    Args:
        config: The settings; what they fix goes before what was tuned.
        run: The run, told where predictions were made with other flips or crops than it has.
        held_out: The predictions that masks are made of.
        tuned: What postprocess.json holds; None without it.

    Raises:
        CheckpointError: if tuning has not seen these predictions.
    """
    own = views_in_words(config.inference.tta, config.data.crop if config.inference.crops else None)
    if others := sorted(set(held_out.views.values()) - {"", own}):
        run.warn(
            f"out-of-fold predictions were made with {others[0]}, and `steelseg predict` would "
            f"have {own}. Make them alike: steelseg oof {run.path}."
        )
    if tuned is None or not is_open(config):
        return _gated(held_out, mask_settings(config))
    is_known = held_out.fold_of.keys() <= tuned.part_of.keys()
    if not is_known or any(tuned.models.get(f) != digest for f, digest in held_out.models.items()):
        raise CheckpointError(
            f"{run.postprocess_json} was tuned on other predictions. "
            f"Tune again: steelseg tune {run.path}."
        )
    makers = [_gated(held_out, mask_settings(config, part)) for part in tuned.parts]
    return lambda image_id, probs_chw: makers[tuned.part_of[image_id]](image_id, probs_chw)


def _gated(held_out: HeldOut, settings: MaskSettings) -> ToMask:
    """Close the gate where it is hard, then make masks; a soft one is behind us already."""
    to_mask = mask_maker(settings)
    if not settings.gate:
        return lambda _, probs_chw: to_mask(probs_chw)
    return lambda image_id, probs_chw: to_mask(
        close(probs_chw, held_out.presence[image_id], least=settings.gate)
    )
