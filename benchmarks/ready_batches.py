"""A training on batches that lie ready in memory, for benchmarks of its steps."""

import tempfile
from pathlib import Path

from steelseg.training.fold_files import CheckpointMetadata, FoldFiles, Progress
from steelseg.training.learner import build_learner, build_seeded_network
from steelseg.training.trainer import FoldTrainer


class ReadyBatches:
    """Batches in a list, as both the order and the loader of a `FoldTrainer`."""

    def __init__(self, batches):
        self.batches = batches
        self.epoch, self.begin = 1, 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        yield from self.batches[self.begin :]


def make_learner(config, num_batches=1):
    """The network and optimizer of fold 0."""
    model = build_seeded_network(config, 0, is_new=True)
    return build_learner(config, model, num_batches=num_batches)


def train_on(config, learner, batches):
    """Train a learner on every batch once, as `steelseg train` does; nothing is saved."""
    ready = ReadyBatches(batches)
    FoldTrainer(
        learner,
        Progress(),
        FoldFiles(Path(tempfile.gettempdir()) / "unused"),
        CheckpointMetadata(0, config, ""),
        order=ready,
        loader=ready,
        validation=None,
    ).train_epoch(1)
