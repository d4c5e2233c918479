"""Convert a trained network to the files of an export format.

The files contain the `core` of a `StripNet`: pixels in, logits out (and presence logits, if it has
a presence head), with normalisation inside; `inference.load_exported` adds the padding. `parity`
checks that the outputs are the same. Their bytes depend only on the network.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from steelseg.config.export_formats import EXPORT_FORMATS
from steelseg.inference.backends.backend import Size, load_backend
from steelseg.models.model import StripNet, pad_to_multiple


def convert(
    model: StripNet,
    folder: Path,
    *,
    format: str,
    channels: int,
    size: Size = None,
    calibration: Sequence[NDArray[np.uint8]] = (),
) -> dict[str, Path]:
    """Write a network in fp32 and, if there are calibration strips, in int8.

    Args:
        model: The network, in eval mode, on the CPU.
        folder: A temporary folder of the caller.
        format: A name in `EXPORT_FORMATS`.
        channels: Image channels.
        size: Fixed height and width, multiples of `model.multiple`; None accepts any size.
        calibration: Strips for int8, shape (1, channels, H, W), of sizes that the file accepts.

    Returns:
        The file to load for each precision. With int8, fp32 is the file that was quantized.

    Raises:
        ConfigError: if the network cannot be exported in this way, or an exporter is not installed.
    """
    backend, suffix = load_backend(format), EXPORT_FORMATS[format].suffixes[0]
    paths: dict[str, Path] = {"fp32": folder / f"fp32{suffix}"}
    backend.write(model, paths["fp32"], channels=channels, size=size, for_int8=bool(calibration))
    if calibration:
        paths["int8"] = folder / f"int8{suffix}"
        backend.quantize(paths["fp32"], paths["int8"], calibration)
    return paths


def as_input(image_hwc: NDArray[np.uint8], model: StripNet) -> NDArray[np.uint8]:
    """Return a strip as input of an exported network: a padded batch of one."""
    image_nchw = torch.from_numpy(np.ascontiguousarray(image_hwc.transpose(2, 0, 1)))[None]
    return pad_to_multiple(image_nchw, model.multiple).contiguous().numpy()
