"""Training steps per second with and without `keep_freed_memory`, in pairs of processes.

python benchmarks/allocator.py [--arch linknet --encoder tu-resnet10t --pairs 3]
"""

import argparse
import subprocess
import sys
import time


def crops_per_second(arch, encoder, keep):
    import torch

    from steelseg.models.libc import keep_freed_memory
    from steelseg.models.model import build_model

    if keep:
        keep_freed_memory()
    model = build_model(
        arch=arch,
        encoder=encoder,
        encoder_weights=None,
        channels=1,
        num_classes=4,
        mean=[0.449],
        std=[0.226],
    )
    images = torch.randint(0, 255, (8, 1, 256, 512), dtype=torch.uint8)
    model(images).mean().backward()
    begin = time.monotonic()
    for _ in range(4):
        model(images).mean().backward()
    return 4 * len(images) / (time.monotonic() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="linknet")
    parser.add_argument("--encoder", default="tu-resnet10t")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--keep", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.keep is not None:
        print(crops_per_second(args.arch, args.encoder, args.keep))
        return
    for _ in range(args.pairs):
        speed = [
            float(subprocess.check_output([sys.executable, *sys.argv, "--keep", str(keep)]))
            for keep in (0, 1)
        ]
        print(f"{speed[0]:.2f} -> {speed[1]:.2f} crops/s, {speed[1] / speed[0]:.2f}x", flush=True)


if __name__ == "__main__":
    main()
