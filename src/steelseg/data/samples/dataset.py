"""Training samples, created one batch at a time.

A sample is one crop (or one whole strip) of one image. A batch is images_nchw uint8, masks_nchw
uint8 0/1 of shape (N, C, H, W) and, if sizes differ, valid_nchw bool of shape (N, 1, H, W), True
for pixels of the image; the others repeat the edge. Pixels are written once, directly into the
batch. The network normalises. Samples are identified by (pass, index), and all randomness is
derived from these two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from steelseg.data.augment.steps import Augmentation, needs_processes
from steelseg.data.crops import Box, crop_around_defect, crop_boxes
from steelseg.data.formats.annotations import Labels
from steelseg.data.formats.images import read_image
from steelseg.data.samples.batch_buffers import BatchMemory
from steelseg.data.samples.batch_mix import ExtraSamples, plan_batches

SampleKey = tuple[int, int]
"""Number of the pass over all samples, and index of the sample."""

Batch = tuple[Tensor, Tensor, Tensor | None]
"""images_nchw, masks_nchw and valid_nchw; None if all samples have the same size."""

Sample = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""image_chw and mask_chw."""


class CropReader(Protocol):
    """Reads crops of images: a `Store` or a `FolderReader`."""

    @property
    def channels(self) -> int:
        """Channels of the images, 1 or 3."""

    def read(self, image_id: str, box: Box) -> NDArray[np.uint8]:
        """Read one crop, shape (h, w, channels)."""


@dataclass(frozen=True)
class FolderReader:
    """Reads crops from image files, decoding the whole file each time."""

    folder: Path
    channels: int

    def read(self, image_id: str, box: Box) -> NDArray[np.uint8]:
        """Read one crop, shape (h, w, channels)."""
        image_hwc = read_image(self.folder / image_id, channels=self.channels)
        return image_hwc[box.top : box.top + box.height, box.left : box.left + box.width]


def list_samples(
    labels: Labels, image_ids: Sequence[str], *, crop: tuple[int, int, int] | None
) -> list[tuple[str, Box]]:
    """List the samples of one epoch, as image_id and position of the crop.

    Args:
        labels: Provides the image sizes.
        image_ids: The images to use.
        crop: Height, width and stride of the crops; None uses whole images.
    """
    samples = []
    for image_id in image_ids:
        height, width = labels.sizes[image_id]
        high, wide, stride = crop or (height, width, 1)
        boxes = crop_boxes(height, width, crop_height=high, crop_width=wide, crop_stride=stride)
        samples += [(image_id, box) for box in boxes]
    return samples


class SampleDataset(Dataset[Batch]):
    """Augmented crops of strips with their masks."""

    def __init__(
        self,
        labels: Labels,
        samples: Sequence[tuple[str, Box]],
        reader: CropReader,
        *,
        augmentation: Augmentation,
        seed: int,
        centre_defects: float = 0.0,
    ) -> None:
        """Store the arguments; nothing is read.

        Args:
            labels: The masks.
            samples: Crops, as returned by `list_samples`.
            reader: Reads their pixels.
            augmentation: Applied to each sample.
            seed: Seed of all randomness, together with the key of the sample.
            centre_defects: Probability to move a crop with a defect around one of its pixels.
        """
        self._labels = labels
        self._samples = samples
        self._reader = reader
        self._augmentation = augmentation
        self._seed = seed
        self._centre_defects = centre_defects
        self._memory = BatchMemory()

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def needs_processes(self) -> bool:
        """Whether samples must be created in processes, because of a custom augmentation."""
        return needs_processes(self._augmentation)

    def __getitem__(self, keys: Sequence[SampleKey]) -> Batch:
        """Create the samples of these keys."""
        return self.make(keys)

    def make(self, keys: Sequence[SampleKey], *, pin_memory: bool = False) -> Batch:
        """Create the samples of these keys, in pinned memory if `pin_memory`."""
        sizes = [self._samples[index][1][2:] for _, index in keys]
        if self.needs_processes:
            made = [self._draw(key, self._new(size)) for key, size in zip(keys, sizes, strict=True)]
            batch, targets = self._new_batch([mask.shape[1:] for _, mask in made], pin_memory)
            for target, sample in zip(targets, made, strict=True):
                for target_chw, source_chw in zip(target, sample, strict=True):
                    np.copyto(target_chw, source_chw)
        else:
            batch, targets = self._new_batch(sizes, pin_memory)
            for key, target in zip(keys, targets, strict=True):
                self._draw(key, target)
        if batch[2] is not None:
            _repeat_edges(batch, targets)
        return batch

    def _new(self, size: tuple[int, int]) -> Sample:
        """Allocate the arrays of one sample."""
        image_chw = np.empty((self._reader.channels, *size), np.uint8)
        return image_chw, np.empty((self._labels.num_classes, *size), np.uint8)

    def _new_batch(
        self, sizes: Sequence[tuple[int, ...]], pin_memory: bool
    ) -> tuple[Batch, list[Sample]]:
        """Allocate a batch for samples of these sizes; return views of each sample too."""
        height, width = map(max, zip(*sizes, strict=True))
        planes = [self._reader.channels, self._labels.num_classes]
        if len(set(sizes)) > 1:
            planes.append(1)
        images, masks, *valid = self._memory.new(
            *[(len(sizes), count, height, width) for count in planes], pin_memory=pin_memory
        )
        targets = [
            (image_chw[:, :high, :wide], mask_chw[:, :high, :wide])
            for image_chw, mask_chw, (high, wide) in zip(
                images.numpy(), masks.numpy(), sizes, strict=True
            )
        ]
        return (images, masks, valid[0].view(torch.bool) if valid else None), targets

    def _draw(self, key: SampleKey, target: Sample) -> Sample:
        """Read a sample into `place` and augment it; custom augmentations return new arrays."""
        image_chw, mask_chw = target
        image_id, box = self._samples[key[1]]
        if self._centre_defects:
            box = self._recentre(key, image_id, box)
        _write(image_chw, self._reader.read(image_id, box))
        self._labels.draw_into(mask_chw, image_id, box)
        return self._augmentation(image_chw, mask_chw, np.random.default_rng([self._seed, *key]))

    def _recentre(self, key: SampleKey, image_id: str, box: Box) -> Box:
        """Move the crop around one of its defect pixels with probability `centre_defects`."""
        # A separate generator, so that the augmentation draws the same numbers as without it.
        rng = np.random.default_rng([self._seed, *key, 1])
        if rng.random() >= self._centre_defects:
            return box
        return crop_around_defect(
            box, self._labels.draw(image_id, box), self._labels.sizes[image_id], rng
        )


def _write(image_chw: NDArray[np.uint8], image_hwc: NDArray[np.uint8]) -> None:
    """Copy pixels, row-major or column-major, with OpenCV: ten times as fast as numpy."""
    by_column = image_hwc.strides[0] < image_hwc.strides[1]
    image_whc = image_hwc.transpose(1, 0, 2)
    if len(image_chw) > 1:
        cv2.split(cv2.transpose(image_whc) if by_column else image_hwc, list(image_chw))
    elif by_column:
        cv2.transpose(image_whc[..., 0], image_chw[0])
    else:
        np.copyto(image_chw[0], image_hwc[..., 0])


def _repeat_edges(batch: Batch, targets: Sequence[Sample]) -> None:
    """Pad each sample with its last row and column, and set valid_nchw."""
    images, masks, valid = (np.asarray(tensor) for tensor in batch)
    valid.fill(False)
    for number, (_, target) in enumerate(targets):
        high, wide = target.shape[1:]
        valid[number, 0, :high, :wide] = True
        for array_chw in (images[number], masks[number]):
            array_chw[:, :high, wide:] = array_chw[:, :high, wide - 1 : wide]
            array_chw[:, high:] = array_chw[:, high - 1 : high]


class EpochBatches(Sampler[list[SampleKey]]):
    """Batches of consecutive epochs; the order depends only on seed and epoch."""

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int,
        chances: NDArray[np.float64] | None = None,
        extra: ExtraSamples | None = None,
        passes: int = 1,
    ) -> None:
        """Start at the first batch of epoch 1; set `epoch` and `begin` to start elsewhere.

        Args:
            num_samples: Samples per pass.
            batch_size: Samples per batch.
            seed: Seed of the order.
            chances: Sampling weight of each sample; None uses each sample once.
            extra: Additional samples, with indices from `num_samples` on.
            passes: Passes over the samples per epoch, each in a different order.
        """
        self._num_samples = num_samples
        self._chances = chances
        self._extra = extra
        self._batches = plan_batches(num_samples, extra, batch_size=batch_size)
        self._passes = passes
        self._seed = seed
        self.epoch = 1
        self.begin = 0

    def __iter__(self) -> Iterator[list[SampleKey]]:
        skipped, begin = divmod(self.begin, len(self._batches))
        for number in range(skipped, self._passes):
            # Numbered consecutively, so that n epochs of two passes equal 2n epochs of one.
            yield from self._one_pass((self.epoch - 1) * self._passes + number + 1, begin)
            begin = 0

    def _one_pass(self, number: int, begin: int) -> Iterator[list[SampleKey]]:
        """Yield the batches of one pass, from batch `begin` on."""
        order = _draw(np.random.default_rng([self._seed, number]), self._num_samples, self._chances)
        extra = order[:0]
        if self._extra is not None:
            # A separate generator, so that the order of regular samples stays as without these.
            rng = np.random.default_rng([self._seed, number, 1])
            extra = _draw(rng, self._extra.num_samples, self._extra.chances) + self._num_samples
        ends = np.cumsum(self._batches, axis=0)
        for batch in range(begin, len(self._batches)):
            parts = zip((order, extra), ends[batch], self._batches[batch], strict=True)
            indices = np.concatenate([part[end - count : end] for part, end, count in parts])
            yield [(number, int(index)) for index in indices]

    def __len__(self) -> int:
        return self._passes * len(self._batches)


def _draw(
    rng: np.random.Generator, count: int, chances: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """Return all samples in random order, or as many drawn by their weights.

    Systematic resampling (Kitagawa, 1996): a sample with probability p is drawn count x p times,
    rounded up or down at random. With independent draws, a third of samples with equal weights
    would be missing.
    """
    order = rng.permutation(count)
    if chances is None:
        return order
    sums = np.cumsum(chances[order])
    marks = (rng.random() + np.arange(count)) * (sums[-1] / count)
    # Rounding may carry the last mark beyond the last sample with a weight above 0.
    drawn = np.minimum(np.searchsorted(sums, marks, side="right"), np.argmax(sums))
    return rng.permutation(order[drawn])
