"""Photometric augmentation: changes pixel values and leaves the masks as they are.

Each function takes `image_chw` and `mask_chw` (uint8), changes the image in place and returns
both. All randomness comes from the given generator.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]
Sample = tuple[Array, Array]


def brightness(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Scale contrast by 0.8 to 1.2 and shift brightness by up to 10 % of full scale."""
    gain, shift = rng.uniform(0.8, 1.2), rng.uniform(-25.5, 25.5)
    apply_lut(image_chw, (np.arange(256) - 128) * gain + 128 + shift)
    return image_chw, mask_chw


def gamma(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Apply gamma correction with an exponent of 2/3 to 3/2."""
    power = 1.5 ** rng.uniform(-1, 1)
    apply_lut(image_chw, 255 * (np.arange(256) / 255) ** power)
    return image_chw, mask_chw


def apply_lut(image_chw: Array, values: NDArray[np.floating[Any]]) -> None:
    """Apply a lookup table of 256 values, in place."""
    # A lookup table is much faster than arithmetic on every pixel.
    table = np.clip(values, 0, 255).astype(np.uint8)
    for plane in image_chw:
        cv2.LUT(plane, table, plane)


def noise(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Add Gaussian noise with a sigma of 2 to 12 grey levels, the same for all channels."""
    sigma = np.float32(rng.uniform(2, 12))
    added = rng.standard_normal(image_chw.shape[1:], dtype=np.float32) * sigma
    image_chw[...] = np.clip(image_chw + added + np.float32(0.5), 0, 255)
    return image_chw, mask_chw


def blur(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Apply a Gaussian blur with a sigma of 0.5 to 1.5 pixels."""
    sigma = rng.uniform(0.5, 1.5)
    for plane in image_chw:
        plane[...] = cv2.GaussianBlur(plane, (0, 0), sigma)
    return image_chw, mask_chw


def jpeg(image_chw: Array, mask_chw: Array, rng: np.random.Generator) -> Sample:
    """Compress as JPEG with a quality of 30 to 90."""
    quality = int(rng.integers(30, 91))
    image_hwc = np.ascontiguousarray(image_chw.transpose(1, 2, 0))
    _, coded = cv2.imencode(".jpg", image_hwc, [cv2.IMWRITE_JPEG_QUALITY, quality])
    read = np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED), np.uint8)
    image_chw[...] = read.reshape(image_hwc.shape).transpose(2, 0, 1)
    return image_chw, mask_chw
