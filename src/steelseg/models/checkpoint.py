"""Checkpoints: one safetensors file with a checksum over all of its content.

Tensors are stored under `model.NAME` and, in resumable files, `optimizer.INDEX.NAME` and, with
weight averaging, `average.NAME`. The rest (settings, epoch, scores, history) is JSON in the header.
A SHA-256 over everything is verified on every load, because a flipped bit would give silently wrong
weights. Nothing is pickled.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from steelseg.config.config import Config
from steelseg.config.load import build_stored_config
from steelseg.errors import CheckpointError, ConfigError, TrainingError
from steelseg.files.atomic import write_bytes

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A state of training, on the CPU."""

    model: Mapping[str, Tensor]
    """State dict of the `StripNet`."""

    optimizer: Mapping[str, Tensor]
    """Tensors of the optimizer, as `INDEX.NAME`; empty if training cannot resume from here."""

    state: Mapping[str, Any]
    """JSON values: config, fold, epoch, dice and, in resumable files, progress."""

    sha256: str = ""
    """SHA-256 over all of it, as stored in the file; "" before it is saved."""

    average: Mapping[str, Tensor] = field(default_factory=dict)
    """State dict of the averaged weights; empty without weight averaging."""

    @property
    def config(self) -> Config:
        """The settings that the model was trained with."""
        return build_stored_config(self.state["config"], source="the checkpoint")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; `path` has the old file or the new one, never a partial one.

    Raises:
        TrainingError: if a tensor is not finite; nothing is written then.
    """
    tensors = {f"model.{name}": _plain(tensor) for name, tensor in checkpoint.model.items()}
    tensors |= {
        f"optimizer.{name}": _plain(tensor) for name, tensor in checkpoint.optimizer.items()
    }
    tensors |= {f"average.{name}": _plain(tensor) for name, tensor in checkpoint.average.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not math.isfinite(tensor.sum(dtype=torch.float32)):
            raise TrainingError(f"{name} is not finite, so {path.name} was not saved")
    text = json.dumps({"format": FORMAT, **checkpoint.state})
    header = {"steelseg": text, "sha256": _digest(tensors, text)}
    write_bytes(path, save(tensors, metadata=header))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and verify its SHA-256.

    Raises:
        CheckpointError: if the file is missing, damaged, or not a steelseg checkpoint.
    """
    header, tensors = _open(path, with_tensors=True)
    text = header["steelseg"]
    if header.get("sha256") != _digest(tensors, text):
        raise CheckpointError(f"{path} is damaged: its SHA-256 does not match its content.")
    state = _read_state(path, text)
    return Checkpoint(
        _with_prefix(tensors, "model."),
        _with_prefix(tensors, "optimizer."),
        state,
        header["sha256"],
        _with_prefix(tensors, "average."),
    )


def _open(path: Path, *, with_tensors: bool) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read the header and, if asked, the tensors of a checkpoint, or raise CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint.")
    try:
        if with_tensors:
            header, tensors = _parse(path.read_bytes())
        else:
            with safe_open(path, framework="pt") as file:
                header, tensors = file.metadata() or {}, {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}.") from None
    if "steelseg" not in header:
        raise CheckpointError(
            f"{path} is not a steelseg checkpoint. Load other weights by model.encoder_weights."
        )
    return header, tensors


def _parse(content: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Parse the metadata and tensors of a safetensors file.

    The file is read, not memory-mapped, so that later changes to it cannot reach the weights.
    """
    tensors = load(content)
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]).get("__metadata__", {}), tensors


def read_header(path: Path) -> tuple[Config, str]:
    """Read the settings and the SHA-256 of a checkpoint, without verifying its tensors.

    Raises:
        CheckpointError: if the file is missing, not one of steelseg, or its header is damaged.
    """
    header, _ = _open(path, with_tensors=False)
    state = _read_state(path, header["steelseg"])
    try:
        content = {name: dict(section) for name, section in state["config"].items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        raise CheckpointError(f"{path} is damaged: its header has no settings.") from None
    try:
        return build_stored_config(content, source=str(path)), header.get("sha256", "")
    except ConfigError:
        # Wrong settings may be a flipped bit, which the SHA-256 reveals.
        load_checkpoint(path)
        raise


def _read_state(path: Path, text: str) -> dict[str, Any]:
    """Parse the JSON of a header; CheckpointError if it is damaged or of another version."""
    try:
        state: dict[str, Any] = json.loads(text)
        version = state.pop("format")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise CheckpointError(f"{path} is damaged: its header has no settings.") from None
    if version != FORMAT:
        raise CheckpointError(f"{path} was written by an incompatible version of steelseg.")
    return state


def _plain(tensor: Tensor) -> Tensor:
    """Copy a tensor to the CPU, contiguous, so that it shares memory with no other."""
    return tensor.detach().cpu().contiguous().clone()


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under `prefix`, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of all tensors and the JSON text."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
