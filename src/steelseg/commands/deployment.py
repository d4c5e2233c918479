"""Commands that bring a run elsewhere: bundle."""

import argparse
from pathlib import Path

from steelseg.commands.arguments import Commands, add_command, add_fold


def add_bundle(commands: Commands) -> None:
    """Add `steelseg bundle`."""
    parser = add_command(commands, _run_bundle, "put all that prediction needs into one folder")
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run folder")
    add_fold(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where it goes; default RUN/bundle"
    )


def _run_bundle(args: argparse.Namespace) -> int | None:
    """Put all that prediction needs into one folder: networks, settings, thresholds, origin.

    The folder can be copied anywhere and named wherever a run is; every file is checked by its
    SHA-256 before it is used. A bundle that is there already is replaced once the new one is
    whole. Settings on the command line become the bundle's own.

    Reads  RUN/config.yaml, RUN/fold_K/best_model.safetensors, postprocess.json, metrics.json
    Writes FOLDER/manifest.json, FOLDER/models/

    Example: steelseg bundle outputs/first
             steelseg bundle outputs/first --fold 0 --out strips_v1 inference.tta=hflip
    """
    from steelseg.api import bundle

    print(f"wrote {bundle(args.run_dir, args.settings, out=args.out, folds=args.fold)}")
    return None
