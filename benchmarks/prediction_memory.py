"""Memory of prediction on few strips and on many, and its speed.

    python benchmarks/prediction_memory.py FOLDER [--few 100 --many 5000] [--rounds 12]
        [--source RUN] [--arch linknet --encoder tu-test_resnet] [--threads 1]

Each count is predicted in a process of its own, over the images of FOLDER again and again, as
`steelseg predict` does, masks and rows included. `--source` is what predict takes, such as a
bundle; without it the network is new. Memory is the most that the process ever held. How threads
meet moves it by 64 MB (a heap of glibc's for a thread) between processes that do the same, so the
few are predicted in several processes, of which the highest counts; the many have time to meet.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--arch", default="linknet")
    parser.add_argument("--encoder", default="tu-test_resnet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.count is not None:
        print(json.dumps(predict(args)))
        return
    rounds = [in_own_process(args.few) for _ in range(args.rounds)]
    few, many = max(rounds, key=lambda each: each["peak_mb"]), in_own_process(args.many)
    answer = {
        "source": str(args.source or f"{args.arch}/{args.encoder}"),
        "few": few,
        "few_peaks_mb": [each["peak_mb"] for each in rounds],
        "many": many,
        "more_mb": round(many["peak_mb"] - few["peak_mb"], 1),
    }
    print(json.dumps(answer, indent=1))


def in_own_process(count):
    """Predict so many strips in a new process; later words overrule the user's."""
    words = [*sys.argv[1:], "--count", str(count)]
    return json.loads(subprocess.check_output([sys.executable, __file__, *words]))


def predict(args):
    """Predict `args.count` strips."""
    import torch

    from steelseg import Predictor
    from steelseg.data.formats import rle
    from steelseg.data.formats.images import list_images, read_image

    torch.set_num_threads(args.threads)
    with TemporaryDirectory() as work:
        predictor = Predictor(args.source or new_network(args, Path(work)))
    channels = predictor.config.data.channels
    image_ids = islice(cycle(list_images(args.folder)), args.count)
    wall, busy = time.monotonic(), time.process_time()
    strips = predictor.stream(image_ids, lambda i: read_image(args.folder / i, channels=channels))
    for _, _, mask_chw, _ in strips:
        for mask_hw in mask_chw:
            rle.encode(mask_hw)
    wall, busy = time.monotonic() - wall, time.process_time() - busy
    return {
        "strips": args.count,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "strips_per_s": round(args.count / wall, 2),
        "strips_per_processor_s": round(args.count / busy, 2),
    }


def new_network(args, folder):
    """A checkpoint that was never trained; at a high threshold it shows little."""
    from steelseg.config.load import build_config
    from steelseg.models.build import build_network
    from steelseg.models.checkpoint import Checkpoint, save_checkpoint

    lines = [f"model.arch={args.arch}", f"model.encoder={args.encoder}"]
    lines += ["model.encoder_weights=none", "postprocess.threshold=0.9"]
    config = build_config({}, lines, source="the benchmark")
    path = folder / "new.safetensors"
    state = {"config": config.model_dump(mode="json"), "fold": 0, "epoch": 0, "dice": 0.0}
    save_checkpoint(path, Checkpoint(build_network(config).state_dict(), {}, state))
    return path


if __name__ == "__main__":
    main()
