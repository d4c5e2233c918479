"""Load encoder weights from a local file.

The file is a safetensors state dict: of the encoder itself (with the tensor names of torchvision,
timm or segmentation-models-pytorch) or of a whole steelseg model, whose encoder is used. Pickles
are refused, because loading one can run any code.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from steelseg.errors import CheckpointError, ConfigError

# The first matches the names of an encoder itself; the others are prefixes of wrapping modules.
_PREFIXES = ("", "encoder.", "network.encoder.", "model.network.encoder.", "module.")
# Heads of classifiers, which a segmentation encoder does not have.
_HEADS = ("classifier.", "fc.", "last_linear.", "head.", "conv_head.", "bn2.", "_fc.")

# The name of an encoder's stage, as torchvision and timm number them.
_STAGE = re.compile(r"(?:model\.)?(?:layer|blocks\.|stages\.|stages_|features\.)\d+\.")


def is_file_name(encoder_weights: str) -> bool:
    """Whether the setting names a local file rather than weights on the model hub."""
    return "/" in encoder_weights or "." in encoder_weights


def load_encoder_weights(encoder: nn.Module, path: Path, *, channels: int) -> None:
    """Load a local file into an encoder.

    For grey images, a first convolution with three input channels is summed to one, which gives
    the same result as repeating the grey image three times.

    Args:
        encoder: The encoder to fill.
        path: A .safetensors file.
        channels: Input channels of the encoder, 1 or 3.

    Raises:
        ConfigError: if the file is missing or a pickle.
        CheckpointError: if it is damaged, or its tensors are not this encoder's.
    """
    found = _read(path)
    expected = encoder.state_dict()
    chosen = _strip_prefix(found, expected)
    missing = [name for name in expected if name not in chosen]
    # Old files have no batch counters, which are not weights.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    extra = [name for name in chosen if name not in expected and not _is_left_out(name, expected)]
    if missing or extra:
        raise CheckpointError(
            f"{path} does not match the encoder: {_list('missing', missing)}, "
            f"{_list('unexpected', extra)}. Is model.encoder the one it was trained for?"
        )
    fitted = {name: chosen[name] for name in expected if name in chosen}
    for name, tensor in fitted.items():
        fitted[name] = _fit_channels(tensor, expected[name], channels=channels)
        if fitted[name].shape != expected[name].shape:
            raise CheckpointError(
                f"{path} does not match the encoder: {name} is {tuple(tensor.shape)}, "
                f"expected {tuple(expected[name].shape)}."
            )
    encoder.load_state_dict(fitted, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or raise ConfigError or CheckpointError."""
    if not path.is_file():
        raise ConfigError(
            f"model.encoder_weights={path}: there is no such file. Use imagenet, none, or the "
            "path of a .safetensors file."
        )
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"model.encoder_weights={path}: only .safetensors files are read, because loading a "
            "pickle can run any code. Convert it with safetensors.torch.save_file."
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}.") from None


def _strip_prefix(found: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Remove the prefix under which most names match; timm's encoders add `model.`."""
    expected = set(expected)
    candidates = []
    for prefix in _PREFIXES:
        names = {n.removeprefix(prefix): t for n, t in found.items() if n.startswith(prefix)}
        candidates += [names, {f"model.{name}": tensor for name, tensor in names.items()}]
    return max(candidates, key=lambda names: len(expected & names.keys()))


def _is_left_out(name: str, expected: Collection[str]) -> bool:
    """Whether a tensor belongs to a classification head, or to a stage that the encoder lacks."""
    if name.removeprefix("model.").startswith(_HEADS):
        return True
    stage = _STAGE.match(name)
    return stage is not None and not any(other.startswith(stage[0]) for other in expected)


def _fit_channels(tensor: Tensor, like: Tensor, *, channels: int) -> Tensor:
    """Sum a first convolution with three input channels to one, if the encoder has one."""
    grey = channels == 1 and tensor.ndim == 4 and like.ndim == 4
    if grey and tensor.shape[1] == 3 and like.shape[1] == 1 and tensor.shape[0] == like.shape[0]:
        return torch.sum(tensor, dim=1, keepdim=True)
    return tensor


def _list(title: str, names: list[str]) -> str:
    """Count tensors and name a few, for an error message."""
    if not names:
        return f"none {title}"
    return f"{len(names)} {title} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
