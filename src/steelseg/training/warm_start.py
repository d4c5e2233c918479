"""Initial weights from another run, or from any checkpoint of steelseg (model.init_from).

Weights that were trained on the held-out strips of the new fold would make its scores optimistic.
They are refused if the other run's folds.csv is found next to them.
"""

from collections.abc import Collection
from pathlib import Path

from torch import nn

from steelseg.data.folds import seen_in_training
from steelseg.errors import CheckpointError, ConfigError
from steelseg.models.checkpoint import load_checkpoint
from steelseg.run.kinds import refuse_combined
from steelseg.run.run_folder import RunFolder


def load_initial_weights(
    model: nn.Module, source: Path, *, fold: int, held_out: Collection[str]
) -> str:
    """Load the weights of another network where names and shapes match.

    Args:
        model: A `StripNet`, changed in place.
        source: A run folder, whose checkpoint of the same fold is used, or a checkpoint.
        fold: The fold to be trained.
        held_out: Its held-out strips.

    Returns:
        A line for the log.

    Raises:
        CheckpointError: if the run, its fold or the checkpoint is missing or damaged.
        ConfigError: if the encoders differ, or a held-out strip was trained on.
    """
    refuse_combined(RunFolder(source), "model.init_from takes one of its members.")
    if not source.exists():
        raise CheckpointError(
            f"model.init_from={source}: there is no such run folder or checkpoint."
        )
    path = RunFolder(source).best_model(fold) if source.is_dir() else source
    checkpoint = load_checkpoint(path)
    _refuse_leak(path, int(checkpoint.state["fold"]), held_out)
    # A resumable checkpoint holds both; the averaged weights are those that would be kept.
    weights = checkpoint.average if checkpoint.state.get("average_count") else checkpoint.model
    current = model.state_dict()
    fitting = {
        name: tensor
        for name, tensor in weights.items()
        if name in current and current[name].shape == tensor.shape
    }
    new = [name for name in current if name not in fitting]
    if missing := [name for name in new if name.startswith("network.encoder.")]:
        other = checkpoint.config
        raise ConfigError(
            f"model.init_from={source}: {path} has model.encoder={other.model.encoder}, "
            f"model.encoder_depth={other.model.encoder_depth} and data.channels="
            f"{other.data.channels}, so {missing[0]} does not match. Use the same values."
        )
    model.load_state_dict(fitting, strict=False)
    heads = sorted({".".join(name.split(".")[:2]) for name in new})
    return f"starting from {path}" + (f"; new: {', '.join(heads)}" if heads else "")


def _refuse_leak(path: Path, trained_fold: int, held_out: Collection[str]) -> None:
    """Raise ConfigError if weights were trained on held-out strips."""
    # RUN/fold_K/best_model, RUN/fold_K/last/epoch_N.
    candidates = [folder / "folds.csv" for folder in path.resolve().parents[1:3]]
    folds_csv = next((file for file in candidates if file.exists()), None)
    if folds_csv is None:
        return
    if seen := seen_in_training(folds_csv, trained_fold=trained_fold, image_ids=held_out):
        raise ConfigError(
            f"model.init_from: {path} was trained on {seen[0]} ({len(seen)} in total), which this "
            "fold holds out, so its score would be optimistic. Use a checkpoint for its own fold "
            f"only (--fold {trained_fold}), or a run folder with the same folds: same train.csv, "
            "data.num_folds and data.fold_seed (null: train.seed)."
        )
