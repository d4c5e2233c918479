"""Arguments that several commands share, each declared once.

No module of this package imports `pathlib`, `typing` or `dataclasses` before a command runs:
each takes 5 to 12 ms to import, and the interpreter itself only 17 ms to start.
"""

import argparse
from collections.abc import Callable
from textwrap import dedent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from steelseg.config.config import Config

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = argparse._SubParsersAction


def path(text: str) -> "Path":
    """Convert an argument to a path."""
    from pathlib import Path

    return Path(text)


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a parser of integers from `low` to `high`, both included."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
            limits = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text} is not a whole number {limits}")
        return int(text)

    return read


def add_command(
    commands: Commands,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    *,
    takes_settings: bool = True,
) -> argparse.ArgumentParser:
    """Add a command named after `run`, whose docstring is its help."""
    name = run.__name__.removeprefix("_run_").replace("_", "-")
    # Python removes the indentation of docstrings from version 3.13 on.
    first, _, rest = (run.__doc__ or "").partition("\n")
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{first}\n{dedent(rest)}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, takes_settings=takes_settings, reword=str)
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the argument for the settings."""
    parser.add_argument(
        "config", type=path, help="a settings file such as configs/smoke.yaml, or a run folder"
    )


def add_run_dir(parser: argparse.ArgumentParser, name: str = "run_dir", **options: "Any") -> None:
    """Add a run folder; `options` are those of `add_argument`."""
    options = {"metavar": "RUN", "help": "a run folder"} | options
    parser.add_argument(name, type=path, **options)


def add_model(parser: argparse.ArgumentParser, name: str, **options: "Any") -> None:
    """Add a model to predict with; `options` are those of `add_argument`."""
    add_run_dir(parser, name, help="a run folder or a bundle", **options)


def add_fold(parser: argparse.ArgumentParser) -> None:
    """Add --fold."""
    parser.add_argument(
        "--fold", type=int, nargs="+", metavar="K", help="only these folds; default all"
    )


def add_run_out(parser: argparse.ArgumentParser) -> None:
    """Add --out, the run folder to write."""
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="the run folder; default the run folder named as CONFIG, or outputs/YYYYMMDD_HHMMSS",
    )


def add_overlays(parser: argparse.ArgumentParser) -> None:
    """Add --overlays."""
    parser.add_argument("--overlays", action="store_true", help="also draw strips with outlines")


def add_number(
    parser: argparse.ArgumentParser,
    name: str,
    default: int,
    help: str,
    *,
    metavar: str = "N",
    low: int = 1,
) -> None:
    """Add a whole number of at least `low`; its help ends with the default."""
    parser.add_argument(
        name, type=integer(low), default=default, metavar=metavar, help=f"{help}; default {default}"
    )


def load(args: argparse.Namespace) -> "Config":
    """Read a settings file or a run folder, with the settings of the command line applied."""
    from steelseg.config.load import load_config
    from steelseg.run.run_folder import RunFolder

    if args.config.is_dir():
        return RunFolder(args.config).load_config(tuple(args.settings), to_train=True)
    return load_config(args.config, args.settings)


def out(args: argparse.Namespace) -> "Path | None":
    """Return --out, else the run folder given as the settings, else None."""
    return args.out or (args.config if args.config.is_dir() else None)
