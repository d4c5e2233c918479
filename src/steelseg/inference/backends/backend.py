"""The parts of an export backend: a module that writes and runs networks in one format.

An entry in `config.export_formats` and the module are all that a new backend needs. Packages of
backends are an extra, so they are imported when used. Nothing is sent: a plain `import openvino`
reports to Google Analytics, which `need` prevents.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from steelseg.config.export_formats import EXPORT_FORMATS
from steelseg.errors import CheckpointError, ConfigError
from steelseg.models.model import StripNet

Size = tuple[int, int] | None
"""Height and width of the images that a file accepts, in pixels; None accepts any."""


@dataclass(frozen=True)
class Loaded:
    """A network that computes several images in parallel."""

    infer: Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]
    """From one image, shape (1, channels, H, W), to its logits and presence logits, if any; they
    are valid until the same thread calls again."""

    size: tuple[int | None, int | None]
    """Height and width that it accepts; None accepts any."""

    threads: int
    """How many threads should call `infer` at once."""


class Backend(Protocol):
    """A module that writes and runs networks in one format.

    A network has one file for each suffix of its `ExportFormat`; a path is that of the first.
    """

    def write(
        self, model: StripNet, path: Path, *, channels: int, size: Size, for_int8: bool
    ) -> None:
        """Write the `core` of a network in full precision, as the same bytes each time.

        Arguments are those of `export.convert`; `for_int8` tells that the file will be quantized.
        """

    def quantize(self, source: Path, path: Path, strips: Sequence[NDArray[np.uint8]]) -> None:
        """Write a file in int8, calibrated on strips; not called for formats without int8."""

    def load(self, path: Path, *, amp: bool) -> Loaded:
        """Load a network; raise CheckpointError if a file is damaged, or refers to others.

        `amp` asks for half precision, which is used if backend and machine support it.
        """

    def half_precision(self) -> str | None:
        """Return the half precision that `load` uses on this machine, such as bf16, if any."""

    def triton_config(self, path: Path, *, largest_batch: int) -> str:
        """Return config.pbtxt for Triton; raise ConfigError if Triton cannot run the format."""


def load_backend(format: str) -> Backend:
    """Import the backend of a format."""
    backend: Backend = import_module(EXPORT_FORMATS[format].backend)
    return backend


def need(package: str) -> Any:
    """Import a package of the extra `export`, without telemetry.

    Raises:
        ConfigError: if it is not installed.
    """
    # Packages that would report to it skip it if it cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Exported networks need {error.name}, which is not installed: "
            "pip install 'steelseg[export]'."
        ) from None


def triton_tensor(kind: str, name: str, type: str, dims: Sequence[int]) -> str:
    """Return the line of an input or output in config.pbtxt; a size of -1 is any."""
    kinds = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
    sizes = ", ".join(map(str, dims))
    return f'{kind} [ {{ name: "{name}" data_type: {kinds[type]} dims: [ {sizes} ] }} ]\n'


def damaged(path: Path, error: Exception) -> CheckpointError:
    """Return the error of a backend that cannot read a file, as one of ours."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path} cannot be read by its backend: {first[:160].rstrip('. ')}.")
