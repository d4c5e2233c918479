import torch
from torch import nn

from steelseg.config.config import Config
from steelseg.training.fold_files import CheckpointMetadata, FoldFiles, Progress, save_resumable
from steelseg.training.learner import Learner, make_scaler
from steelseg.training.optimizers import Schedule, build_optimizer

CPU = torch.device("cpu")


def make_learner():
    model = nn.Conv2d(1, 1, 1)
    optimizer = build_optimizer(model.parameters(), name="adam", learning_rate=0.01, weight_decay=0)
    schedule = Schedule(optimizer, name="none", steps=1, patience=0)
    return Learner(model, optimizer, schedule, make_scaler(CPU, None), CPU)


def test_checkpoints_are_in_order_beyond_a_thousand_epochs(tmp_path):
    """Names are sorted as text; a step within an epoch comes after the epoch before it."""
    learner, progress = make_learner(), Progress(history=[{"val_dice": 0.5}])
    files, metadata = FoldFiles(tmp_path), CheckpointMetadata(0, Config(), "")
    paths = [files.last(9), files.last(999), files.last(999, 20), files.last(1000)]
    for path in paths:
        save_resumable(path, learner, progress, metadata)

    assert files.resumable() == paths[::-1]
    files.remove_old()
    assert files.resumable() == paths[:1:-1]
