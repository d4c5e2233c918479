"""A plain reading of the baseline, to hold ours against: crops decoded on the fly.

Written as most Kaggle kernels are, without needless slowness: for each sample OpenCV decodes the
whole JPEG in colour, the usual function decodes the mask of each class at full size, the crop is
cut from both, flipped, normalised to float32 and turned to tensors. torch's DataLoader calls it in
worker processes and collates.
"""

import csv
import random
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

NUM_CLASSES = 4
CROP_WIDTH = 512
CROP_STRIDE = 256
BATCH_SIZE = 8
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def read_rows(path):
    """Rows of train.csv in either form: RLE by image and class."""
    rows = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if "ImageId" in row:
                image_id, class_id = row["ImageId"], row["ClassId"]
            else:
                image_id, _, class_id = row["ImageId_ClassId"].rpartition("_")
            if row["EncodedPixels"]:
                rows.setdefault(image_id, {})[int(class_id)] = row["EncodedPixels"]
    return rows


def rle_decode(rle, height, width):
    """The usual Kaggle function."""
    numbers = rle.split()
    starts, lengths = (np.asarray(part, dtype=int) for part in (numbers[0::2], numbers[1::2]))
    starts -= 1
    mask = np.zeros(height * width, dtype=np.uint8)
    for start, end in zip(starts, starts + lengths, strict=True):
        mask[start:end] = 1
    return mask.reshape(width, height).T


def crop_lefts(width):
    """Left edges of the crops of a strip, the last one flush."""
    return [*range(0, width - CROP_WIDTH, CROP_STRIDE), width - CROP_WIDTH]


def normalize(image_hwc):
    """From 0 to 255 to what an ImageNet encoder expects, as albumentations.Normalize does."""
    image_hwc = image_hwc.astype(np.float32)
    image_hwc -= MEAN * 255
    image_hwc *= 1 / (STD * 255)
    return image_hwc


class CropDataset(Dataset):
    """Crops of strips, each with the decoding of its whole strip."""

    def __init__(self, root: Path, image_ids, *, flips=True):
        self.folder = root / "train_images"
        self.rows = read_rows(root / "train.csv")
        self.flips = flips
        self.crops = [
            (image_id, left)
            for image_id in image_ids
            for left in crop_lefts(cv2.imread(str(self.folder / image_id)).shape[1])
        ]

    def __len__(self):
        return len(self.crops)

    def __getitem__(self, index):
        image_id, left = self.crops[index]
        image = cv2.cvtColor(cv2.imread(str(self.folder / image_id)), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        mask = np.zeros((height, width, NUM_CLASSES), dtype=np.float32)
        for class_id, rle in self.rows.get(image_id, {}).items():
            mask[:, :, class_id - 1] = rle_decode(rle, height, width)
        image, mask = (array[:, left : left + CROP_WIDTH] for array in (image, mask))
        if self.flips:
            for axis in (1, 0):
                if random.random() < 0.5:
                    image, mask = np.flip(image, axis), np.flip(mask, axis)
        return tuple(
            torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
            for array in (normalize(image), mask)
        )
