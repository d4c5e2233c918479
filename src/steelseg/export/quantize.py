"""Post-training quantization to int8, by NNCF: weights and activations, calibrated on strips.

What the calibration strips do not show is clipped later, so they are drawn evenly from clean
ones and from each class, and the range of an activation is that over all of them: a mean over
strips would clip what only a rare defect raises. The mixed preset (symmetric weights, asymmetric
activations) fits activations that are not centred, as swish and sigmoid gates give them.
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
    """Draw strips evenly from clean ones and from those of each class.

    Args:
        present: Class ids that each strip shows, by image_id.
        count: How many; fewer where there are not as many.
        seed: Of the draw.

    Returns:
        image_ids, sorted; the same for the same arguments, whatever the order of `present`.
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

    Its first and last convolution stay as they are: grey values and logits lose most by rounding,
    and the two cost little. How much, docs/experiments.md says.

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
    # Its bars go to stdout, where the results are.
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
