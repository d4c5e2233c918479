"""Load an exported network of any format, as a network like those of torch.

An exported network is called like a `StripNet`: pixels of any size in, float32 logits of the same
size out, and presence logits if it has a presence head. The images of a batch are computed in
parallel but separately, so the other images in a batch do not change a bit of a result, and any
number of threads may call at once. The number of CPU cores is that of torch: `OMP_NUM_THREADS` and
`torch.set_num_threads` apply here too.

Only the files of the network are read. Callers verify that they are the ones that were exported
(`export.exported`).
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelseg.config.export_formats import EXPORT_FORMATS
from steelseg.errors import CheckpointError, ConfigError
from steelseg.inference.backends.backend import load_backend
from steelseg.inference.forward import Network
from steelseg.models.model import Output, at_multiples


def load_exported(path: Path, *, multiple: int, amp: bool) -> Network:
    """Load an exported network.

    Args:
        path: The file to load; other files of the network are next to it.
        multiple: The number that the network's input sizes must be multiples of.
        amp: Whether to use half precision, if backend and machine support it.

    Returns:
        The network, which threads may share.

    Raises:
        CheckpointError: if a file is missing, damaged, or would read another file.
        ConfigError: if the format is unknown, or its backend is not installed.
    """
    formats = {format.suffixes[0]: name for name, format in EXPORT_FORMATS.items()}
    if path.suffix not in formats:
        raise ConfigError(
            f"{path} is not an exported network. Expected a file that ends in {', '.join(formats)}."
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such export. Make it: steelseg export RUN.")
    loaded = load_backend(formats[path.suffix]).load(path, amp=amp)
    pool = ThreadPoolExecutor(loaded.threads)

    def core(images_nchw: Tensor) -> Output:
        _refuse_size(path, images_nchw.shape[-2:], loaded.size)
        images = images_nchw.cpu().contiguous().numpy()
        gathered = _Gathered(len(images))

        def one(place: int) -> None:
            gathered.put(place, loaded.infer(images[place : place + 1]))

        for _ in pool.map(one, range(len(images))):
            pass
        logits_nchw, *presence = (torch.from_numpy(part) for part in gathered.parts)
        return (logits_nchw, presence[0]) if presence else logits_nchw

    return lambda images_nchw: at_multiples(core, images_nchw, multiple=multiple)


class _Gathered:
    """The results of a batch, each stored in its place by the thread that computed it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self.parts: list[NDArray[np.float32]] = []

    def put(self, place: int, answer: list[NDArray[np.float32]]) -> None:
        """Copy the result of one image."""
        with self._lock:
            if not self.parts:
                self.parts = [np.empty((self._count, *p.shape[1:]), np.float32) for p in answer]
        for part, own in zip(self.parts, answer, strict=True):
            part[place] = own[0]


def _refuse_size(path: Path, size: tuple[int, ...], fixed: tuple[int | None, int | None]) -> None:
    """Raise ConfigError unless a file accepts images of this size."""
    if any(side not in (None, own) for own, side in zip(size, fixed, strict=True)):
        high, wide = ("any" if side is None else side for side in fixed)
        raise ConfigError(
            f"{path} accepts images of {high}x{wide}, not of {size[0]}x{size[1]}. "
            "Export for any size: steelseg export RUN, without --fixed-size."
        )
