"""Build the network of some settings, new or with the weights of a checkpoint."""

from collections.abc import Mapping

from torch import Tensor

from steelseg.config.config import Config
from steelseg.errors import CheckpointError
from steelseg.models.checkpoint import Checkpoint
from steelseg.models.model import StripNet, build_model


def build_network(config: Config, *, is_new: bool = True) -> StripNet:
    """Build an untrained network; if `is_new`, with the encoder weights of the settings."""
    return build_model(
        arch=config.model.arch,
        encoder=config.model.encoder,
        encoder_depth=config.model.encoder_depth,
        encoder_weights=config.model.encoder_weights if is_new else None,
        channels=config.data.channels,
        num_classes=config.data.num_classes,
        mean=config.data.channel_mean,
        std=config.data.channel_std,
        presence_head=config.model.presence_head,
    )


def fill_network(config: Config, weights: Mapping[str, Tensor]) -> StripNet:
    """Build a network and load weights; it is in eval mode.

    Raises:
        CheckpointError: if the weights do not fit the settings.
    """
    model = build_network(config, is_new=False)
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"The weights do not match the settings stored with them: {reason}"
        ) from None
    return model.eval()


def restore_model(checkpoint: Checkpoint) -> StripNet:
    """Build the network of a checkpoint with its weights; it is in eval mode.

    Raises:
        CheckpointError: if the weights do not fit the settings in the checkpoint.
    """
    return fill_network(checkpoint.config, checkpoint.model)
