"""Prediction speed of a network on this machine, in strips per second.

The weights are random, which does not affect the time. Strips are predicted as in `steelseg
predict`: whole or in crops, with the same flips, precision and batch size. Reading files and making
masks are excluded, because they take the same time for every network.
"""

import json
import time
from statistics import median

import numpy as np
import torch

from steelseg.config.config import Config
from steelseg.data.folder import DataSet
from steelseg.data.formats.images import read_image
from steelseg.inference.forward import forward_plan, images_at_once, predict_batch
from steelseg.models.build import build_network
from steelseg.models.device import pick_device

# The median is robust to rounds that other processes slow down.
_ROUNDS = 5
_WARM_UP = 2
_ROUND_SECONDS = 0.1


def speed_key(config: Config) -> str:
    """Return everything that the speed depends on, as JSON; equal keys are measured once."""
    data, inference, device = config.data, config.inference, pick_device()
    on_gpu = device.type == "cuda"
    return json.dumps(
        {
            "model": config.model.model_dump(mode="json", exclude={"encoder_weights", "init_from"}),
            "strip": [data.img_height, data.img_width, data.channels, data.num_classes],
            "crop": data.crop if inference.crops else None,
            "way": [inference.tta, inference.amp],
            "batch": images_at_once(config.train.batch_size_val, device),
            "machine": torch.cuda.get_device_name() if on_gpu else torch.get_num_threads(),
        }
    )


def images_per_second(config: Config) -> float:
    """Measure the speed of an untrained network.

    Args:
        config: The settings.

    Returns:
        Strips per second, the median of several rounds.

    Raises:
        ConfigError: if the network cannot be built.
        DataError: if the settings give no strip size and no strip can be read.
    """
    device = pick_device()
    network = build_network(config, is_new=False).to(device).eval()
    plan = forward_plan(config)
    count = images_at_once(config.train.batch_size_val, device)
    shape = (count, *_strip_size(config), config.data.channels)
    images_nhwc = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def predict() -> None:
        # Copying to the CPU waits for the GPU, which runs asynchronously.
        predict_batch(network, images_nhwc, plan, device).probs_nchw.cpu()

    for _ in range(_WARM_UP):
        predict()
    rates = []
    for _ in range(_ROUNDS):
        done, begin = 0, time.perf_counter()
        while (seconds := time.perf_counter() - begin) < _ROUND_SECONDS:
            predict()
            done += count
        rates.append(done / seconds)
    return median(rates)


def _strip_size(config: Config) -> tuple[int, int]:
    """Return height and width: of the settings if given, else of the first strip."""
    data = config.data
    if data.img_height is not None and data.img_width is not None:
        return data.img_height, data.img_width
    data_set = DataSet(data.root)
    path = data_set.train_images / data_set.list_images()[0]
    height, width, _ = read_image(path, channels=data.channels).shape
    return data.img_height or height, data.img_width or width
