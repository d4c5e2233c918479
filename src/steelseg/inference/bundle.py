"""A bundle as members of an ensemble: every file is checked before one is loaded.

What a bundle is, `steelseg.run.bundle_manifest` says. An exported network needs no torch
network beside it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from steelseg.config.config import Config
from steelseg.config.load import build_stored_config
from steelseg.errors import CheckpointError
from steelseg.inference.backends import load_exported
from steelseg.inference.forward import ForwardPlan, Network
from steelseg.inference.members import FirstLook, Member, Share
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
) -> tuple[Config, tuple[Member, ...], FirstLook | None]:
    """Check a bundle and name its networks.

    Args:
        folder: The bundle.
        overrides: Settings to change, such as "postprocess.threshold=0.4".
        folds: Which of its folds; None takes all.

    Returns:
        The settings, the networks in the order of the manifest, and what looks first.

    Raises:
        CheckpointError: if a file is not what the manifest says, or a fold is not there.
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
            there = ", ".join(map(str, held))
            raise CheckpointError(f"{folder} has no fold {fold}. It holds: {there}.")
    amp = config.inference.amp
    members = tuple(
        _shared(_member(folder, manifest, model, _own(model, trained, source), amp=amp), model, amp)
        for fold in folds or held
        for model in manifest.models
        if model.fold == fold
    )
    if manifest.first is None:
        return config, members, None
    own = build_stored_config(manifest.first.config, source=source)
    looker = _member(folder, manifest, manifest.first.model, own, amp=own.inference.amp)
    return config, members, FirstLook(looker, own, manifest.first.cut)


def _member(
    folder: Path, manifest: Manifest, model: BundledModel, trained: Config, *, amp: bool
) -> Member:
    """One network of a bundle."""
    return Member(
        name=str(folder / model.file),
        config=trained,
        sha256=model.checkpoint_sha256,
        weights_sha256=_weights_sha256(manifest, model),
        load=_loader(folder, manifest, model, trained, amp=amp),
        side_by_side=manifest.backend != "torch",
    )


def _own(model: BundledModel, trained: Config, source: str) -> Config:
    """The settings that a network was trained with: its own, else those of the bundle."""
    return trained if model.config is None else build_stored_config(model.config, source=source)


def _shared(member: Member, model: BundledModel, amp: bool) -> Member:
    """A network with its part in a combined run, where it has one."""
    if model.share is None:
        return member
    share = model.share
    plan = ForwardPlan(tta=share.tta, crop=share.crop, amp=amp)
    return replace(member, share=Share(plan, share.weights, share.presence))


def _weights_sha256(manifest: Manifest, model: BundledModel) -> str:
    """One digest of a network's files, which are named alike."""
    stem = Path(model.file).stem
    parts = [f"{n} {s.sha256}" for n, s in sorted(manifest.files.items()) if Path(n).stem == stem]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


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
