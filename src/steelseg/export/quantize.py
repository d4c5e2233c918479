"""Post-training quantization to int8 with NNCF: weights and activations, calibrated on strips.

Values outside the calibrated range are clipped. So calibration strips are drawn evenly from clean
strips and from each class, and the range of an activation is its range over all of them: a mean
over strips would clip the high activations of rare defects. The mixed preset (symmetric weights,
asymmetric activations) fits activations that are not centred, such as swish and sigmoid gates.
"""

import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.export.exported import Format
from steelseg.inference.backends import need
from steelseg.models.libc import preserve_signal_stack


def choose_strips(present: Mapping[str, Sequence[int]], count: int, *, seed: int) -> list[str]:
    """Draw strips evenly from clean strips and from those of each class.

    Args:
        present: Class ids on each strip, by image_id.
        count: Number of strips; fewer are returned if there are not as many.
        seed: Seed of the draw.

    Returns:
        Sorted image_ids; they do not depend on the order of `present`.
    """
    image_ids = sorted(present)
    shuffled = [image_ids[k] for k in np.random.default_rng(seed).permutation(len(image_ids))]
    classes = sorted({class_id for shown in present.values() for class_id in shown})
    piles = [[i for i in shuffled if class_id in present[i]] for class_id in classes]
    piles.append([i for i in shuffled if not present[i]])
    chosen: set[str] = set()
    while len(chosen) < min(count, len(image_ids)):
        for pile in piles:
            left = [image_id for image_id in pile if image_id not in chosen]
            if left and len(chosen) < count:
                chosen.add(left[0])
    return sorted(chosen)


@preserve_signal_stack()
def quantize(source: Path, strips: Sequence[NDArray[np.uint8]], *, format: Format) -> Any:
    """Quantize an exported network to int8.

    The first and last convolution stay in float: rounding hurts grey values and logits most, and
    these two layers cost little (docs/experiments.md).

    Args:
        source: The .onnx or .xml in full precision.
        strips: Calibration strips, shape (1, channels, H, W), of sizes that `source` takes.
        format: The format of `source`.

    Returns:
        The model, as the `onnx` or `openvino` package represents it.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    nncf = need("nncf")
    ranges = importlib.import_module("nncf.quantization.range_estimator")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    if format == "onnx":
        model = need("onnx").load(source, load_external_data=False)
        convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
        inputs: Sequence[Any] = [{model.graph.input[0].name: strip} for strip in strips]
    else:
        model = need("openvino").Core().read_model(source, source.with_suffix(".bin"))
        convolutions = [
            node.get_friendly_name()
            for node in model.get_ordered_ops()
            if node.get_type_name() in ("Convolution", "GroupConvolution")
        ]
        inputs = strips
    # NNCF prints progress bars to stdout, which is for results.
    with redirect_stdout(sys.stderr):
        return nncf.quantize(
            model,
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(strips),
            ignored_scope=nncf.IgnoredScope(names=[convolutions[0], convolutions[-1]]),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX
            ),
        )
