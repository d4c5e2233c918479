"""Memory of prediction on few strips and on many, and its speed.

    python benchmarks/prediction_memory.py FOLDER [--few 100 --many 5000]
        [--arch linknet --encoder tu-test_resnet] [--threads 1] [--memory kept glibc]

Each count is predicted in a process of its own, over the images of FOLDER again and again, as
`steelseg predict` does but for the checkpoint: the network is new. Memory is the most that the
process ever held. `--memory` names what the C library does with freed blocks: `kept` is what
prediction asks of it, `glibc` how it comes.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path

MEMORY = ("kept", "glibc")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=5000)
    parser.add_argument("--arch", default="linknet")
    parser.add_argument("--encoder", default="tu-test_resnet")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", choices=MEMORY, nargs="+", default=["kept"])
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.count is not None:
        print(json.dumps(predict(args, args.memory[0], args.count)))
        return
    results = {}
    for memory in args.memory:
        few, many = (in_own_process(memory, count) for count in (args.few, args.many))
        results[memory] = {
            "few": few,
            "many": many,
            "more_mb": round(many["peak_mb"] - few["peak_mb"], 1),
        }
    print(json.dumps({"arch": args.arch, "encoder": args.encoder, **results}, indent=1))


def in_own_process(memory, count):
    """Predict so many strips in a new process; later words overrule the user's."""
    words = [*sys.argv[1:], "--memory", memory, "--count", str(count)]
    return json.loads(subprocess.check_output([sys.executable, __file__, *words]))


def predict(args, memory, count):
    import torch

    from steelseg.data import rle
    from steelseg.data.images import list_images, read_image
    from steelseg.inference.forward import ForwardPlan, batches, predict_batch
    from steelseg.models.allocator import keep_freed_memory
    from steelseg.models.model import build_model

    if memory == "kept":
        keep_freed_memory()
    torch.set_num_threads(args.threads)
    model = build_model(
        arch=args.arch,
        encoder=args.encoder,
        encoder_weights=None,
        channels=1,
        num_classes=4,
        mean=[0.449],
        std=[0.226],
    ).eval()
    image_ids = islice(cycle(list_images(args.folder)), count)
    strips = batches(
        image_ids,
        lambda image_id: read_image(args.folder / image_id, channels=1),
        batch_size=args.batch_size,
    )
    wall, busy = time.monotonic(), time.process_time()
    for _, images_nhwc in strips:
        answer = predict_batch(model, images_nhwc, ForwardPlan(), torch.device("cpu"))
        probs_nchw = answer.probs_nchw.numpy()
        for mask in (probs_nchw > 0.9).reshape(-1, *probs_nchw.shape[2:]):
            rle.encode(mask)
    wall, busy = time.monotonic() - wall, time.process_time() - busy
    return {
        "strips": count,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "strips_per_s": round(count / wall, 2),
        "strips_per_processor_s": round(count / busy, 2),
    }


if __name__ == "__main__":
    main()
