"""A greedy soup of a fold's best epochs, once it is trained.

Reads  RUN/fold_K/checkpoint_epoch_N.safetensors, the history
Writes RUN/fold_K/best_model.safetensors
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from torch import Tensor

from steelseg.config.config import Config
from steelseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from steelseg.run.run_folder import RunFolder
from steelseg.scoring.metrics import flatten
from steelseg.training.averaging import greedy_soup
from steelseg.training.fold import FoldFiles, Origin, Progress, Validate, monitored
from steelseg.training.loop import Learner


def cook_soup(
    config: Config,
    run: RunFolder,
    files: FoldFiles,
    learner: Learner,
    done: Progress,
    origin: Origin,
    validate: Validate,
) -> dict[str, float] | None:
    """Average the best epochs as long as the mean validates no worse, if the settings ask for it.

    The held-out strips choose among a few means as they choose among epochs. A fold that was
    stopped here does it again.

    Args:
        config: The settings.
        run: Told what went in.
        files: The fold's.
        learner: Whose mean of weights is used to judge.
        done: The history.
        origin: Kept in the checkpoint.
        validate: Scores `learner.judged`.

    Returns:
        What the mean reaches, under the names of history.csv, and the seconds that it took; None
        where the settings ask for no soup.

    Raises:
        CheckpointError: if the checkpoint of an epoch is missing or damaged.
        TrainingError: if a mean is not finite; nothing is written then.
    """
    if config.train.average != "soup":
        return None
    if (state := load_checkpoint(files.best_model).state).get("soup"):
        return dict(state.get("figures", {}))
    average, begin = learner.average, time.monotonic()
    assert average is not None

    def judge(weights: Mapping[str, Tensor]) -> tuple[float, dict[str, float]]:
        average.load(weights, 1)
        _, scores, judged = validate(lambda: None)
        figures = {**flatten(scores), **judged}
        return monitored(figures), figures

    best = sorted(done.history, key=monitored, reverse=True)
    epochs = [int(row["epoch"]) for row in best[: config.train.average_epochs]]
    soup, chosen, figures = greedy_soup(
        [partial(_weights, files.of_epoch(epoch)) for epoch in epochs],
        judge,
    )
    taken = [epochs[place] for place in chosen]
    figures["seconds"], dice = time.monotonic() - begin, figures["val_dice"]
    state = {**asdict(origin), "epoch": done.best_epoch, "dice": dice, "soup": taken}
    state["figures"] = figures
    save_checkpoint(files.best_model, Checkpoint(soup, {}, state))
    run.say(f"fold {origin.fold}: the best model is the mean of epochs {taken}, Dice {dice:.4f}")
    return figures


def _weights(path: Path) -> Mapping[str, Tensor]:
    """The network of a checkpoint."""
    return load_checkpoint(path).model
