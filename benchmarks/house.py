"""Print the size and shape of the package: lines, settings, layers, lengths of functions.

    python benchmarks/house.py

Length of a function: its lines from `def` to its end, docstring included. Counts functions and
methods, nested ones too. Files entered: see `files_entered.py`.
"""

import ast
import statistics
import tomllib

from files_entered import PACKAGE, ROOT, files_entered
from steelseg.config.config import setting_names


def main():
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    functions = sorted(length for text in sources.values() for length in function_lengths(text))
    rooms = [path for path in (PACKAGE / "evaluation").rglob("*.py") if path.stem != "__init__"]
    figures = {
        "lines of src/steelseg": sum(text.count("\n") for text in sources.values()),
        "files in src/steelseg": len(sources),
        "settings": len(list(setting_names())),
        "layers in the import contract": len(layers()),
        "modules in evaluation/": len(rooms),
        "functions": len(functions),
        "function length, median": statistics.median(functions),
        "function length, 90th percentile": functions[len(functions) * 9 // 10],
        "function length, longest": functions[-1],
        "files entered by one fold and one epoch of training": len(files_entered()),
    }
    for name, figure in figures.items():
        print(f"{figure:>8g}  {name}")


def function_lengths(text):
    """Yield the lines of every function and method in a source text."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.end_lineno - node.lineno + 1


def layers():
    """Return the layers of the import contract in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    return next(contract["layers"] for contract in contracts if contract["type"] == "layers")


if __name__ == "__main__":
    main()
