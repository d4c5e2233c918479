"""From probabilities to what a client asked for: JSON, a mask, an overlay, the probabilities.

Masks are those of `steelseg predict`, to the bit: `binarize` makes them, `rle` and `exchange`
write them. A box is [left, top, width, height] in pixels, counted from 0; a score is the mean
probability of the pixels it speaks for.
"""

import gzip
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import rle
from steelseg.run.tuned_postprocess import mask_maker
from steelseg.scoring.postprocess import MaskSettings, to_uint8
from steelseg.serving.messages import Answer, to_json
from steelseg.serving.model import Model
from steelseg.serving.options import Options
from steelseg.writers.exchange import class_components, to_png
from steelseg.writers.overlays import draw_overlay

# Half the bytes of level 1 are noise that no level packs; higher ones take ten times as long.
_GZIP_LEVEL = 1


def make_answer(
    model: Model,
    options: Options,
    image_hwc: NDArray[np.uint8],
    probs_chw: NDArray[np.float32],
    *,
    begun: float,
    takes_gzip: bool,
) -> Answer:
    """Make the response to a strip.

    Args:
        model: What predicted it.
        options: What the client asked for.
        image_hwc: The strip.
        probs_chw: Its probabilities.
        begun: When its request began, by `time.perf_counter`.
        takes_gzip: Whether the client unpacks gzip.
    """
    if options.kind == "probabilities":
        return _probabilities(probs_chw, takes_gzip=takes_gzip)
    mask_chw = mask_maker(options.masks)(probs_chw)
    if options.kind == "mask":
        return Answer(
            body=to_png(_one_mask(mask_chw, probs_chw, options)), content_type="image/png"
        )
    if options.kind == "overlay":
        picture = draw_overlay(image_hwc, mask_chw, class_names=model.class_names)
        return Answer(body=to_png(picture[:, :, ::-1]), content_type="image/png")
    content = {
        "model": model.sha256,
        "height": mask_chw.shape[1],
        "width": mask_chw.shape[2],
        "classes": _classes(model, options.masks, mask_chw, probs_chw),
        "defects": _defects(mask_chw, probs_chw),
        "seconds": round(time.perf_counter() - begun, 6),
    }
    return to_json(content)


def _classes(
    model: Model,
    masks: MaskSettings,
    mask_chw: NDArray[np.bool_],
    probs_chw: NDArray[np.float32],
) -> list[dict[str, Any]]:
    """Every class: its whole mask, and how sure the model is of its surest pixel."""
    return [
        {
            "class": channel + 1,
            "name": name,
            "max_probability": round(float(probs_chw[channel].max()), 6),
            "threshold": masks.threshold[channel],
            "min_size": masks.min_size[channel],
            "rle": rle.encode(mask_chw[channel]),
            "area": int(np.count_nonzero(mask_chw[channel])),
        }
        for channel, name in enumerate(model.class_names)
    ]


def _defects(mask_chw: NDArray[np.bool_], probs_chw: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Every connected part of a mask."""
    return [
        {
            "class": class_id,
            "rle": rle.join(region.runs),
            "box": region.bbox,
            "area": region.area,
            "score": region.score,
        }
        for class_id, region in class_components(mask_chw, probs_chw)
    ]


def _one_mask(
    mask_chw: NDArray[np.bool_], probs_chw: NDArray[np.float32], options: Options
) -> NDArray[np.uint8]:
    """0 and 255 of one class; or the number of the class, the likelier one where two overlap."""
    if options.class_id is not None:
        return np.where(mask_chw[options.class_id - 1], np.uint8(255), np.uint8(0))
    likely_hw = np.where(mask_chw, probs_chw, -1).argmax(axis=0)
    return np.where(mask_chw.any(axis=0), likely_hw + 1, 0).astype(np.uint8)


def _probabilities(probs_chw: NDArray[np.float32], *, takes_gzip: bool) -> Answer:
    """Probabilities times 255, as bytes, one class after the other."""
    body = to_uint8(probs_chw).tobytes()
    shape = ("X-Shape", ",".join(map(str, probs_chw.shape)))
    if not takes_gzip:
        return Answer(body=body, content_type="application/octet-stream", headers=(shape,))
    return Answer(
        body=gzip.compress(body, _GZIP_LEVEL, mtime=0),
        content_type="application/octet-stream",
        headers=(shape, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")),
    )
