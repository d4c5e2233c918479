"""The training stage: folds of a run, one after the other.

Reads  data.root, the precropped store in mode precropped
Writes RUN/folds.csv, RUN/fold_K/best_model.safetensors, last/, history.csv
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from steelseg.config.config import Config
from steelseg.data.augment.steps import find_augmentation
from steelseg.data.checks.check import inspect_data, load_labels, refuse_faults
from steelseg.data.folds import assign_folds, fingerprint, read_folds, write_folds
from steelseg.data.formats.annotations import Labels
from steelseg.data.samples.dataset import CropReader
from steelseg.errors import ConfigError
from steelseg.models.build import build_network
from steelseg.run.kinds import refuse_combined
from steelseg.run.run_folder import RunFolder, create_run
from steelseg.scoring.metrics import Scores, never_found, table
from steelseg.scoring.presence import COLUMNS
from steelseg.signals import StopNote, noting_signals
from steelseg.training.epoch_runner import Epochs
from steelseg.training.fold import FoldFiles, Origin, is_done, monitored, run_epochs
from steelseg.training.loader import BatchLoader
from steelseg.training.pseudo_samples import (
    PseudoSamples,
    load_pseudo_samples,
    with_pseudo_labels,
)
from steelseg.training.resume import pick_up, settings_difference
from steelseg.training.sampling import with_negatives
from steelseg.training.setup import (
    build_learner,
    losses,
    training_samples,
    validation_pass,
    window_source,
)
from steelseg.training.warm_start import start_from

AfterEpoch = Callable[[int, Mapping[str, float]], None]
"""Told the fold and its row of history.csv after each epoch, once that is saved; of a fold that
resumes, also of the epochs before. What it raises ends the training, which can be resumed."""


def train_run(
    config: Config,
    path: Path,
    *,
    folds: Sequence[int] | None = None,
    go_on: bool = False,
    checkpoint: Path | None = None,
    after_epoch: AfterEpoch = lambda _fold, _row: None,
) -> None:
    """Train folds of a run.

    Args:
        config: The settings.
        path: The run folder; it is made once the data set has passed.
        folds: Which folds; None trains all.
        go_on: Resume folds that were begun and skip those that are done.
        checkpoint: Resume the one fold of `folds` from this file.
        after_epoch: Told of each epoch; may end the training.

    Raises:
        ConfigError: if a fold does not exist, or was trained already and `go_on` is False, or the
            folder holds a combined run.
        DataError: if the data set has a fault or the store does not fit it.
        CheckpointError: if a checkpoint does not fit the settings.
        TrainingError: if a loss is not a number.
        Stopped: on Ctrl-C or SIGTERM, once the fold is saved.
    """
    folds = choose_folds(folds, config.data.num_folds)
    refuse_combined(RunFolder(path), "Choose another --out to train.")
    _refuse_used(config, RunFolder(path), folds, go_on=go_on or checkpoint is not None)
    run = RunFolder(path)
    labels, groups = _read_labels(config, run)
    source = window_source(config, labels)
    fold_of = _settle_folds(config, run, labels, groups)
    # What the last fold would be refused for shows before the first is trained.
    pseudo = {
        fold: load_pseudo_samples(config, labels, fold, held_out=_held_out(labels, fold_of, fold))
        for fold in folds
    }
    if run.config_yaml.exists():
        # What may change on the way holds for the later stages too.
        run.keep_config(config)
    else:
        # What cannot be trained shows now: mended settings do not fit a folder of the old ones.
        find_augmentation(config.train.augmentation)
        with_negatives("", config.train.hard_negatives)
        model = build_network(config, is_new=config.model.init_from is None)
        if config.model.init_from is not None:
            for fold in folds:
                held_out = _held_out(labels, fold_of, fold)
                start_from(model, config.model.init_from, fold=fold, held_out=held_out)
        create_run(path, config)
    if not run.folds_csv.exists():
        write_folds(run.folds_csv, fold_of, _present(labels), groups)
    if config.model.encoder.startswith("mit_"):
        run.warn(f"the licence of {config.model.encoder} forbids commercial use.")
    for fold in folds:
        _train_fold(
            *(config, run, labels, fold_of, fold),
            source=source,
            pseudo=pseudo[fold],
            checkpoint=checkpoint,
            after_epoch=after_epoch,
        )


def deal_folds(config: Config, run: RunFolder) -> None:
    """Write folds.csv of a run that has none, as its training would.

    Raises:
        DataError: if the data set has a fault.
        ConfigError: if the folds cannot be dealt.
    """
    if run.folds_csv.exists():
        return
    labels, groups = _read_labels(config, run)
    fold_of = _settle_folds(config, run, labels, groups)
    write_folds(run.folds_csv, fold_of, _present(labels), groups)


def _read_labels(config: Config, run: RunFolder) -> tuple[Labels, dict[str, str]]:
    """The labels of a data set, and which strips look alike where the folds are yet to be dealt."""
    if run.folds_csv.exists():
        # Folds that are dealt need no search for strips that look alike.
        return load_labels(config.data), {}
    inspection = refuse_faults(config.data.root, inspect_data(config.data))
    return inspection.labels, inspection.groups


def _refuse_used(config: Config, run: RunFolder, folds: Sequence[int], *, go_on: bool) -> None:
    """Raise unless the run folder is new, or holds the same settings and nothing to overwrite."""
    if not run.config_yaml.exists():
        return
    if odd := settings_difference(run.load_config(to_train=True), config):
        raise ConfigError(f"{run.path} holds a run with {odd}. Choose another --out.")
    for fold in folds:
        if run.fold(fold).exists() and not go_on:
            raise ConfigError(
                f"{run.fold(fold)} holds a fold already. Use --resume, or another --out."
            )


def choose_folds(folds: Sequence[int] | None, num_folds: int) -> list[int]:
    """All folds, or those named.

    Raises:
        ConfigError: if a named fold does not exist.
    """
    for fold in folds or ():
        if not 0 <= fold < num_folds:
            raise ConfigError(
                f"--fold {fold}: data.num_folds={num_folds} makes folds 0 to {num_folds - 1}."
            )
    return sorted(set(folds)) if folds else list(range(num_folds))


def _settle_folds(
    config: Config, run: RunFolder, labels: Labels, groups: dict[str, str]
) -> dict[str, int]:
    """Read folds.csv, or deal the folds."""
    num_folds = config.data.num_folds
    if run.folds_csv.exists():
        return read_folds(run.folds_csv, image_ids=list(labels.sizes), num_folds=num_folds)
    given = config.data.fold_seed
    seed = config.train.seed if given is None else given
    fold_of = assign_folds(_present(labels), num_folds=num_folds, seed=seed, groups=groups)
    if len(set(fold_of.values())) < num_folds:
        raise ConfigError(
            f"data.num_folds={num_folds} leaves a fold empty, because strips that look alike stay "
            "together. Use fewer folds, or data.group_duplicates=false."
        )
    return fold_of


def _present(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Class ids that each image shows."""
    return {image_id: labels.class_ids(image_id) for image_id in labels.sizes}


def _held_out(labels: Labels, fold_of: dict[str, int], fold: int) -> list[str]:
    """The strips that a fold does not train on."""
    return [image_id for image_id in labels.sizes if fold_of[image_id] == fold]


def _train_fold(
    config: Config,
    run: RunFolder,
    labels: Labels,
    fold_of: dict[str, int],
    fold: int,
    *,
    source: CropReader,
    pseudo: PseudoSamples | None,
    checkpoint: Path | None,
    after_epoch: AfterEpoch,
) -> None:
    """Train one fold from where it stands."""
    train, files = config.train, FoldFiles(run.fold(fold))
    train_ids = [image_id for image_id in labels.sizes if fold_of[image_id] != fold]
    val_ids = _held_out(labels, fold_of, fold)
    dataset, order = training_samples(config, labels, train_ids, source, fold, pseudo)
    seen = with_negatives(fingerprint(labels, fold_of), train.hard_negatives)
    seen = with_pseudo_labels(seen, pseudo)
    origin = Origin(fold, config.model_dump(mode="json"), seen)
    learner, done = pick_up(
        run,
        files,
        origin,
        config,
        chosen=checkpoint,
        build=lambda before: build_learner(
            config,
            fold,
            num_batches=len(order),
            before=before,
            fill=partial(_fill, config, run, fold, val_ids),
        ),
    )
    loss, later_loss = losses(config)
    title = f"fold {fold} epoch validation"
    validate = validation_pass(config, labels, val_ids, learner, loss, title)

    for row in done.history:
        after_epoch(fold, row)
    if is_done(done, epochs=train.epochs, early_stopping=train.early_stopping):
        run.say(f"fold {fold}: done already, best {_kind(config)} {done.best_dice:.4f}")
        return
    others = f" and {len(pseudo.labels.sizes)} pseudo-labelled ones" if pseudo else ""
    run.say(
        f"fold {fold}: {len(dataset)} training samples of {len(train_ids)} strips{others}, "
        f"{len(val_ids)} held out; {learner.precision}"
    )
    if train.later_loss:
        run.say(
            f"fold {fold}: from epoch {train.later_loss_epoch} on the loss is {train.later_loss}"
        )
    on_gpu = learner.device.type == "cuda"
    loader = BatchLoader(dataset, order, num_workers=train.num_workers, pin_memory=on_gpu)
    epochs = Epochs(config, fold, learner, order, loader, loss, later_loss)
    with noting_signals() as note:
        run_epochs(
            learner,
            done,
            files,
            origin,
            epochs=train.epochs,
            early_stopping=train.early_stopping,
            save_best_only=train.save_best_only,
            save_minutes=train.save_minutes,
            train=epochs.train,
            update_average=epochs.update_average,
            validate=validate,
            note=note,
            report=partial(_report, config, run, fold, note, after_epoch),
        )
    run.say(
        f"fold {fold}: best {_kind(config)} {done.best_dice:.4f} in epoch {done.best_epoch}, "
        f"wrote {files.best_model}"
    )


def _fill(
    config: Config, run: RunFolder, fold: int, held_out: Sequence[str], model: nn.Module
) -> None:
    """Start from the weights that the settings name."""
    if config.model.init_from is not None:
        line = start_from(model, config.model.init_from, fold=fold, held_out=held_out)
        run.say(f"fold {fold}: {line}")


def _report(
    config: Config,
    run: RunFolder,
    fold: int,
    note: StopNote,
    after_epoch: AfterEpoch,
    row: dict[str, float],
    scores: Scores,
) -> None:
    """Tell of an epoch: a line, the table and an event; loudly of classes never found."""
    epoch, epochs = int(row["epoch"]), config.train.epochs
    figures = f"Dice {row['val_dice']:.4f}, on defects {row['val_dice_positive']:.4f}, "
    if config.model.is_classifier:
        figures = ""
    if config.train.monitor != "dice":
        figures += f"{_kind(config)} {monitored(row):.4f}, "
    columns = {"columns": COLUMNS} if config.model.is_classifier else {}
    run.say(
        f"fold {fold} epoch {epoch}/{epochs}: train loss {row['train_loss']:.4f}, "
        f"val loss {row['val_loss']:.4f}, {figures}{row['seconds']:.0f} s\n"
        + table(scores, config.data.names, **columns)
    )
    run.event("epoch", {"fold": fold, **row})
    if lost := never_found(scores):
        names = ", ".join(config.data.names[class_id - 1] for class_id in lost)
        kind = "Presence" if config.train.monitor == "presence" else "Dice"
        run.warn(
            f"fold {fold}: no strip with {names} was found. {kind} hides this; see image recall."
        )
    if note.signum is None:
        # What it raises must not hide that someone asked to stop; a resumed fold tells again.
        after_epoch(fold, row)


def _kind(config: Config) -> str:
    """What epochs are chosen by, in a word."""
    return config.train.monitor.replace("_", " ").replace("dice", "Dice")
