"""Run commands of steelseg in warm processes, some of them stopped at a chosen point."""

import os
import resource
import signal
from collections.abc import Sequence
from unittest import mock

import steelseg.evaluation.oof
import steelseg.prediction.predict
import steelseg.training.train  # noqa: F401  imported before the server forks
from steelseg.cli import main as cli
from steelseg.training.trainer import FoldTrainer

Command = Sequence[str]


def run(*commands: Command) -> int:
    """Run commands one after the other, until one fails."""
    for words in commands:
        if code := cli.main([str(word) for word in words]):
            return code
    return 0


def run_stopped_at_save(epoch: int, command: Command) -> int:
    """Run a command that stops itself when the checkpoints of an epoch are to be written.

    Whoever started it may attach then, and let it go on with SIGCONT.
    """
    save_epoch = FoldTrainer.save_epoch

    def stop_first(trainer, row):
        if trainer.progress.epoch == epoch - 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        save_epoch(trainer, row)

    with mock.patch.object(FoldTrainer, "save_epoch", stop_first):
        return run(command)


def run_with_small_files(limit: int, command: Command) -> int:
    """Run a command that can write no more than `limit` bytes into a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return run(command)
