"""Post-training quantization to int8 with NNCF: weights and activations, calibrated on strips.

Values outside the calibrated range are clipped. The range of an activation is its range over all
calibration strips: a mean over strips would clip the high activations of rare defects. The mixed
preset (symmetric weights, asymmetric activations) fits activations that are not centred, such as
swish and sigmoid gates.
"""

import importlib
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from steelseg.inference.backends.backend import need
from steelseg.models.libc import preserve_signal_stack


@preserve_signal_stack()
def quantize_model(model: Any, inputs: Sequence[Any], *, convolutions: Sequence[str]) -> Any:
    """Quantize a model of a package that NNCF supports.

    The first and last convolution stay in float: rounding hurts grey values and logits most, and
    these two layers cost little (docs/experiments.md).

    Args:
        model: The model, as the package represents it.
        inputs: The input of each calibration strip, as the package takes it.
        convolutions: Names of all convolutions, in order.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    nncf = need("nncf")
    ranges = importlib.import_module("nncf.quantization.range_estimator")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    # NNCF prints progress bars to stdout, which is for results.
    with redirect_stdout(sys.stderr):
        return nncf.quantize(
            model,
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(names=[convolutions[0], convolutions[-1]]),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX
            ),
        )
