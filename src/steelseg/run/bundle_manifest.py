"""manifest.json of a bundle: its content, and the check that it is unchanged.

    BUNDLE/
      manifest.json            settings, classes, thresholds, provenance, every file's SHA-256
      models/fold_0.safetensors, or the files of an export format

The manifest lists every file of the folder with size and SHA-256, and ends with a SHA-256 over
itself. A bundle is read only if all of that holds and nothing else lies in the folder. No path
leaves it, no link is followed, nothing is pickled. No torch.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from steelseg.config.export_formats import EXPORT_FORMATS, backends
from steelseg.config.flips import Flips
from steelseg.errors import CheckpointError
from steelseg.files.sha256 import sha256_file

MANIFEST = "manifest.json"

FORMAT = 1

# With weights of a combined run, which a version that reads only format 1 would ignore.
FORMAT_WITH_SHARES = 2

# Far above any manifest, so that a file of another kind is not read to its end.
_MOST_BYTES = 2**22

_FileName = Annotated[str, Field(pattern=r"^models/[A-Za-z0-9_-]+\.[a-z0-9]+$", max_length=100)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Side = Annotated[int, Field(ge=1)]


def _is_a_backend(name: str) -> str:
    """Raise ValueError unless the name is a backend."""
    if name not in backends():
        raise ValueError(f"{name!r} is not a backend; known are {', '.join(backends())}")
    return name


class _Record(BaseModel):
    """A read-only record; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileSeal(_Record):
    """Size and hash of a file."""

    size: int = Field(ge=0)
    """In bytes."""

    sha256: _Digest


class BundledShare(_Record):
    """The weight of a network in a combined run, and its flips and crops."""

    tta: Flips

    crop: tuple[_Side, _Side, _Side] | None
    """Height, width and stride of crops, in pixels; null predicts whole strips."""

    weights: tuple[Annotated[float, Field(ge=0)], ...]
    """Weight of its masks, one per class; 1 is the weight in a plain mean."""

    presence: Annotated[float, Field(ge=0)] | None
    """Weight of its presence, likewise; null if no network has a presence head."""


class BundledModel(_Record):
    """One network of a bundle."""

    fold: int = Field(ge=0)

    file: _FileName
    """The file that the backend opens."""

    checkpoint_sha256: _Digest
    """SHA-256 of the checkpoint that it was made from."""

    multiple: Annotated[int, Field(ge=1)] | None
    """Image sizes of an exported network must be multiples of this; null for torch."""

    config: dict[str, dict[str, Any]] | None = None
    """Settings of its member run, in a combined run."""

    share: BundledShare | None = None
    """Its weight in a combined run."""

    @model_serializer(mode="wrap")
    def _without_what_is_new(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit unset fields that older manifests do not have."""
        content: dict[str, Any] = serialize(self)
        new = ("config", "share")
        return {k: v for k, v in content.items() if v is not None or k not in new}


class BundledFirst(_Record):
    """The screening network of a cascade."""

    model: BundledModel

    config: dict[str, dict[str, Any]]
    """Settings of its run that prediction needs."""

    cut: float
    """Strips with a lower defect score skip the full model."""


class Manifest(_Record):
    """The content of manifest.json, without the SHA-256 over it."""

    format: Literal[1, 2] = 1

    steelseg: str
    """Version that made the bundle."""

    backend: Annotated[str, AfterValidator(_is_a_backend)]

    precision: Literal["fp32", "int8"]

    config: dict[str, dict[str, Any]]
    """Settings that prediction needs, with thresholds and sizes of every class."""

    models: tuple[BundledModel, ...] = Field(min_length=1)

    first: BundledFirst | None = None
    """The screening network; null uses the full model on every strip."""

    provenance: dict[str, Any]
    """For people: the run, when its checkpoints were trained, and how they scored."""

    files: dict[_FileName, FileSeal]


def manifest_text(manifest: Manifest) -> str:
    """Return the text of a manifest."""
    return sealed_text(manifest.model_dump(mode="json"))


def sealed_text(content: Mapping[str, Any]) -> str:
    """Return JSON with a SHA-256 over itself: over the sorted ASCII text without spaces."""
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    sealed = {**content, "sha256": hashlib.sha256(plain.encode()).hexdigest()}
    return json.dumps(sealed, indent=1) + "\n"


def is_bundle(folder: Path) -> bool:
    """Return whether a folder has a manifest."""
    return os.path.lexists(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json, and verify it.

    Raises:
        CheckpointError: if it is missing, damaged, of another version, or names a file outside.
    """
    path = folder / MANIFEST
    text = _read_text(path)
    try:
        content = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(f"{path} is damaged: it is not the JSON of a bundle.") from None
    content.pop("sha256", None)
    if content.get("format") not in (FORMAT, FORMAT_WITH_SHARES):
        raise CheckpointError(
            f"{path} has format {str(content.get('format'))[:20]}, this version of steelseg reads "
            f"{FORMAT} and {FORMAT_WITH_SHARES}. Bundle the run again: steelseg bundle RUN."
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part)[:60] for part in fault["loc"])
        raise CheckpointError(f"{path} is damaged: {place}: {fault['msg']}.") from None
    if text != manifest_text(manifest):
        raise CheckpointError(f"{path} is damaged: its SHA-256 does not fit its content.")
    has_shares = manifest.format == FORMAT_WITH_SHARES
    for model in manifest.models:
        if (model.share is not None, model.config is not None) != (has_shares, has_shares):
            raise CheckpointError(
                f"{path} is damaged: {model.file} has no weight, or an unexpected one."
            )
    first = (manifest.first.model,) if manifest.first else ()
    exported = EXPORT_FORMATS.get(manifest.backend)
    suffix = exported.suffixes[0] if exported else ".safetensors"
    for model in (*manifest.models, *first):
        listed = model.file in manifest.files
        fits = Path(model.file).suffix == suffix
        if not listed or not fits or (model.multiple is None) != (exported is None):
            raise CheckpointError(
                f"{path} is damaged: {model.file} is no {manifest.backend} network it lists."
            )
    return manifest


def _read_text(path: Path) -> str:
    """Read a text file of reasonable size that is not a link."""
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{path} is not a regular file. Is {path.parent} a whole bundle?")
    if path.stat().st_size > _MOST_BYTES:
        raise CheckpointError(f"{path} is damaged: it has more than {_MOST_BYTES} bytes.")
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is damaged: it is not UTF-8.") from None


def refuse_changed(folder: Path, files: Mapping[str, FileSeal]) -> None:
    """Raise CheckpointError unless a bundle has exactly these files, unchanged.

    Args:
        folder: The bundle.
        files: Size and SHA-256 of each file, by its path in the folder.
    """
    there = set(file_names(folder)) - {MANIFEST}
    if missing := sorted(files.keys() - there):
        raise CheckpointError(f"{folder / missing[0]} is missing: {MANIFEST} lists it.")
    if odd := sorted(there - files.keys()):
        raise CheckpointError(f"{folder / odd[0]} is not part of the bundle. Move it elsewhere.")
    for name, seal in files.items():
        path = folder / name
        if path.stat().st_size != seal.size:
            raise CheckpointError(
                f"{path} is damaged: it has {path.stat().st_size} bytes, expected {seal.size}."
            )
        if seal_of(path) != seal:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is not that of {MANIFEST}.")


def file_names(folder: Path) -> Iterator[str]:
    """Yield the relative path of every file in a folder; links and devices are refused."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            entries = list(found)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path).relative_to(folder).as_posix()
            else:
                raise CheckpointError(f"{entry.path} is not a regular file, which a bundle needs.")


def seal_of(path: Path) -> FileSeal:
    """Return size and SHA-256 of a file."""
    return FileSeal(size=path.stat().st_size, sha256=sha256_file(path))
