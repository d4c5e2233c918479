"""How many strips a second the network of some settings predicts on this machine.

The weights are random, which changes no time. Strips go through the network as in prediction:
whole or in crops, with its flips and its precision, as many at once. Reading files and making
masks are left out; they take the same time whatever the network.
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

# What else the machine does slows single rounds; the median stands above it.
_ROUNDS = 5
_WARM_UP = 2
_ROUND_SECONDS = 0.1


def speed_key(config: Config) -> str:
    """All that the speed hangs on; equal keys need no second measurement."""
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
    """Time the untrained network of some settings.

    Args:
        config: The settings.

    Returns:
        Strips a second, the median of several rounds.

    Raises:
        ConfigError: if the network cannot be built.
        DataError: if the size of the strips is left open and none can be read.
    """
    device = pick_device()
    network = build_network(config, is_new=False).to(device).eval()
    plan = forward_plan(config)
    count = images_at_once(config.train.batch_size_val, device)
    shape = (count, *_strip_size(config), config.data.channels)
    images_nhwc = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def predict() -> None:
        # To the processor, because a GPU answers before it is done.
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
    """Height and width of a strip: what the settings say, else the first strip's."""
    data = config.data
    if data.img_height is not None and data.img_width is not None:
        return data.img_height, data.img_width
    data_set = DataSet(data.root)
    path = data_set.train_images / data_set.list_images()[0]
    height, width, _ = read_image(path, channels=data.channels).shape
    return data.img_height or height, data.img_width or width
