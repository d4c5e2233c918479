"""What a line of results.jsonl says of a strip.

A defect is an 8-connected component of a mask: class, run-length encoding in the whole strip, box
[left, top, width, height], area and score (mean probability of its pixels). A strip that was
refused has no `defects`, but a reason in `refused`, so that nobody takes it for clean.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import rle
from steelseg.watch.pieces import Strip
from steelseg.writers.exchange import class_components


def result_line(
    strip: Strip,
    mask_chw: NDArray[np.bool_],
    probs_chw: NDArray[np.float32],
    *,
    class_names: Sequence[str],
    model_sha256: str,
    lag_s: float,
) -> dict[str, Any]:
    """Describe a strip that was predicted.

    Args:
        strip: Where it came from.
        mask_chw: Its masks, shape (C, H, W).
        probs_chw: Its probabilities, shape (C, H, W).
        class_names: Name of each class, length C.
        model_sha256: Of what it was predicted with.
        lag_s: Seconds since its last file was first seen.
    """
    assert len(class_names) == len(mask_chw), (class_names, mask_chw.shape)
    _, height, width = mask_chw.shape
    return {
        **_origin(strip, lag_s=lag_s),
        "model_sha256": model_sha256,
        "height": height,
        "width": width,
        "max_probability": [round(float(probs_hw.max()), 6) for probs_hw in probs_chw],
        "defects": [
            {
                "class_id": class_id,
                "class_name": class_names[class_id - 1],
                "rle": rle.join(region.runs),
                "bbox": region.bbox,
                "area": region.area,
                "score": region.score,
            }
            for class_id, region in class_components(mask_chw, probs_chw)
        ],
    }


def refused_line(strip: Strip, reason: str, *, lag_s: float) -> dict[str, Any]:
    """Describe a strip that could not be predicted."""
    return {**_origin(strip, lag_s=lag_s), "refused": reason}


def _origin(strip: Strip, *, lag_s: float) -> dict[str, Any]:
    """What every line says."""
    return {
        "image_id": strip.image_id,
        "sha256": strip.sha256,
        "files": [{**version._asdict(), "sha256": digest} for version, digest in strip.files],
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "lag_s": round(lag_s, 3),
    }
