"""steelseg finds and outlines defects on photographs of steel strip.

    from steelseg import Predictor
    masks = Predictor("outputs/RUN")("strip.jpg")      # bool, shape (classes, height, width)

Public are `Predictor`, `load_config` with its `Config`, and the functions of `steelseg.api`. They
are loaded when first used, so importing the package loads neither torch nor numpy.
"""

import sys
from importlib import import_module
from types import ModuleType

from steelseg.version import __version__

# Type checkers treat it as that of `typing`, which takes longer to import than all of --help.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from steelseg.api import *  # noqa: F403
    from steelseg.config.config import Config
    from steelseg.config.load import load_config
    from steelseg.inference.predictor import Predictor

# Where a name is defined; every other public name is a function of `steelseg.api`.
_HOMES = {
    "Config": "steelseg.config.config",
    "Predictor": "steelseg.inference.predictor",
    "load_config": "steelseg.config.load",
}

__all__ = [  # noqa: F405
    "Config",
    "Predictor",
    "__version__",
    "bench",
    "bundle",
    "cascade",
    "check",
    "compare",
    "ensemble",
    "evaluate",
    "export",
    "load_config",
    "oof",
    "precrop",
    "predict",
    "preview_augmentation",
    "pseudo",
    "report",
    "repository",
    "run",
    "search",
    "serve",
    "synth",
    "train",
    "tune",
    "watch",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'steelseg' has no attribute '{name}'")
    return getattr(import_module(_HOMES.get(name, "steelseg.api")), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__


class _Package(ModuleType):
    """Keeps `steelseg.run` the function: importing the folder run/ would put it in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
