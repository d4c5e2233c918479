"""How fast this machine's best device trains and predicts, and the share of its peak.

    python benchmarks/device.py [--arch unet] [--encoders resnet18 efficientnet-b3] [--compile]

Made for a GPU; without one the processor is measured the same way. Training takes 256x512 crops
through `steelseg train`'s own step (mixed precision, channels_last, fused optimizer), prediction
256x1600 strips through `steelseg predict`'s; batches lie ready in memory. Operations are counted
by torch (a backward pass counts twice its forward pass). The peak is the best of large square
matrix products in the same precision, and beside it the maker's figure where the chip is known.
Prints JSON.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ready_batches import make_learner, train_on
from steelseg.config.load import build_config
from steelseg.inference.forward import ForwardPlan, predict_batch
from steelseg.models.device import half_type, pick_device

CLASSES = 4
# Dense bf16 TFLOP/s of the makers' data sheets.
DATA_SHEET = {"H100": 989, "H200": 989, "A100": 312, "L40S": 362, "L4": 121, "RTX 4090": 165}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="unet")
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "efficientnet-b3"])
    parser.add_argument("--batches", nargs="+", type=int, help="default: 8 to 128, on a CPU 8")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    args = parser.parse_args()
    device = pick_device()
    on_gpu = device.type == "cuda"
    half = half_type(device)
    peak = matrix_peak(device, half or torch.float32)
    name = torch.cuda.get_device_name() if on_gpu else "processor"
    sizes = args.batches or ([8, 16, 32, 64, 128] if on_gpu else [8])
    report = {
        "device": name,
        "precision": str(half or torch.float32),
        "compile": args.compile,
        "matrix_products_tflops": round(peak / 1e12, 2),
        "data_sheet_tflops": next((v for k, v in DATA_SHEET.items() if k in name), None),
        "results": [
            measure(args, encoder, batch, device, peak) for encoder in args.encoders
            for batch in sizes
        ],
    }  # fmt: skip
    print(json.dumps(report, indent=1))


def measure(args, encoder, batch, device, peak):
    """Training and prediction of one network at one batch size."""
    result = {"encoder": encoder, "batch": batch}
    try:
        result |= training(args, encoder, batch, device, peak)
        result |= prediction(args, encoder, batch, device, peak)
    except torch.OutOfMemoryError:
        result["note"] = "out of memory"
    return result


def training(args, encoder, batch, device, peak):
    """Crops per second of whole optimizer steps."""
    config = config_of(args, encoder)
    learner = make_learner(config)
    images = torch.randint(0, 256, (batch, 1, 256, 512), dtype=torch.uint8)
    masks = torch.rand(batch, CLASSES, 256, 512).gt(0.95).to(torch.uint8)
    if device.type == "cuda":
        images, masks = images.pin_memory(), masks.pin_memory()

    def step():
        train_on(config, learner, [(images, masks, None)])

    rate = calls_per_second(step, device, args.seconds)
    # Counted on an uncompiled network: the counter sees operators, not kernels.
    network = make_learner(config_of(args, encoder, compiled=False)).model
    work = 3 * operations(network, images.to(device))
    return figures("training_crops", rate, batch, work, peak)


def prediction(args, encoder, batch, device, peak):
    """Strips per second from pixels to probabilities on the host."""
    model = make_learner(config_of(args, encoder)).model.eval()
    strips = np.random.default_rng(0).integers(0, 256, (batch, 256, 1600, 1), np.uint8)
    plan = ForwardPlan(amp=True)

    def step():
        predict_batch(model, strips, plan, device).probs_nchw.cpu()

    rate = calls_per_second(step, device, args.seconds)
    images = torch.from_numpy(strips).permute(0, 3, 1, 2).to(device)
    network = make_learner(config_of(args, encoder, compiled=False)).model.eval()
    return figures("prediction_strips", rate, batch, operations(network, images), peak)


def config_of(args, encoder, *, compiled=None):
    settings = {
        "model": {"arch": args.arch, "encoder": encoder, "encoder_weights": "none"},
        "train": {
            "compile": args.compile if compiled is None else compiled,
            "scheduler": "none",
            "pos_weight": (1.0,) * CLASSES,
            "save_minutes": 0,
        },
    }
    return build_config(settings, source="the benchmark")


def operations(network, images):
    """Floating-point operations of a forward pass."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return counter.get_total_flops()


def figures(name, rate, batch, work, peak):
    return {
        f"{name}_per_second": round(rate * batch, 2),
        f"{name}_tflops": round(rate * work / 1e12, 3),
        f"{name}_share_of_peak": round(rate * work / peak, 3),
    }


def matrix_peak(device, dtype):
    """The most operations per second that square matrix products reach."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 * max(calls_per_second(lambda: a @ b, device, 1.0) for _ in range(3))


def calls_per_second(call, device, seconds):
    """How often a function runs, once it is warm."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(3 if device.type == "cuda" else 1):
        call()
    wait()
    count, begin = 0, time.monotonic()
    while time.monotonic() - begin < seconds:
        call()
        count += 1
        wait()
    return count / (time.monotonic() - begin)


if __name__ == "__main__":
    main()
