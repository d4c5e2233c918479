"""A bundle as members of an ensemble: every file is checked before one is loaded.

What a bundle is, `steelseg.inference.manifest` says. An exported network needs no torch
network beside it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from steelseg.config import Config
from steelseg.config_file import build_config
from steelseg.errors import CheckpointError
from steelseg.inference.backends import load_exported
from steelseg.inference.forward import Network
from steelseg.inference.manifest import (
    MANIFEST,
    BundledModel,
    Manifest,
    read_manifest,
    refuse_changed,
    seal_of,
)
from steelseg.inference.members import Member
from steelseg.models.build import fill_network
from steelseg.models.model import StripNet


def open_bundle(
    folder: Path, overrides: Sequence[str] = (), *, folds: Sequence[int] | None = None
) -> tuple[Config, tuple[Member, ...]]:
    """Check a bundle and name its networks.

    Args:
        folder: The bundle.
        overrides: Settings to change, such as "postprocess.threshold=0.4".
        folds: Which of its folds; None takes all.

    Returns:
        The settings, and the networks in the order of the manifest.

    Raises:
        CheckpointError: if a file is not what the manifest says, or a fold is not there.
        ConfigError: if an override is wrong.
    """
    manifest = read_manifest(folder)
    refuse_changed(folder, manifest.files)
    source = str(folder / MANIFEST)
    trained = build_config(manifest.config, source=source)
    config = build_config(manifest.config, overrides, source=source)
    held = {model.fold: model for model in manifest.models}
    for fold in folds or ():
        if fold not in held:
            there = ", ".join(map(str, held))
            raise CheckpointError(f"{folder} has no fold {fold}. It holds: {there}.")
    members = tuple(
        Member(
            name=str(folder / held[fold].file),
            config=trained,
            sha256=held[fold].checkpoint_sha256,
            load=_loader(folder, manifest, held[fold], trained, amp=config.inference.amp),
        )
        for fold in folds or held
    )
    return config, members


def _loader(
    folder: Path, manifest: Manifest, model: BundledModel, config: Config, *, amp: bool
) -> Callable[[torch.device], Network]:
    """How a network of a bundle is loaded, by its backend."""
    path = folder / model.file

    def load_network(device: torch.device) -> Network:
        _refuse_replaced(folder, manifest, path)
        if model.multiple is None:
            return _with_weights(path, config).to(device)
        return load_exported(path, multiple=model.multiple, amp=amp)

    return load_network


def _refuse_replaced(folder: Path, manifest: Manifest, path: Path) -> None:
    """Raise CheckpointError if a model, or what lies beside it, is not what was checked."""
    for name, seal in manifest.files.items():
        beside = folder / name
        if beside.stem == path.stem and (not beside.is_file() or seal_of(beside) != seal):
            raise CheckpointError(f"{beside} was replaced while it was in use. Start again.")


def _with_weights(path: Path, config: Config) -> StripNet:
    """The torch network of a safetensors file."""
    try:
        return fill_network(config, load_file(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}.") from None
