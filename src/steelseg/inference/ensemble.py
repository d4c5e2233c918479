"""Several checkpoints as one model: the mean of their probabilities.

Together, every network is in memory; sequentially, one at a time, loaded anew for every few
batches. Both add up in the same order and give the same bits.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steelseg.config import Config
from steelseg.errors import CheckpointError
from steelseg.inference.forward import Batch, ForwardPlan, predict_batch
from steelseg.models.allocator import keep_freed_memory
from steelseg.models.checkpoint import Checkpoint, load_checkpoint
from steelseg.models.model import StripNet, build_model

# Loading a network costs about as much as predicting a few strips; more would cost memory.
_SEQUENTIAL_BATCHES = 4

_MUST_AGREE = ("num_classes", "class_names", "channels")


def restore_model(checkpoint: Checkpoint) -> StripNet:
    """Build the network of a checkpoint and fill it, in eval mode.

    Raises:
        CheckpointError: if the weights do not fit the settings in the checkpoint.
    """
    config = checkpoint.config
    model = build_model(
        arch=config.model.arch,
        encoder=config.model.encoder,
        encoder_weights=None,
        channels=config.data.channels,
        num_classes=config.data.num_classes,
        mean=config.data.channel_mean,
        std=config.data.channel_std,
    )
    try:
        model.load_state_dict(dict(checkpoint.model))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"The weights do not fit the settings beside them: {reason}"
        ) from None
    return model.eval()


class Ensemble:
    """The mean of one or more checkpoints."""

    def __init__(self, paths: Sequence[Path], *, sequential: bool, device: torch.device) -> None:
        """Load the checkpoints, or only their settings if `sequential`.

        Args:
            paths: Checkpoints; they may differ in architecture and encoder.
            sequential: Hold one network at a time.
            device: Where to predict.

        Raises:
            CheckpointError: if one cannot be used, or they were trained for different classes.
        """
        self._device = device
        if device.type == "cpu":
            keep_freed_memory()
        loads = [self._loader(path) for path in paths]
        self.configs: list[Config] = []
        self.digests: list[str] = []
        models: list[nn.Module] = []
        for path in paths:
            checkpoint = load_checkpoint(path)
            self.configs.append(checkpoint.config)
            self.digests.append(checkpoint.sha256)
            _refuse_strangers(self.configs, paths)
            if not sequential:
                models.append(restore_model(checkpoint).to(device))
        self._models: Callable[[], Iterable[nn.Module]] = (
            (lambda: (load() for load in loads)) if sequential else lambda: models
        )
        self._chunk = _SEQUENTIAL_BATCHES if sequential else 1

    def must_fit(self, config: Config) -> None:
        """Raise CheckpointError unless the settings say what the networks were trained for."""
        for name in ("num_classes", "channels"):
            trained, asked = getattr(self.configs[0].data, name), getattr(config.data, name)
            if trained != asked:
                raise CheckpointError(
                    f"The checkpoint was trained with data.{name}={trained}, but the settings "
                    f"say {asked}. Leave it as it was trained."
                )

    def _loader(self, path: Path) -> Callable[[], nn.Module]:
        return lambda: restore_model(load_checkpoint(path)).to(self._device)

    def predict(
        self, batches: Iterable[Batch], plan: ForwardPlan
    ) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.float32]]]:
        """Predict batch after batch.

        Args:
            batches: image_ids and images_nhwc, as `forward.batches` gives them.
            plan: Flips, crops and precision.

        Yields:
            image_id, image_hwc and probs_chw of each image, in order.
        """
        source = iter(batches)
        while chunk := list(islice(source, self._chunk)):
            for (image_ids, images_nhwc), probs_nchw in zip(
                chunk, self._mean(chunk, plan), strict=True
            ):
                yield from zip(image_ids, images_nhwc, probs_nchw.cpu().numpy(), strict=True)

    def _mean(self, chunk: Sequence[Batch], plan: ForwardPlan) -> list[Tensor]:
        """Mean probabilities of each batch over all networks."""
        totals: list[Tensor] = []
        for model in self._models():
            probs = [predict_batch(model, images, plan, self._device) for _, images in chunk]
            totals = [a + b for a, b in zip(totals, probs, strict=True)] if totals else probs
        return [total / len(self.configs) for total in totals]


def _refuse_strangers(configs: Sequence[Config], paths: Sequence[Path]) -> None:
    """Raise CheckpointError if the newest config does not fit the first."""
    for name in _MUST_AGREE:
        first, other = (getattr(config.data, name) for config in (configs[0], configs[-1]))
        if first != other:
            raise CheckpointError(
                f"{paths[len(configs) - 1]} has data.{name}={other}, but {paths[0]} has {first}. "
                "An ensemble needs the same classes and channels."
            )
