"""The command for a production line: watch."""

import argparse

from steelseg.cli.arguments import (
    Commands,
    add_command,
    add_fold,
    add_model,
    add_overlays,
    integer,
    path,
)


def add_watch(commands: Commands) -> None:
    """Add `steelseg watch`."""
    parser = add_command(commands, _run_watch, "predict strips as they arrive in a folder")
    parser.add_argument(
        "folder", type=path, metavar="FOLDER", help="folder that the camera writes to"
    )
    add_model(parser, "--model", required=True)
    parser.add_argument(
        "--out", type=path, required=True, metavar="DIR", help="output folder, outside FOLDER"
    )
    add_fold(parser)
    parser.add_argument(
        "--settle",
        type=_seconds,
        default=0.5,
        metavar="S",
        help="seconds that a file must stay unchanged before it is read; default 0.5",
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="seconds after which an unreadable file is rejected; default 30",
    )
    parser.add_argument(
        "--pieces",
        metavar="REGEX",
        help=r"files are pieces of strips, named as in: (?P<strip>.+)_(?P<piece>\d+)",
    )
    parser.add_argument(
        "--piece-count",
        type=integer(1, 9999),
        metavar="N",
        help="pieces of every strip; default by time",
    )
    add_overlays(parser)
    parser.add_argument("--masks", action="store_true", help="write a PNG for each class found")
    parser.add_argument("--webhook", metavar="URL", help="post each line to this URL")
    parser.add_argument("--mqtt", metavar="URL", help="publish each line to mqtt://HOST/TOPIC")


def _seconds(text: str) -> float:
    """Read a number of seconds, at least 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return seconds


def _run_watch(args: argparse.Namespace) -> int | None:
    """Predict strips as they arrive in FOLDER, until interrupted.

    Ctrl-C and SIGTERM stop it after the current strip. Rerun the same command to resume, even after
    a kill: every strip gets exactly one line.

    Reads  FOLDER, RUN, DIR/results.jsonl
    Writes DIR/results.jsonl, one line per strip; on request overlays/, masks/; posts and publishes

    Example: steelseg watch camera --model outputs/first --out found --overlays
             steelseg watch camera --model bundle --out found --webhook https://mes.example/strips
    """
    import sys

    from steelseg.api import watch
    from steelseg.errors import Stopped

    try:
        watch(
            args.model,
            args.settings,
            folder=args.folder,
            out=args.out,
            folds=args.fold,
            settle=args.settle,
            patience=args.patience,
            pieces=args.pieces,
            piece_count=args.piece_count,
            overlays=args.overlays,
            masks=args.masks,
            webhook=args.webhook,
            mqtt=args.mqtt,
        )
    except Stopped as stopped:
        print("stopped; rerun the same command to resume", file=sys.stderr)
        return 128 + stopped.signum
    return None


COMMANDS = (add_watch,)
