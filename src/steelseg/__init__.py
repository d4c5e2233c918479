"""steelseg finds and outlines defects on photographs of steel strip.

    from steelseg import Predictor
    masks = Predictor("outputs/RUN")("strip.jpg")      # bool, shape (classes, height, width)

Names are loaded when first used, so that importing the package costs nothing.
"""

import sys
from importlib import import_module
from types import ModuleType

from steelseg.version import __version__

# Checkers take it for that of `typing`, which takes longer to import than all of --help.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from steelseg.api import run, train
    from steelseg.config.config import Config
    from steelseg.config.load import load_config
    from steelseg.inference.predictor import Predictor

_HOMES = {
    "Config": "steelseg.config.config",
    "Predictor": "steelseg.inference.predictor",
    "load_config": "steelseg.config.load",
    "run": "steelseg.api",
    "train": "steelseg.api",
}

__all__ = ["Config", "Predictor", "__version__", "load_config", "run", "train"]


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'steelseg' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """Keeps `steelseg.run` the function: importing the folder run/ would put it in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
