"""Arguments shared by several commands: settings, folds, a run folder.

No module of this package imports `pathlib`, `typing` or `dataclasses` before a command runs:
they take 5 to 12 ms each, where an interpreter starts in 17.
"""

import argparse
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from steelseg.config.config import Config

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = argparse._SubParsersAction

CONFIG_HELP = "a settings file such as configs/smoke.yaml, or a run folder"
OUT_HELP = "the run folder; default outputs/YYYYMMDD_HHMMSS"


def path(text: str) -> "Path":
    """Take a word of the command line as a path."""
    from pathlib import Path

    return Path(text)


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Take a word of the command line as a whole number from `low` to `high`, both included."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
            limits = f"at least {low}" if high is None else f"{low} to {high}"
            raise argparse.ArgumentTypeError(f"{text} is not a whole number, {limits}")
        return int(text)

    return read


def add_command(
    commands: Commands,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    *,
    takes_settings: bool = True,
) -> argparse.ArgumentParser:
    """Add a command; its help is the docstring of the function that runs it."""
    name = run.__name__.removeprefix("_run_").replace("_", "-")
    parser = commands.add_parser(
        name,
        help=summary,
        description=run.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, takes_settings=takes_settings, reword=str)
    return parser


def add_fold(parser: argparse.ArgumentParser) -> None:
    """Add --fold."""
    parser.add_argument(
        "--fold", type=int, nargs="+", metavar="K", help="only these folds; default all"
    )


def load(args: argparse.Namespace) -> "Config":
    """Settings to train with: a YAML file or a run folder, with the command line's over them."""
    from steelseg.config.load import load_config
    from steelseg.run.run_folder import RunFolder

    if args.config.is_dir():
        return RunFolder(args.config).load_config(tuple(args.settings), to_train=True)
    return load_config(args.config, args.settings)


def out(args: argparse.Namespace) -> "Path | None":
    """Where a run goes: --out, else the run folder that was named as the settings."""
    return args.out or (args.config if args.config.is_dir() else None)
