"""The training samples of a fold, built from the settings."""

from steelseg.config.config import Config
from steelseg.data.augment.geometric import CopyPasteSource
from steelseg.data.augment.steps import find_augmentation
from steelseg.data.crops import Box
from steelseg.data.folder import DataSet
from steelseg.data.formats.annotations import Labels
from steelseg.data.samples.batch_mix import ExtraSamples
from steelseg.data.samples.dataset import (
    CropReader,
    EpochBatches,
    FolderReader,
    SampleDataset,
    list_samples,
)
from steelseg.data.samples.precropped_store import open_store
from steelseg.training.pseudo_samples import MarkedCrops, PseudoSamples, join_labels
from steelseg.training.sampling import sample_chances


def open_reader(config: Config, labels: Labels) -> CropReader:
    """Open the reader of training samples for data.mode."""
    data = config.data
    if data.mode == "precropped":
        return open_store(
            data.precropped_dir,
            root=data.root,
            image_ids=list(labels.sizes),
            channels=data.channels,
        )
    return FolderReader(DataSet(data.root).train_images, data.channels)


def training_samples(
    config: Config,
    labels: Labels,
    image_ids: list[str],
    source: CropReader,
    fold: int,
    pseudo: PseudoSamples | None = None,
) -> tuple[SampleDataset, EpochBatches]:
    """Return the samples of a fold, and the order in which its epochs visit them."""
    data, train = config.data, config.train
    crop = None if data.mode == "full" else data.crop
    samples = list_samples(labels, image_ids, crop=crop)
    seed = train.seed + fold
    # Defects are pasted from labelled strips only, so that pseudo_share holds.
    copy_paste = CopyPasteSource(labels, image_ids, source.read)
    chances = sample_chances(
        labels,
        samples,
        sampling=train.sampling,
        hard_negatives=train.hard_negatives,
    )
    others, extra = _extra_samples(config, pseudo)
    if pseudo is not None:
        labels, source = join_labels(labels, pseudo), MarkedCrops(source, pseudo.source)
    dataset = SampleDataset(
        labels,
        samples + others,
        source,
        augmentation=find_augmentation(train.augmentation, copy_paste=copy_paste),
        seed=seed,
        centre_defects=train.centre_defects,
    )
    order = EpochBatches(
        len(samples),
        train.batch_size_train,
        seed=seed,
        chances=chances,
        extra=extra,
        passes=train.passes,
    )
    return dataset, order


def _extra_samples(
    config: Config, pseudo: PseudoSamples | None
) -> tuple[list[tuple[str, Box]], ExtraSamples | None]:
    """Return the samples of pseudo-labelled strips, and how they are mixed into batches."""
    if pseudo is None:
        return [], None
    data, train = config.data, config.train
    crop = None if data.mode == "full" else data.crop
    samples = list_samples(pseudo.labels, list(pseudo.labels.sizes), crop=crop)
    if train.sampling == "positives":
        samples = [sample for sample in samples if pseudo.labels.draw(*sample).any()]
    if not samples:
        return [], None
    chances = sample_chances(
        pseudo.labels,
        samples,
        sampling=train.sampling,
        hard_negatives=None,
    )
    return samples, ExtraSamples(len(samples), train.pseudo_share, chances)
