"""Count the source files in which a function is called while one fold trains for one epoch.

    python benchmarks/files_entered.py [--files] [section.name=value ...]

Runs `steelseg train` in this process, on a small synthetic data set, and prints how many files
of the package a reader of that training passes through. Importing a file does not count; calling
a function, method or property of it does, in any thread. `--files` lists them with the number of
different functions called in each.
"""

import argparse
import inspect
import io
import logging
import sys
import tempfile
import threading
from collections import defaultdict
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import steelseg
from steelseg.cli.main import main as steelseg_command

PACKAGE = Path(steelseg.__file__).parent
ROOT = Path(__file__).parents[1]
DATA = "--num-train 12 --num-test 2 --height 64 --width 256 --min-per-class 2"
SETTINGS = (
    "data.img_height=64 data.img_width=256 data.crop_height=64 data.crop_width=128 "
    "data.crop_stride=64 model.arch=linknet model.encoder=tu-resnet10t"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", action="store_true", help="also list the files")
    parser.add_argument("settings", nargs="*", metavar="section.name=value")
    args = parser.parse_args()
    entered = files_entered(args.settings)
    if args.files:
        for file in sorted(entered):
            print(f"{len(entered[file]):4} {file}")
    print(f"{len(entered)} files entered by one fold and one epoch of training")


def files_entered(settings=()):
    """Train a fold for an epoch; return the functions called in each file of the package."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        data = Path(folder) / "data"
        run("synth", str(data), *DATA.split())
        train = ["train", str(ROOT / "configs" / "smoke.yaml"), "--fold", "0"]
        train += [f"data.root={data}", *SETTINGS.split(), *settings]
        # Once unwatched, so that nothing is imported in the second run.
        run(*train, "--out", str(Path(folder) / "first"))
        with recording_calls() as called:
            run(*train, "--out", str(Path(folder) / "second"))
    files = defaultdict(set)
    for code in called:
        files[str(Path(code.co_filename).relative_to(PACKAGE))].add(code.co_qualname)
    return files


def run(*words):
    """Run a command of `steelseg` in this process; exit if it fails."""
    messages = io.StringIO()
    with redirect_stderr(messages):
        code = steelseg_command(words)
    logging.getLogger("steelseg").handlers.clear()
    if code:
        sys.exit(f"steelseg {' '.join(words)}:\n{messages.getvalue()}")


@contextmanager
def recording_calls():
    """Collect the code of every function of the package that is called inside the block."""
    called, prefix = set(), f"{PACKAGE}/"

    def note(frame, event, _argument):
        code = frame.f_code
        # Bodies of modules and classes lack the flag that those of functions have.
        is_function = code.co_flags & inspect.CO_OPTIMIZED
        if event == "call" and is_function and code.co_filename.startswith(prefix):
            called.add(code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


if __name__ == "__main__":
    main()
