"""Where a fold goes on from: its newest checkpoint that is whole and fits, or a named one.

A fold has a checkpoint in `last/` from before its first step on. So one that was begun and has
none that can be used is an error, never a silent new start. Checkpoints that are passed over, or
that lie ahead of the one that the user names, are set aside under another name.
"""

import json
from collections.abc import Callable
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
from steelseg.training.fold import FoldFiles, Origin, Progress, save_resumable
from steelseg.training.loop import Learner, Position, restore_optimizer

Build = Callable[[Checkpoint | None], Learner]
"""Makes the learner of a fold, new or for the checkpoint that it goes on from."""

# Settings that may differ between a checkpoint and the training that goes on from it.
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

# Means of weights that do not ask which epoch is the last.
_OPEN_ENDED = ("none", "ema")

_PROGRESS = TypeAdapter(Progress)


def settings_difference(old: Config, new: Config) -> str:
    """Name the first setting that training cannot change on the way; "" if there is none."""
    before, after = old.model_dump(), new.model_dump()
    free = {section: set(names) for section, names in _MAY_CHANGE.items()}
    if new.train.scheduler in ("reduce_on_plateau", "none") and new.train.average in _OPEN_ENDED:
        # Other schedules and means are drawn over all epochs from the first step on.
        free["train"].add("epochs")
    for section, values in after.items():
        for name, value in values.items():
            if before[section][name] != value and name not in free.get(section, ()):
                return f"{section}.{name}={before[section][name]}, not {value}"
    return ""


def pick_up(
    run: RunFolder,
    files: FoldFiles,
    origin: Origin,
    config: Config,
    *,
    chosen: Path | None,
    build: Build,
) -> tuple[Learner, Progress]:
    """Make the learner of a fold and put it to where its training goes on.

    Args:
        run: Told where that is, and of every file that is passed over.
        files: The fold's.
        origin: What the checkpoint must be of.
        config: The settings, some of which may have changed since.
        chosen: The checkpoint to go on from; None takes the newest good one of `last/`.
        build: Makes the learner.

    Raises:
        CheckpointError: if the fold was begun and no checkpoint can be used.
    """
    if chosen is None and not _is_begun(files):
        learner, done = build(None), Progress()
        save_resumable(files.last(0), learner, done, origin)
        run.say(f"fold {origin.fold}: begins with the first epoch")
        return learner, done
    if chosen is not None:
        path, (learner, done) = chosen, _restore(chosen, origin, config, build)
        _go_back(run, files, origin, learner, done)
    else:
        path, learner, done = _newest_good(run, files, origin, config, build)
    _settle_best(run, files, origin, config, path, done)
    within = f" and {done.position.step} batches" if done.position.step else ""
    run.say(f"fold {origin.fold}: resumes from {path}, {done.epoch} epochs{within} done")
    return learner, done


def _is_begun(files: FoldFiles) -> bool:
    """Whether a fold has anything that training wrote."""
    return bool(files.generations()) or files.history.exists() or files.best_model.exists()


def _newest_good(
    run: RunFolder, files: FoldFiles, origin: Origin, config: Config, build: Build
) -> tuple[Path, Learner, Progress]:
    """Go on from the newest checkpoint of `last/` that can be used."""
    refused: list[tuple[Path, CheckpointError]] = []
    for path in files.generations():
        try:
            learner, done = _restore(path, origin, config, build)
            if path != files.last(done.epoch, done.position.step):
                raise CheckpointError(f"{path} is of epoch {done.epoch}, not what its name says.")
        except CheckpointError as error:
            refused.append((path, error))
            continue
        for bad, reason in refused:
            run.warn(f"{reason} It is set aside; going back to the checkpoint before it.")
            _set_aside(bad)
        return path, learner, done
    why = f" {refused[0][1]}" if refused else ""
    raise CheckpointError(
        f"{files.folder} was trained, but its last/ holds no checkpoint to go on from.{why} "
        "Remove the folder to train this fold again."
    )


def _set_aside(path: Path) -> None:
    """Keep a checkpoint under a name that is not looked for."""
    path.rename(path.with_name(f"{path.name}.set_aside"))


def _go_back(
    run: RunFolder, files: FoldFiles, origin: Origin, learner: Learner, done: Progress
) -> None:
    """Make the point that the user named the newest of `last/`."""
    point = files.last(done.epoch, done.position.step)
    save_resumable(point, learner, done, origin)
    if ahead := [path for path in files.generations() if path > point]:
        run.warn(f"{len(ahead)} checkpoints of {point.parent} lie ahead and are set aside.")
        for path in ahead:
            _set_aside(path)


def _restore(path: Path, origin: Origin, config: Config, build: Build) -> tuple[Learner, Progress]:
    """Make a learner as it was when a checkpoint was taken, or raise CheckpointError."""
    checkpoint = load_checkpoint(path)
    _refuse_strange(checkpoint, path, origin, config)
    if "groups" not in checkpoint.state:
        raise CheckpointError(
            f"{path} holds a model without its optimizer, so training cannot go on from it. "
            "Use a file of last/ or a checkpoint_epoch_N."
        )
    try:
        learner = build(checkpoint)
        return learner, resume(learner, checkpoint)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        if isinstance(e, ConfigError):
            raise
        reason = str(e).splitlines()[0].rstrip(". :")
        raise CheckpointError(f"{path} does not fit the settings next to it: {reason}.") from None


def _refuse_strange(checkpoint: Checkpoint, path: Path, origin: Origin, config: Config) -> None:
    """Raise CheckpointError if going on would not be what a whole run would have done."""
    state = checkpoint.state
    if state.get("fold") != origin.fold:
        raise CheckpointError(f"{path} is of fold {state.get('fold')}, not of fold {origin.fold}.")
    try:
        removed = former.removed_in_use(state["config"])
        odd = settings_difference(checkpoint.config, config)
    except (ConfigError, LookupError, TypeError, AttributeError):
        raise CheckpointError(f"{path} holds settings that are not ours.") from None
    if removed:
        raise CheckpointError(f"{path} {former.way_out(removed)}")
    if odd:
        raise CheckpointError(
            f"{path} was trained with {odd}. Resume with the same settings, or start a new run."
        )
    if state.get("data") != origin.data:
        raise CheckpointError(
            f"{path} was trained on other strips, masks or folds than data.root and folds.csv "
            "hold now. Put them back, or start a new run."
        )


def resume(learner: Learner, checkpoint: Checkpoint) -> Progress:
    """Put a learner back to where a checkpoint was taken; what does not fit raises anything."""
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


def _settle_best(
    run: RunFolder, files: FoldFiles, origin: Origin, config: Config, path: Path, done: Progress
) -> None:
    """See that best_model is the one that the history names, or seek the best epoch anew.

    Raises:
        CheckpointError: if best_model is damaged or strange, and there is no copy of it.
    """
    if not done.best_epoch:
        return
    fault = ""
    for best in (FoldFiles(f).best_model for f in (files.folder, path.parent, path.parent.parent)):
        try:
            epoch = _epoch_of(best, origin, config) if best.exists() else 0
        except CheckpointError as error:
            fault = fault or (str(error) if best == files.best_model else "")
            continue
        if epoch == done.best_epoch:
            if best != files.best_model:
                write_bytes(files.best_model, best.read_bytes())
            return
    if _remade_best(files, origin, config, done):
        return
    if fault:
        raise CheckpointError(f"{fault} Remove the file to have the best epoch determined again.")
    run.warn(
        f"there is no best model of epoch {done.best_epoch} here or beside {path}; "
        "the best epoch is determined again."
    )
    done.best_dice, done.best_epoch = -1.0, done.epoch


def _epoch_of(path: Path, origin: Origin, config: Config) -> int:
    """Epoch of a checkpoint that is whole and fits."""
    checkpoint = load_checkpoint(path)
    _refuse_strange(checkpoint, path, origin, config)
    return int(checkpoint.state["epoch"])


def _remade_best(files: FoldFiles, origin: Origin, config: Config, done: Progress) -> bool:
    """Make best_model again from the checkpoint of its epoch, if that is still there."""
    path = files.last(done.best_epoch)
    if not path.exists():
        return False
    try:
        checkpoint = load_checkpoint(path)
        _refuse_strange(checkpoint, path, origin, config)
    except CheckpointError:
        return False
    state = asdict(origin) | {name: checkpoint.state[name] for name in ("epoch", "dice")}
    weights = checkpoint.average if checkpoint.state.get("average_count") else checkpoint.model
    save_checkpoint(files.best_model, Checkpoint(weights, {}, state))
    return True
