"""Training samples as tensors.

A sample is one crop (or one whole strip) of one image: `image_chw` uint8, shape
(channels, h, w), and `mask_chw` uint8 0/1, shape (C, h, w). Normalisation belongs to the
network. Samples are asked for by (epoch, index), and all randomness follows from those two.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from steelseg.data.annotations import Labels
from steelseg.data.crops import Box, crop_boxes
from steelseg.data.images import read_image
from steelseg.data.store import Store
from steelseg.data.transforms import Augmentation

Key = tuple[int, int]
"""Epoch and index of a sample."""

ReadWindow = Callable[[str, Box], NDArray[np.uint8]]
"""Reads a window of an image: (h, w, channels) uint8."""


@dataclass(frozen=True)
class FolderReader:
    """Reads windows out of image files, decoding the whole file each time."""

    folder: Path
    channels: int

    def __call__(self, image_id: str, box: Box) -> NDArray[np.uint8]:
        """Read one window, shape (h, w, channels)."""
        image_hwc = read_image(self.folder / image_id, channels=self.channels)
        return image_hwc[box.top : box.top + box.height, box.left : box.left + box.width]


def list_samples(
    labels: Labels, image_ids: Sequence[str], *, crop: tuple[int, int, int] | None
) -> list[tuple[str, Box]]:
    """List the windows that an epoch visits.

    Args:
        labels: Holds the sizes.
        image_ids: The images to take.
        crop: Height, width and stride of the crops; None takes whole images.
    """
    samples = []
    for image_id in image_ids:
        height, width = labels.sizes[image_id]
        high, wide, stride = crop or (height, width, 1)
        boxes = crop_boxes(height, width, crop_height=high, crop_width=wide, crop_stride=stride)
        samples += [(image_id, box) for box in boxes]
    return samples


def balanced_chances(labels: Labels, samples: Sequence[tuple[str, Box]]) -> NDArray[np.float64]:
    """Chances by which clean samples and samples of each class are drawn equally often.

    A sample that shows several classes counts for the rarest of them.

    Args:
        labels: Holds the masks.
        samples: Windows, as `list_samples` gives them.

    Returns:
        Chance of each sample; they add up to 1.
    """
    shown = np.array([labels.draw(*sample).any(axis=(1, 2)) for sample in samples])
    frequency = shown.sum(axis=0)
    rarest = np.where(shown, frequency, len(samples) + 1).argmin(axis=1)
    group = np.where(shown.any(axis=1), rarest, labels.num_classes)
    sizes = np.bincount(group, minlength=labels.num_classes + 1)
    return 1 / (sizes[group] * np.count_nonzero(sizes))


class SampleDataset(Dataset[tuple[Tensor, Tensor]]):
    """Windows of strips with their masks, augmented."""

    def __init__(
        self,
        labels: Labels,
        samples: Sequence[tuple[str, Box]],
        read_window: ReadWindow | Store,
        *,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        """Hold what is needed to make any sample; nothing is read yet."""
        self._labels = labels
        self._samples = samples
        self._read = read_window.read if isinstance(read_window, Store) else read_window
        self._augmentation = augmentation
        self._seed = seed

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        """Make sample `index` of epoch `epoch`.

        Returns:
            image_chw uint8 and mask_chw uint8.
        """
        epoch, index = key
        image_id, box = self._samples[index]
        rng = np.random.default_rng([self._seed, epoch, index])
        image_hwc, mask_hwc = self._augmentation(
            self._read(image_id, box), self._labels.draw(image_id, box).transpose(1, 2, 0), rng
        )
        return _to_chw(image_hwc), _to_chw(mask_hwc.view(np.uint8))


def _to_chw(array_hwc: NDArray[np.uint8]) -> Tensor:
    """Copy into a tensor of its own: views of a memory map or a flip cannot be shared."""
    return torch.from_numpy(np.ascontiguousarray(array_hwc.transpose(2, 0, 1)).copy())


class EpochBatches(Sampler[list[Key]]):
    """Batches of one epoch after the other; the order follows from seed and epoch alone."""

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int,
        chances: NDArray[np.float64] | None = None,
    ) -> None:
        """Start at epoch 0 and its first batch; set `epoch` and `begin` for others.

        Args:
            num_samples: Samples an epoch.
            batch_size: Samples a batch.
            seed: Of the order.
            chances: Chance of each sample to be drawn, with replacement; None takes each once.
        """
        self._num_samples = num_samples
        self._chances = chances
        self._batch_size = batch_size
        self._seed = seed
        self.epoch = 0
        self.begin = 0

    def __iter__(self) -> Iterator[list[Key]]:
        rng = np.random.default_rng([self._seed, self.epoch])
        order = rng.permutation(self._num_samples)
        if self._chances is not None:
            order = rng.choice(self._num_samples, size=self._num_samples, p=self._chances)
        for batch in range(self.begin, len(self)):
            part = order[batch * self._batch_size : (batch + 1) * self._batch_size]
            yield [(self.epoch, int(index)) for index in part]

    def __len__(self) -> int:
        whole, rest = divmod(self._num_samples, self._batch_size)
        # Batch normalisation has no variance over one sample, so a last single one sits out.
        return whole + (rest > 1 or whole == 0)


def collate(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Stack samples; where sizes differ, repeat edges and mark what is image.

    Returns:
        images_nchw uint8, masks_nchw uint8 and, if any sample was padded, valid_nchw bool of
        shape (N, 1, H, W): True on pixels of the image.
    """
    images, masks = zip(*samples, strict=True)
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    if all(image.shape[1:] == (height, width) for image in images):
        return torch.stack(images), torch.stack(masks), None
    valid = torch.zeros(len(images), 1, height, width, dtype=torch.bool)
    for flags, image in zip(valid, images, strict=True):
        flags[:, : image.shape[1], : image.shape[2]] = True
    padded = [torch.stack([_pad(t, height, width) for t in group]) for group in (images, masks)]
    return padded[0], padded[1], valid


def _pad(tensor_chw: Tensor, height: int, width: int) -> Tensor:
    """Repeat the last row and column until the size is reached."""
    rows = torch.arange(height).clamp(max=tensor_chw.shape[1] - 1)
    columns = torch.arange(width).clamp(max=tensor_chw.shape[2] - 1)
    return tensor_chw[:, rows][:, :, columns]
