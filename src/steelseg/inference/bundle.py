"""A bundle as members of an ensemble: every file is checked before one is loaded.

What a bundle is, `steelseg.inference.manifest` says. An exported network needs no torch
network beside it.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from steelseg.config import Config
from steelseg.config_file import build_config
from steelseg.errors import CheckpointError
from steelseg.inference.forward import Network
from steelseg.inference.manifest import (
    MANIFEST,
    BundledModel,
    Manifest,
    read_manifest,
    refuse_changed,
)
from steelseg.inference.members import Member
from steelseg.models.build import fill_network


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
            load=_loader(folder, manifest, held[fold], trained),
        )
        for fold in folds or held
    )
    return config, members


def _loader(
    folder: Path, manifest: Manifest, model: BundledModel, config: Config
) -> Callable[[torch.device], Network]:
    """How a network of a bundle is loaded."""
    path = folder / model.file

    def load_weights(device: torch.device) -> Network:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest.files[model.file].sha256:
            raise CheckpointError(f"{path} was replaced while it was in use. Start again.")
        try:
            weights = load(content)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a whole safetensors file: {error}.") from None
        return fill_network(config, weights).to(device)

    return load_weights
