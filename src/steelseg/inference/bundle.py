"""The networks of a bundle; every file is verified before any is loaded.

`steelseg.run.bundle_manifest` describes the format. An exported network needs no torch network.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from steelseg.config.config import Config
from steelseg.config.load import build_stored_config
from steelseg.errors import CheckpointError
from steelseg.inference.forward import ForwardPlan, Network
from steelseg.inference.load_exported import load_exported
from steelseg.inference.members import EnsembleWeight, Member, Screener
from steelseg.models.build import fill_network
from steelseg.models.model import StripNet
from steelseg.run.bundle_manifest import (
    MANIFEST,
    BundledModel,
    Manifest,
    read_manifest,
    refuse_changed,
    seal_of,
)


def open_bundle(
    folder: Path, overrides: Sequence[str] = (), *, folds: Sequence[int] | None = None
) -> tuple[Config, tuple[Member, ...], Screener | None]:
    """Verify a bundle and describe its networks.

    Args:
        folder: The bundle.
        overrides: Settings to change, such as "postprocess.threshold=0.4".
        folds: Folds of the bundle to use; None takes all.

    Returns:
        The settings, the networks in the order of the manifest, and the screening network.

    Raises:
        CheckpointError: if a file differs from the manifest, or a fold is missing.
        ConfigError: if an override is wrong.
    """
    manifest = read_manifest(folder)
    refuse_changed(folder, manifest.files)
    source = str(folder / MANIFEST)
    trained = build_stored_config(manifest.config, source=source)
    config = build_stored_config(manifest.config, overrides, source=source)
    held = list(dict.fromkeys(model.fold for model in manifest.models))
    for fold in folds or ():
        if fold not in held:
            available = ", ".join(map(str, held))
            raise CheckpointError(f"{folder} has no fold {fold}. It contains: {available}.")
    members = tuple(
        _member(folder, manifest, model, trained, amp=config.inference.amp)
        for fold in folds or held
        for model in manifest.models
        if model.fold == fold
    )
    if manifest.first is None:
        return config, members, None
    first = build_stored_config(manifest.first.config, source=source)
    screener = _member(folder, manifest, manifest.first.model, first, amp=first.inference.amp)
    return config, members, Screener(screener, first, manifest.first.cut)


def _member(
    folder: Path, manifest: Manifest, model: BundledModel, trained: Config, *, amp: bool
) -> Member:
    """Describe one network; in a bundle of a combined run it has settings of its own."""
    config, weight = trained, None
    if model.config is not None:
        config = build_stored_config(model.config, source=str(folder / MANIFEST))
    if share := model.share:
        plan = ForwardPlan(tta=share.tta, crop=share.crop, amp=amp)
        weight = EnsembleWeight(plan, share.weights, share.presence)
    path = folder / model.file

    def load(device: torch.device) -> Network:
        _refuse_replaced(folder, manifest, path)
        if model.multiple is None:
            return _load_torch(path, config).to(device)
        return load_exported(path, multiple=model.multiple, amp=amp)

    return Member(
        name=str(path),
        config=config,
        sha256=model.checkpoint_sha256,
        weights_sha256=_weights_sha256(manifest, model),
        load=load,
        side_by_side=manifest.backend != "torch",
        weight=weight,
    )


def _weights_sha256(manifest: Manifest, model: BundledModel) -> str:
    """Return one digest of a network's files, which have the same stem."""
    stem = Path(model.file).stem
    parts = [f"{n} {s.sha256}" for n, s in sorted(manifest.files.items()) if Path(n).stem == stem]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _refuse_replaced(folder: Path, manifest: Manifest, path: Path) -> None:
    """Raise CheckpointError if a file of a network is not the one that was verified."""
    for name, seal in manifest.files.items():
        file = folder / name
        if file.stem == path.stem and (not file.is_file() or seal_of(file) != seal):
            raise CheckpointError(f"{file} was replaced while it was in use. Start again.")


def _load_torch(path: Path, config: Config) -> StripNet:
    """Build a torch network and load its weights from a safetensors file."""
    try:
        return fill_network(config, load_file(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}.") from None
