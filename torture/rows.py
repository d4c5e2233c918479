"""Find the rows: all modules of this folder with a NAME."""

import importlib
import pkgutil
from pathlib import Path
from typing import Any


def find_rows() -> dict[str, Any]:
    """Import the modules of this folder and return the rows by module name."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    modules = {
        name: importlib.import_module(f"torture.{name}") for name in names if name != "__main__"
    }
    return {name: module for name, module in modules.items() if hasattr(module, "NAME")}
