"""What a fold is trained with: the settings turned into reader, network, validation."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from steelseg.config.config import Config
from steelseg.data.augment.geometric import CopyPasteSource
from steelseg.data.augment.steps import find_augmentation
from steelseg.data.crops import Box
from steelseg.data.folder import DataSet
from steelseg.data.formats.annotations import Labels
from steelseg.data.formats.images import read_image
from steelseg.data.samples.batch_mix import ExtraSamples
from steelseg.data.samples.dataset import (
    CropReader,
    EpochBatches,
    FolderReader,
    SampleDataset,
    list_samples,
)
from steelseg.data.samples.precropped_store import open_store
from steelseg.inference.forward import batches, forward_plan, images_at_once
from steelseg.models.build import build_network
from steelseg.models.checkpoint import Checkpoint
from steelseg.models.device import half_type, pick_device
from steelseg.models.libc import keep_freed_memory
from steelseg.models.losses import Loss, build_loss, classifier_loss
from steelseg.progress import progress as show
from steelseg.run.tuned_postprocess import gate_of, mask_maker, mask_settings
from steelseg.scoring.best_threshold_dice import BestThresholdDice
from steelseg.scoring.metrics import Scores
from steelseg.scoring.presence import PresenceTally, without_sizes
from steelseg.training.averaging import Average
from steelseg.training.fold import Validate, seed_batch
from steelseg.training.layer_rates import parameter_groups
from steelseg.training.loop import Learner, make_scaler, validate
from steelseg.training.optimizers import Schedule, build_optimizer
from steelseg.training.pseudo_samples import MarkedWindows, PseudoSamples, join_labels
from steelseg.training.sampling import sample_chances


def window_source(config: Config, labels: Labels) -> CropReader:
    """Where training windows come from in the chosen mode."""
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
    """The samples of a fold, and the order in which its epochs visit them."""
    data, train = config.data, config.train
    crop = None if data.mode == "full" else data.crop
    samples = list_samples(labels, image_ids, crop=crop)
    seed = train.seed + fold
    # Pseudo-labelled strips give no defects away, so that their share of a batch is what it says.
    copy_paste = CopyPasteSource(labels, image_ids, source.read)
    chances = sample_chances(
        labels,
        samples,
        sampling=train.sampling,
        hard_negatives=train.hard_negatives,
        hard_negative_weight=train.hard_negative_weight,
    )
    others, extra = _extra_samples(config, pseudo)
    if pseudo is not None:
        labels, source = join_labels(labels, pseudo), MarkedWindows(source, pseudo.source)
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
    """Windows of pseudo-labelled strips, and how they come into batches."""
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
        hard_negative_weight=0,
    )
    return samples, ExtraSamples(len(samples), train.pseudo_share, chances)


def losses(config: Config) -> tuple[Loss, Loss]:
    """The loss, and the one that follows it; the same where none does."""
    train = config.train
    if config.model.is_classifier:
        return (classifier_loss(train.presence_weight),) * 2
    first, later = (
        build_loss(
            text,
            pos_weight=config.pos_weight,
            focal_gamma=train.focal_gamma,
            tversky_alpha=train.tversky_alpha,
        )
        for text in (train.loss, train.later_loss or train.loss)
    )
    return first, later


def build_learner(
    config: Config,
    fold: int,
    *,
    num_batches: int,
    before: Checkpoint | None,
    fill: Callable[[nn.Module], None] = lambda _: None,
) -> Learner:
    """A fresh network with its optimizer; the seed gives the same one each time.

    Args:
        config: The settings.
        fold: Number of the fold.
        num_batches: Batches an epoch.
        before: The checkpoint that training goes on from, in the precision that it began in.
        fill: Gives a new network the weights to start from.
    """
    train, device = config.train, pick_device()
    if device.type == "cpu":
        keep_freed_memory()
    seed_batch(train.seed, fold, 0, 0)
    # A checkpoint brings its own weights, so nobody is asked for the encoder's.
    is_new = before is None and config.model.init_from is None
    model = build_network(config, is_new=is_new)
    if before is None:
        fill(model)
    model = model.to(device)
    average = None if train.average == "none" else Average(model)
    if train.compile:
        # In place, so the names of the weights stay; its CUDA graphs spare the launches.
        model.compile(mode="reduce-overhead" if device.type == "cuda" else "default")
    optimizer = build_optimizer(
        parameter_groups(
            model,
            learning_rate=train.learning_rate,
            encoder_rate=train.encoder_rate,
        ),
        name=train.optimizer,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        fused=device.type == "cuda",
    )
    steps = -(-num_batches // train.accumulate)
    schedule = Schedule(
        optimizer,
        name=train.scheduler,
        steps=train.epochs * steps,
        patience=train.patience,
    )
    half = _half_type(device, before) if train.amp else None
    return Learner(model, optimizer, schedule, make_scaler(device, half), device, half, average)


def _half_type(device: torch.device, before: Checkpoint | None) -> torch.dtype | None:
    """The half precision of a fold, as it was where it began on such a device."""
    begun_on, _, name = (before.state.get("precision", "") if before else "").partition(" ")
    if begun_on != device.type:
        return half_type(device)
    return None if name == "float32" else getattr(torch, name)


def validation_pass(
    config: Config,
    labels: Labels,
    image_ids: list[str],
    learner: Learner,
    loss: Loss,
    title: str,
) -> Validate:
    """A function that scores the network on the held-out strips."""
    folder, channels = DataSet(config.data.root).train_images, config.data.channels
    # Flips and full precision would lengthen every epoch; they come in with OOF and prediction.
    plan = replace(forward_plan(config), tta="none", amp=learner.half is not None)
    settings = mask_settings(config)
    by_presence = config.model.is_classifier
    if by_presence:
        settings = without_sizes(settings)

    def score_strips(after_batch: Callable[[], None]) -> tuple[float, Scores, dict[str, float]]:
        swept = BestThresholdDice() if config.train.monitor == "best_threshold_dice" else None
        tally = PresenceTally() if config.train.monitor == "presence" else None
        strips = batches(
            show(image_ids, len(image_ids), title),
            lambda image_id: read_image(folder / image_id, channels=channels),
            batch_size=images_at_once(config.train.batch_size_val, learner.device),
        )
        loss_value, scores = validate(
            learner.judged,
            strips,
            labels,
            loss,
            plan=plan,
            gate=gate_of(config, settings),
            binarize=mask_maker(settings),
            device=learner.device,
            after_batch=after_batch,
            by_presence=by_presence,
            swept=swept,
            tally=tally,
        )
        judges = {"val_best_threshold_dice": swept, "val_presence": tally}
        return loss_value, scores, {n: judge.result() for n, judge in judges.items() if judge}

    return score_strips
