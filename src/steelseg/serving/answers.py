"""From probabilities to the response that a client asked for.

Masks are those of `steelseg predict`, to the bit: `binarize` makes them, `rle` and `exchange`
write them.
"""

import gzip
import time

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from steelseg.data.formats import rle
from steelseg.run.tuned_postprocess import mask_maker
from steelseg.scoring.postprocess import MaskSettings, to_uint8
from steelseg.serving.model import Model
from steelseg.serving.options import Options
from steelseg.serving.schemas import ClassMask, Defect, Prediction
from steelseg.writers.exchange import class_components, to_png
from steelseg.writers.overlays import draw_overlay

# Half the bytes of level 1 are noise that no level compresses; higher ones take ten times as long.
_GZIP_LEVEL = 1


def make_answer(
    model: Model,
    options: Options,
    image_hwc: NDArray[np.uint8],
    probs_chw: NDArray[np.float32],
    *,
    begun: float,
    accepts_gzip: bool,
) -> Response:
    """Make the response to a strip.

    Args:
        model: The model that predicted it.
        options: What the client asked for.
        image_hwc: The strip.
        probs_chw: Its probabilities.
        begun: When its request began, by `time.perf_counter`.
        accepts_gzip: Whether the client accepts gzip.
    """
    if options.kind == "probabilities":
        return _probabilities(probs_chw, accepts_gzip=accepts_gzip)
    mask_chw = mask_maker(options.masks)(probs_chw)
    if options.kind == "mask":
        return _png(_one_mask(mask_chw, probs_chw, options))
    if options.kind == "overlay":
        overlay = draw_overlay(image_hwc, mask_chw, class_names=model.class_names)
        return _png(overlay[:, :, ::-1])
    prediction = Prediction(
        model=model.sha256,
        height=mask_chw.shape[1],
        width=mask_chw.shape[2],
        classes=_classes(model, options.masks, mask_chw, probs_chw),
        defects=_defects(mask_chw, probs_chw),
        seconds=round(time.perf_counter() - begun, 6),
    )
    return Response(prediction.model_dump_json(by_alias=True), media_type="application/json")


def _classes(
    model: Model,
    masks: MaskSettings,
    mask_chw: NDArray[np.bool_],
    probs_chw: NDArray[np.float32],
) -> list[ClassMask]:
    """Describe the whole mask of every class."""
    return [
        ClassMask(
            class_id=channel + 1,
            name=name,
            max_probability=round(float(probs_chw[channel].max()), 6),
            threshold=masks.threshold[channel],
            min_size=masks.min_size[channel],
            rle=rle.encode(mask_chw[channel]),
            area=int(np.count_nonzero(mask_chw[channel])),
        )
        for channel, name in enumerate(model.class_names)
    ]


def _defects(mask_chw: NDArray[np.bool_], probs_chw: NDArray[np.float32]) -> list[Defect]:
    """Describe every connected component of a mask."""
    return [
        Defect(
            class_id=class_id,
            rle=rle.join(region.runs),
            box=list(region.bbox),
            area=region.area,
            score=region.score,
        )
        for class_id, region in class_components(mask_chw, probs_chw)
    ]


def _one_mask(
    mask_chw: NDArray[np.bool_], probs_chw: NDArray[np.float32], options: Options
) -> NDArray[np.uint8]:
    """Return 0 and 255 for one class, or class numbers; where two overlap, the more probable."""
    if options.class_id is not None:
        return np.where(mask_chw[options.class_id - 1], np.uint8(255), np.uint8(0))
    likely_hw = np.where(mask_chw, probs_chw, -1).argmax(axis=0)
    return np.where(mask_chw.any(axis=0), likely_hw + 1, 0).astype(np.uint8)


def _png(image: NDArray[np.uint8]) -> Response:
    return Response(to_png(image), media_type="image/png")


def _probabilities(probs_chw: NDArray[np.float32], *, accepts_gzip: bool) -> Response:
    """Return probabilities times 255 as bytes, class after class."""
    body = to_uint8(probs_chw).tobytes()
    headers = {"X-Shape": ",".join(map(str, probs_chw.shape))}
    if accepts_gzip:
        body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Response(body, media_type="application/octet-stream", headers=headers)
