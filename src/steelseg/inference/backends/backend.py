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

    Files of a network have the endings of its `ExportFormat` and one stem; a `path` has the first.
    """

    def write(
        self,
        model: StripNet,
        path: Path,
        *,
        channels: int,
        size: Size = None,
        for_int8: bool = False,
    ) -> None:
        """Write the `core` of a network in full precision.

        Args:
            model: The network, in eval mode, on the CPU.
            path: The file to write. The bytes must depend on nothing but the other arguments.
            channels: Image channels.
            size: Fixed height and width, multiples of `model.multiple`; None accepts any size.
            for_int8: Whether it will be quantized.

        Raises:
            ConfigError: if the network cannot be written, or a package is not installed.
        """

    def quantize(self, source: Path, path: Path, strips: Sequence[NDArray[np.uint8]]) -> None:
        """Write a file in int8, from one in full precision; not called for formats without int8.

        Args:
            source: The file in full precision.
            path: The file to write.
            strips: Calibration strips, shape (1, channels, H, W), of sizes that `source` accepts.
        """

    def load(self, path: Path, *, amp: bool) -> Loaded:
        """Load a network; `amp` asks for half precision, if the backend and machine support it.

        Raises:
            CheckpointError: if the file is damaged, or would read another file.
            ConfigError: if a package is not installed.
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
