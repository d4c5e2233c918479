"""The command line: parse, call one function, print what was written.

Results go to stdout, progress and warnings to stderr. Exit 0: success. 1: an error in the
input, one line each. 2: wrong usage. Anything else is a bug and prints its traceback.
Commands import what they need when they run, so that --help is quick.
"""

import argparse
import errno
import re
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from steelseg.cli import data, evaluation, export, prediction, serving, training, watch
from steelseg.errors import SteelsegError, Stopped, raising_out_of_memory
from steelseg.version import __version__

# The order of `steelseg --help`. A new command is an entry of COMMANDS in one of these.
_MODULES = (data, training, evaluation, prediction, watch, export, serving)

# Errors of disk or permissions, which the user can fix.
_FOR_THE_USER = frozenset(
    (
        errno.EACCES,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EFBIG,
        errno.EIO,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
    )
)

# A setting is recognised anywhere, so options may come before or after it.
_SETTING = re.compile(r"[A-Za-z_]\w*\.\w+=.*", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments; None uses those of the process.

    Returns:
        Exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    settings = [word for word in words if _SETTING.fullmatch(word)]
    args = build_parser().parse_args([word for word in words if word not in settings])
    if settings and not args.takes_settings:
        print(f"error: steelseg {args.command} takes no settings: {settings[0]}", file=sys.stderr)
        return 2
    args.settings = settings
    return guard(lambda: args.run(args), reword=args.reword)


def guard(run: Callable[[], int | None], *, reword: Callable[[str], str] = str) -> int:
    """Run a command; report user errors as one line on stderr and an exit code.

    Args:
        run: The command; None counts as 0.
        reword: Adapts messages to the command that prints them.

    Returns:
        Exit code.
    """
    # SIGTERM unwinds the stack as Ctrl-C does, so that no half-written file remains.
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with raising_out_of_memory():
            return int(run() or 0)
    except SteelsegError as error:
        print(f"error: {reword(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output has closed it, as `| head` does.
        return 1
    except OSError as error:
        if error.errno not in _FOR_THE_USER:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror}.{reword(_advice(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(reword("interrupted; continue the run with --resume"), file=sys.stderr)
        return 128 + (error.signum if isinstance(error, Stopped) else signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


def _advice(error: OSError) -> str:
    """Return advice for a full disk; an empty text for other errors."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    return " Free some space and run the command again; continue training with --resume."


def _stop(signum: int, _frame: FrameType | None) -> None:
    """Raise Stopped for a signal."""
    raise Stopped(signum)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of every command; docs/commands.md is generated from it."""
    parser = argparse.ArgumentParser(
        prog="steelseg",
        description="Find and outline defects on photographs of steel strip.",
        epilog="Any setting can be given as section.name=value, such as train.epochs=3.",
    )
    parser.add_argument("--version", action="version", version=f"steelseg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in _MODULES:
        for add in module.COMMANDS:
            add(commands)
    return parser
