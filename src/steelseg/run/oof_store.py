"""Storage of out-of-fold predictions: one zarr array per fold.

Probabilities are uint8 (probability times 255, rounded half up), one compressed chunk per strip,
written strip by strip, so memory does not grow with their number. Images of different sizes share
one array, padded with zeros to the largest. Attributes hold the size of each image, the SHA-256 of
the model, its flips and crops and, with a presence head, the presence of each class on each strip.
Probabilities are stored before any gate.

No torch, so readers do not need it.
"""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from steelseg.errors import CheckpointError
from steelseg.files.atomic import replacing, replacing_folder


def describe_plan(tta: str, crop: tuple[int, int, int] | None) -> str:
    """Describe flips and crops (height, width, stride) of predictions."""
    crops = "no crops" if crop is None else "crops of {}x{}, stride {}".format(*crop)
    return f"inference.tta={tta}, {crops}"


@contextmanager
def new_store(
    path: Path,
    *,
    image_ids: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    num_classes: int,
    model_sha256: str,
    plan: str = "",
) -> Iterator[Any]:
    """Open an array next to `path` that replaces it if the block ends without an error.

    Several processes may write the same store at once: each writes an array of its own, and the
    last one to finish is kept.

    Args:
        path: Folder of the zarr array.
        image_ids: The strips, in the order of the array.
        sizes: Height and width of each.
        num_classes: Classes C.
        model_sha256: SHA-256 of the model.
        plan: Its flips and crops, as in `describe_plan`; "" for a combined run.

    Yields:
        The array, shape (N, C, H, W), uint8, zero.
    """
    height, width = (max(side) for side in zip(*sizes, strict=True))
    with replacing_folder(path) as folder:
        yield zarr.create_array(
            store=str(folder),
            shape=(len(image_ids), num_classes, height, width),
            chunks=(1, num_classes, height, width),
            dtype="uint8",
            attributes={
                "image_ids": list(image_ids),
                "sizes": [list(size) for size in sizes],
                "model_sha256": model_sha256,
                "views": plan,
            },
        )


def read_oof(
    path: Path, *, only: Container[str] | None = None
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Read out-of-fold probabilities, strip by strip.

    Args:
        path: Folder of the zarr array.
        only: The image_ids to read; None reads all.

    Yields:
        image_id and probs_chw, shape (C, H, W), uint8: probability times 255.

    Raises:
        CheckpointError: if there are none.
    """
    array = open_oof(path)
    pairs = zip(array.attrs["image_ids"], array.attrs["sizes"], strict=True)
    for place, (image_id, (height, width)) in enumerate(pairs):
        if only is None or image_id in only:
            yield image_id, np.asarray(array[place])[:, :height, :width]


def oof_origin(path: Path) -> str:
    """Return what out-of-fold predictions were made with: SHA-256 of the model, flips and crops."""
    attrs = open_oof(path).attrs
    return f"{attrs['model_sha256']} {attrs.get('views', '')}"


def open_oof(path: Path) -> Any:
    """Open the array, or raise CheckpointError."""
    if not path.exists():
        raise CheckpointError(f"There is no {path}. Create it with: steelseg oof RUN.")
    return zarr.open_array(str(path), mode="r")


def write_npy(path: Path) -> Path:
    """Write the baseline's oof_predictions.npy next to `path`, strip by strip.

    Returns:
        The file: float32, shape (N, C, H, W), probabilities in [0, 1]; padding is 0.
    """
    array = open_oof(path)
    npy = path.with_name("oof_predictions.npy")
    with replacing(npy, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(array.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for place in range(array.shape[0]):
            file.write((np.asarray(array[place]) / np.float32(255)).astype("<f4").data)
    return npy
