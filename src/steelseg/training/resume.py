"""Resume a fold from its newest usable checkpoint, or from a given one.

The first checkpoint in `last/` is written before the first step. So a fold that was started but has
no usable checkpoint is an error, never a silent restart. Checkpoints that are skipped, or newer
than the one that the user gives, are renamed to `*.set_aside`.
"""

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from steelseg.config import former
from steelseg.config.config import Config, PostprocessConfig, TuneConfig
from steelseg.config.pseudo import PseudoConfig
from steelseg.config.search import SearchConfig
from steelseg.errors import CheckpointError, ConfigError
from steelseg.files.atomic import write_bytes
from steelseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from steelseg.run.run_folder import RunFolder
from steelseg.training.fold_files import (
    CheckpointMetadata,
    FoldFiles,
    Position,
    Progress,
    save_resumable,
)
from steelseg.training.learner import (
    Learner,
    build_learner,
    build_seeded_network,
    restore_optimizer,
)
from steelseg.training.warm_start import load_initial_weights

# Settings that may differ between a checkpoint and the training that resumes from it.
_MAY_CHANGE = {
    "data": {"root", "pixel_mm", "precropped_dir"},
    "train": {
        "amp",
        "batch_size_val",
        "compile",
        "early_stopping",
        "num_workers",
        "save_best_only",
        "save_minutes",
    },
    "postprocess": set(PostprocessConfig.model_fields),
    "inference": {"cascade", "ensemble", "gate", "tta"},
    "tune": set(TuneConfig.model_fields),
    "search": set(SearchConfig.model_fields),
    "pseudo": set(PseudoConfig.model_fields),
}

_PROGRESS = TypeAdapter(Progress)


def settings_difference(old: Config, new: Config) -> str:
    """Return the first difference that prevents resuming, in words; "" if there is none."""
    before, after = old.model_dump(), new.model_dump()
    free = {section: set(names) for section, names in _MAY_CHANGE.items()}
    if new.train.scheduler in ("reduce_on_plateau", "none"):
        # The other schedules depend on the number of epochs from the first step on.
        free["train"].add("epochs")
    for section, values in after.items():
        for name, value in values.items():
            if before[section][name] != value and name not in free.get(section, ()):
                return f"{section}.{name}={before[section][name]}, not {value}"
    return ""


def resume_or_start(
    run: RunFolder,
    files: FoldFiles,
    metadata: CheckpointMetadata,
    *,
    num_batches: int,
    held_out: Collection[str],
    checkpoint: Path | None,
) -> tuple[Learner, Progress]:
    """Restore the learner of a fold from its newest checkpoint, or build a new one.

    Args:
        run: Logs where training starts, and every checkpoint that is skipped.
        files: Files of the fold.
        metadata: Fold, settings and data, which a checkpoint must match.
        num_batches: Batches per epoch.
        held_out: The strips that the fold does not train on.
        checkpoint: The checkpoint to resume from; None takes the newest usable one of `last/`.

    Raises:
        CheckpointError: if the fold was started and no checkpoint can be used.
    """
    if checkpoint is None and not _is_started(files):
        return _start(run, files, metadata, num_batches, held_out)
    if checkpoint is not None:
        path, (learner, done) = checkpoint, _restore(checkpoint, metadata, num_batches)
        _go_back(run, files, metadata, learner, done)
    else:
        path, learner, done = _newest_usable(run, files, metadata, num_batches)
    _restore_best(run, files, metadata, path, done)
    within = f" and {done.position.step} batches" if done.position.step else ""
    run.say(f"fold {metadata.fold}: resuming from {path}, {done.epoch} epochs{within} done")
    return learner, done


def _is_started(files: FoldFiles) -> bool:
    """Return whether training has written any file of a fold."""
    return bool(files.resumable()) or files.history.exists() or files.best_model.exists()


def _start(
    run: RunFolder,
    files: FoldFiles,
    metadata: CheckpointMetadata,
    num_batches: int,
    held_out: Collection[str],
) -> tuple[Learner, Progress]:
    """Build a new learner and save it before the first step."""
    config, fold = metadata.config, metadata.fold
    model = build_seeded_network(config, fold, is_new=True)
    if config.model.init_from is not None:
        line = load_initial_weights(model, config.model.init_from, fold=fold, held_out=held_out)
        run.say(f"fold {fold}: {line}")
    learner, progress = build_learner(config, model, num_batches=num_batches), Progress()
    save_resumable(files.last(0), learner, progress, metadata)
    run.say(f"fold {fold}: starting with the first epoch")
    return learner, progress


def _newest_usable(
    run: RunFolder, files: FoldFiles, metadata: CheckpointMetadata, num_batches: int
) -> tuple[Path, Learner, Progress]:
    """Restore the newest checkpoint of `last/` that can be used."""
    refused: list[tuple[Path, CheckpointError]] = []
    for path in files.resumable():
        try:
            learner, done = _restore(path, metadata, num_batches)
            if path != files.last(done.epoch, done.position.step):
                raise CheckpointError(f"{path} contains epoch {done.epoch}, unlike its name.")
        except CheckpointError as error:
            refused.append((path, error))
            continue
        for bad, reason in refused:
            run.warn(f"{reason} It is set aside; using the checkpoint before it.")
            _set_aside(bad)
        return path, learner, done
    why = f" {refused[0][1]}" if refused else ""
    raise CheckpointError(
        f"{files.folder} was trained, but its last/ has no checkpoint to resume from.{why} "
        "Remove the folder to train this fold from the start."
    )


def _set_aside(path: Path) -> None:
    """Rename a checkpoint so that it is never loaded."""
    path.rename(path.with_name(f"{path.name}.set_aside"))


def _go_back(
    run: RunFolder,
    files: FoldFiles,
    metadata: CheckpointMetadata,
    learner: Learner,
    done: Progress,
) -> None:
    """Make the checkpoint that the user gave the newest in `last/`."""
    point = files.last(done.epoch, done.position.step)
    save_resumable(point, learner, done, metadata)
    if ahead := [path for path in files.resumable() if path > point]:
        run.warn(f"newer checkpoints in {point.parent} are set aside ({len(ahead)}).")
        for path in ahead:
            _set_aside(path)


def _restore(
    path: Path, metadata: CheckpointMetadata, num_batches: int
) -> tuple[Learner, Progress]:
    """Build a learner in the state of a checkpoint, or raise CheckpointError."""
    checkpoint = load_checkpoint(path)
    _refuse_other(checkpoint, path, metadata)
    if "groups" not in checkpoint.state:
        raise CheckpointError(
            f"{path} contains a model without its optimizer, so training cannot resume from it. "
            "Use a file in last/, or a checkpoint_epoch_N."
        )
    try:
        model = build_seeded_network(metadata.config, metadata.fold, is_new=False)
        learner = build_learner(
            metadata.config,
            model,
            num_batches=num_batches,
            resumed_precision=checkpoint.state.get("precision", ""),
        )
        return learner, restore(learner, checkpoint)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        if isinstance(e, ConfigError):
            raise
        reason = str(e).splitlines()[0].rstrip(". :")
        raise CheckpointError(
            f"{path} does not match the settings stored with it: {reason}."
        ) from None


def _refuse_other(checkpoint: Checkpoint, path: Path, metadata: CheckpointMetadata) -> None:
    """Raise CheckpointError if resuming would differ from an uninterrupted training."""
    state = checkpoint.state
    if state.get("fold") != metadata.fold:
        raise CheckpointError(
            f"{path} belongs to fold {state.get('fold')}, not to fold {metadata.fold}."
        )
    try:
        removed = former.removed_in_use(state["config"])
        difference = settings_difference(checkpoint.config, metadata.config)
    except (ConfigError, LookupError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path} contains settings that this version does not know."
        ) from None
    if removed:
        raise CheckpointError(f"{path} {former.retrain_advice(removed)}")
    if difference:
        raise CheckpointError(
            f"{path} was trained with {difference}. Resume with the same settings, or start a new "
            "run."
        )
    if state.get("data") != metadata.data:
        raise CheckpointError(
            f"{path} was trained on different strips, masks or folds than data.root and folds.csv "
            "contain now. Restore them, or start a new run."
        )


def restore(learner: Learner, checkpoint: Checkpoint) -> Progress:
    """Restore a learner from a checkpoint; any exception means that they do not match."""
    state = checkpoint.state
    learner.model.load_state_dict(dict(checkpoint.model))
    restore_optimizer(learner.optimizer, checkpoint.optimizer.items(), state["groups"])
    learner.schedule.restore(state["schedule"])
    learner.scaler.load_state_dict(state["scaler"])
    if learner.average is not None:
        learner.average.load(checkpoint.average, int(state["average_count"]))
    done = Progress(
        state["epoch"],
        state["best_dice"],
        state["best_epoch"],
        [former.translate_row(row) for row in state["history"]],
        Position(**state["position"]),
    )
    _PROGRESS.validate_json(json.dumps(asdict(done)), strict=True)
    return done


def _restore_best(
    run: RunFolder, files: FoldFiles, metadata: CheckpointMetadata, path: Path, done: Progress
) -> None:
    """Restore the best_model of the best epoch in the history, or determine the best epoch again.

    Raises:
        CheckpointError: if best_model is damaged or does not match, and there is no copy of it.
    """
    if not done.best_epoch:
        return
    fault = ""
    for best in (FoldFiles(f).best_model for f in (files.folder, path.parent, path.parent.parent)):
        try:
            epoch = _epoch_of(best, metadata) if best.exists() else 0
        except CheckpointError as error:
            fault = fault or (str(error) if best == files.best_model else "")
            continue
        if epoch == done.best_epoch:
            if best != files.best_model:
                write_bytes(files.best_model, best.read_bytes())
            return
    if _rebuild_best(files, metadata, done):
        return
    if fault:
        raise CheckpointError(f"{fault} Remove the file to determine the best epoch again.")
    run.warn(
        f"there is no best model of epoch {done.best_epoch} here or next to {path}; "
        "the best epoch is determined again."
    )
    done.best_dice, done.best_epoch = -1.0, done.epoch


def _epoch_of(path: Path, metadata: CheckpointMetadata) -> int:
    """Return the epoch of a checkpoint; raise CheckpointError if it cannot be used."""
    checkpoint = load_checkpoint(path)
    _refuse_other(checkpoint, path, metadata)
    return int(checkpoint.state["epoch"])


def _rebuild_best(files: FoldFiles, metadata: CheckpointMetadata, done: Progress) -> bool:
    """Write best_model from the resumable checkpoint of its epoch, if that still exists."""
    path = files.last(done.best_epoch)
    if not path.exists():
        return False
    try:
        checkpoint = load_checkpoint(path)
        _refuse_other(checkpoint, path, metadata)
    except CheckpointError:
        return False
    state = metadata.state() | {name: checkpoint.state[name] for name in ("epoch", "dice")}
    weights = checkpoint.average if checkpoint.state.get("average_count") else checkpoint.model
    save_checkpoint(files.best_model, Checkpoint(weights, {}, state))
    return True
