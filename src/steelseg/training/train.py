"""The training stage: the folds of a run, one after the other.

Reads  data.root, the precropped store in mode precropped
Writes RUN/folds.csv, RUN/fold_K/best_model.safetensors, last/, history.csv
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from steelseg.signals import defer_signals
from steelseg.training.fold_data import open_reader, training_samples
from steelseg.training.fold_files import CheckpointMetadata, FoldFiles
from steelseg.training.loader import BatchLoader
from steelseg.training.pseudo_samples import (
    PseudoSamples,
    load_pseudo_samples,
    with_pseudo_labels,
)
from steelseg.training.resume import resume_or_start, settings_difference
from steelseg.training.sampling import with_negatives
from steelseg.training.trainer import FoldTrainer, monitor_value
from steelseg.training.validation import Validation
from steelseg.training.warm_start import load_initial_weights

AfterEpoch = Callable[[int, Mapping[str, float]], None]
"""Called with the fold and the row of history.csv after each epoch, once it is saved; for a resumed
fold, also with the earlier epochs. An exception from it ends the training, which can be resumed."""


@dataclass(frozen=True)
class _Inputs:
    """Inputs that all folds of a training share."""

    config: Config
    run: RunFolder
    labels: Labels
    fold_of: dict[str, int]
    """Fold of each strip."""
    source: CropReader
    """Reads the pixels of training samples."""

    def held_out(self, fold: int) -> list[str]:
        """List the strips that a fold does not train on."""
        return [image_id for image_id in self.labels.sizes if self.fold_of[image_id] == fold]

    def trained_on(self, fold: int) -> list[str]:
        """List the strips that a fold trains on."""
        return [image_id for image_id in self.labels.sizes if self.fold_of[image_id] != fold]


def train_run(
    config: Config,
    path: Path,
    *,
    folds: Sequence[int] | None = None,
    resume: bool = False,
    checkpoint: Path | None = None,
    after_epoch: AfterEpoch = lambda _fold, _row: None,
) -> None:
    """Train folds of a run.

    Args:
        config: The settings.
        path: The run folder; it is created once the data set has passed its checks.
        folds: The folds to train; None trains all.
        resume: True resumes folds that were started and skips those that are done.
        checkpoint: Resume the single fold of `folds` from this file.
        after_epoch: Called after each epoch; an exception from it ends the training.

    Raises:
        ConfigError: if a fold does not exist, or was already trained and `resume` is False, or the
            folder holds a combined run.
        DataError: if the data set has a fault or the store does not match it.
        CheckpointError: if a checkpoint does not match the settings.
        TrainingError: if a loss is not finite.
        Stopped: on Ctrl-C or SIGTERM, once the fold is saved.
    """
    folds = choose_folds(folds, config.data.num_folds)
    run = RunFolder(path)
    refuse_combined(run, "Choose another --out to train.")
    _refuse_used(config, run, folds, resume=resume or checkpoint is not None)
    labels, groups = _read_labels(config, run)
    source = open_reader(config, labels)
    inputs = _Inputs(
        config, run, labels, _read_or_assign_folds(config, run, labels, groups), source
    )
    # Read for all folds first, so that a fault of the last fold is reported before training.
    pseudo = {
        fold: load_pseudo_samples(config, labels, fold, held_out=inputs.held_out(fold))
        for fold in folds
    }
    if run.config_yaml.exists():
        # Settings that may change when resuming also apply to later stages.
        run.save_config(config)
    else:
        _refuse_untrainable(inputs, folds)
        create_run(path, config)
    if not run.folds_csv.exists():
        write_folds(run.folds_csv, inputs.fold_of, _present(labels), groups)
    if config.model.encoder.startswith("mit_"):
        run.warn(f"the licence of {config.model.encoder} forbids commercial use.")
    for fold in folds:
        _train_fold(inputs, fold, pseudo[fold], checkpoint, after_epoch)


def _refuse_untrainable(inputs: _Inputs, folds: Sequence[int]) -> None:
    """Raise an error for settings that cannot be trained, before the run folder stores them."""
    config = inputs.config
    find_augmentation(config.train.augmentation)
    with_negatives("", config.train.hard_negatives)
    model = build_network(config, is_new=config.model.init_from is None)
    if config.model.init_from is not None:
        for fold in folds:
            held_out = inputs.held_out(fold)
            load_initial_weights(model, config.model.init_from, fold=fold, held_out=held_out)


def ensure_folds(config: Config, run: RunFolder) -> None:
    """Write folds.csv if a run has none, as training does.

    Raises:
        DataError: if the data set has a fault.
        ConfigError: if a fold would be empty.
    """
    if run.folds_csv.exists():
        return
    labels, groups = _read_labels(config, run)
    fold_of = _read_or_assign_folds(config, run, labels, groups)
    write_folds(run.folds_csv, fold_of, _present(labels), groups)


def _read_labels(config: Config, run: RunFolder) -> tuple[Labels, dict[str, str]]:
    """Read the labels and, if the folds are still to be assigned, the groups of near-duplicates."""
    if run.folds_csv.exists():
        return load_labels(config.data), {}
    inspection = refuse_faults(config.data.root, inspect_data(config.data))
    return inspection.labels, inspection.groups


def _refuse_used(config: Config, run: RunFolder, folds: Sequence[int], *, resume: bool) -> None:
    """Raise unless the run folder is new, or has the same settings and nothing to overwrite."""
    if not run.config_yaml.exists():
        return
    if difference := settings_difference(run.load_config(to_train=True), config):
        raise ConfigError(
            f"{run.path} already contains a run with {difference}. Choose another --out."
        )
    for fold in folds:
        if run.fold(fold).exists() and not resume:
            raise ConfigError(
                f"{run.fold(fold)} already contains a fold. Use --resume, or another --out."
            )


def choose_folds(folds: Sequence[int] | None, num_folds: int) -> list[int]:
    """Return the named folds in ascending order, or all of them.

    Raises:
        ConfigError: if a named fold does not exist.
    """
    for fold in folds or ():
        if not 0 <= fold < num_folds:
            raise ConfigError(
                f"--fold {fold}: data.num_folds={num_folds} makes folds 0 to {num_folds - 1}."
            )
    return sorted(set(folds)) if folds else list(range(num_folds))


def _read_or_assign_folds(
    config: Config, run: RunFolder, labels: Labels, groups: dict[str, str]
) -> dict[str, int]:
    """Read folds.csv if it exists; otherwise assign the strips to folds."""
    num_folds = config.data.num_folds
    if run.folds_csv.exists():
        return read_folds(run.folds_csv, image_ids=list(labels.sizes), num_folds=num_folds)
    given = config.data.fold_seed
    seed = config.train.seed if given is None else given
    fold_of = assign_folds(_present(labels), num_folds=num_folds, seed=seed, groups=groups)
    if len(set(fold_of.values())) < num_folds:
        raise ConfigError(
            f"data.num_folds={num_folds} leaves a fold empty, because near-duplicate strips stay "
            "together. Use fewer folds, or data.group_duplicates=false."
        )
    return fold_of


def _present(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Return the class ids that each strip shows."""
    return {image_id: labels.class_ids(image_id) for image_id in labels.sizes}


def _train_fold(
    inputs: _Inputs,
    fold: int,
    pseudo: PseudoSamples | None,
    checkpoint: Path | None,
    after_epoch: AfterEpoch,
) -> None:
    """Start or resume one fold, and train it to the end."""
    config, run = inputs.config, inputs.run
    trainer = _build_trainer(inputs, fold, pseudo, checkpoint)
    progress, monitor = trainer.progress, _monitor_name(config)
    for row in progress.history:
        after_epoch(fold, row)
    if trainer.is_done:
        run.say(f"fold {fold}: already done, highest {monitor} {progress.best_dice:.4f}")
        return
    _log_start(inputs, fold, pseudo, trainer)
    with defer_signals() as stop:
        for row, scores in trainer.train(stop):
            _log_epoch(config, run, fold, row, scores)
            if stop.signum is None:
                # Its exception must not hide the stop request; a resumed fold calls it again.
                after_epoch(fold, row)
    run.say(
        f"fold {fold}: highest {monitor} {progress.best_dice:.4f} in epoch {progress.best_epoch}, "
        f"wrote {trainer.files.best_model}"
    )


def _build_trainer(
    inputs: _Inputs, fold: int, pseudo: PseudoSamples | None, checkpoint: Path | None
) -> FoldTrainer:
    """Build the samples, the network and the validation of a fold, and resume if it was started."""
    config, labels, train = inputs.config, inputs.labels, inputs.config.train
    files, held_out = FoldFiles(inputs.run.fold(fold)), inputs.held_out(fold)
    dataset, order = training_samples(
        config, labels, inputs.trained_on(fold), inputs.source, fold, pseudo
    )
    data = with_negatives(fingerprint(labels, inputs.fold_of), train.hard_negatives)
    metadata = CheckpointMetadata(fold, config, with_pseudo_labels(data, pseudo))
    learner, progress = resume_or_start(
        inputs.run,
        files,
        metadata,
        num_batches=len(order),
        held_out=held_out,
        checkpoint=checkpoint,
    )
    pin_memory = learner.device.type == "cuda"
    return FoldTrainer(
        learner,
        progress,
        files,
        metadata,
        order=order,
        loader=BatchLoader(dataset, order, num_workers=train.num_workers, pin_memory=pin_memory),
        validation=Validation(config, labels, fold, held_out, learner.device, learner.half),
    )


def _log_start(
    inputs: _Inputs, fold: int, pseudo: PseudoSamples | None, trainer: FoldTrainer
) -> None:
    """Log what a fold trains on."""
    run, train = inputs.run, inputs.config.train
    others = f" and {len(pseudo.labels.sizes)} pseudo-labelled ones" if pseudo else ""
    run.say(
        f"fold {fold}: {len(trainer.loader.dataset)} training samples of "
        f"{len(inputs.trained_on(fold))} strips{others}, {len(inputs.held_out(fold))} held out; "
        f"{trainer.learner.precision}"
    )
    if train.later_loss:
        run.say(
            f"fold {fold}: from epoch {train.later_loss_epoch} on the loss is {train.later_loss}"
        )


def _log_epoch(
    config: Config, run: RunFolder, fold: int, row: dict[str, float], scores: Scores
) -> None:
    """Log the scores of an epoch, with a warning about classes that were never found."""
    figures = f"Dice {row['val_dice']:.4f}, on defects {row['val_dice_positive']:.4f}, "
    if config.model.is_classifier:
        figures = ""
    if config.train.monitor != "dice":
        figures += f"{_monitor_name(config)} {monitor_value(row):.4f}, "
    columns = {"columns": COLUMNS} if config.model.is_classifier else {}
    run.say(
        f"fold {fold} epoch {int(row['epoch'])}/{config.train.epochs}: "
        f"train loss {row['train_loss']:.4f}, "
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


def _monitor_name(config: Config) -> str:
    """Return the name of the metric that selects the best epoch, for log lines."""
    return config.train.monitor.replace("_", " ").replace("dice", "Dice")
