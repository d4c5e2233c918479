"""The command line: parse, call one function, print what was written.

Results go to stdout, progress and warnings to stderr. Exit 0: done. 1: the input is at
fault, said in a line each. 2: wrong usage. Anything else is a bug of ours with its traceback.
Commands import what they need when they run, so that --help is quick.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from steelseg import __version__
from steelseg.errors import SteelsegError

if TYPE_CHECKING:
    from steelseg.config import Config

# A setting is recognised wherever it stands, so options may come before or after it.
_SETTING = re.compile(r"[A-Za-z_]\w*\.\w+=.*", re.DOTALL)

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_CONFIG_HELP = "a settings file such as configs/smoke.yaml, or a run folder"
_OUT_HELP = "the run folder; default outputs/YYYYMMDD_HHMMSS"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Words of the command line; None takes the process's.

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
    try:
        return int(args.run(args) or 0)
    except SteelsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; a run goes on with --resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does.
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Describe every command; the reference in docs/ is made from this."""
    parser = argparse.ArgumentParser(
        prog="steelseg",
        description="Find and outline defects on photographs of steel strip.",
        epilog="Any setting can be given as section.name=value, such as train.epochs=3.",
    )
    parser.add_argument("--version", action="version", version=f"steelseg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_check(commands)
    _add_precrop(commands)
    _add_train(commands)
    _add_oof(commands)
    _add_predict(commands)
    _add_synth(commands)
    return parser


def _command(
    commands: Commands,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    *,
    takes_settings: bool = True,
) -> argparse.ArgumentParser:
    """Add a command; its help is the docstring of the function that runs it."""
    name = run.__name__.removeprefix("_run_")
    parser = commands.add_parser(
        name,
        help=summary,
        description=run.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, takes_settings=takes_settings)
    return parser


def _add_fold(parser: argparse.ArgumentParser) -> None:
    """Add --fold."""
    parser.add_argument(
        "--fold", type=int, nargs="+", metavar="K", help="only these folds; default all"
    )


def _add_run(commands: Commands) -> None:
    parser = _command(commands, _run_run, "the whole job, from train.csv to submission.csv")
    parser.add_argument("config", type=Path, help=_CONFIG_HELP)
    _add_fold(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help=_OUT_HELP)
    parser.add_argument("--resume", action="store_true", help="go on with a run that was begun")
    parser.add_argument("--overlays", action="store_true", help="also draw strips with outlines")


def _run_run(args: argparse.Namespace) -> int | None:
    """Do the whole job: check, precrop if the mode asks, train every fold, OOF, predict.

    Reads  data.root
    Writes DIR: checkpoints, OOF predictions, metrics.json, submission.csv

    Example: steelseg run configs/smoke.yaml data.root=input --out outputs/first
    """
    from steelseg.api import run

    path = run(
        _load(args),
        _out(args),
        folds=args.fold,
        resume=args.resume,
        overlays=args.overlays,
    )
    print(f"\ndone: {path}")
    return None


def _add_check(commands: Commands) -> None:
    parser = _command(commands, _run_check, "list everything that is wrong with a data set")
    parser.add_argument("config", type=Path, help=_CONFIG_HELP)


def _run_check(args: argparse.Namespace) -> int | None:
    """List everything that is wrong with a data set, as file:row: reason; exit 1 if anything is.

    Reads  data.root
    Writes nothing

    Example: steelseg check configs/smoke.yaml data.root=input
    """
    from steelseg.api import check

    inspection = check(_load(args))
    for fault in inspection.faults:
        print(fault)
    if inspection.faults:
        print(f"error: {len(inspection.faults)} faults", file=sys.stderr)
        return 1
    print(f"ok: {inspection.summary}")
    return None


def _add_precrop(commands: Commands) -> None:
    parser = _command(commands, _run_precrop, "decode every strip once, for mode precropped")
    parser.add_argument("config", type=Path, help=_CONFIG_HELP)


def _run_precrop(args: argparse.Namespace) -> int | None:
    """Decode every training strip once into a memory-mapped store.

    Reads  data.root
    Writes data.precropped_dir

    Example: steelseg precrop configs/precropped.yaml data.root=input
    """
    from steelseg.api import precrop

    print(f"{precrop(_load(args))} holds every training strip")
    return None


def _add_train(commands: Commands) -> None:
    parser = _command(commands, _run_train, "train folds, or go on with them")
    parser.add_argument("config", type=Path, help=_CONFIG_HELP)
    _add_fold(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help=_OUT_HELP)
    parser.add_argument("--resume", action="store_true", help="go on with folds that were begun")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="go on with one fold from this checkpoint"
    )


def _run_train(args: argparse.Namespace) -> int | None:
    """Train folds, or go on with them.

    Reads  data.root, and data.precropped_dir in mode precropped
    Writes DIR/folds.csv, DIR/fold_K/best_model.safetensors, last/, history.csv

    Example: steelseg train configs/full.yaml --fold 0 --out outputs/first
             steelseg train outputs/first --fold 0 --resume
    """
    from steelseg.api import train
    from steelseg.errors import ConfigError

    if args.checkpoint and len(args.fold or ()) != 1:
        raise ConfigError("--checkpoint goes on with one fold: name it with --fold K.")
    path = train(
        _load(args), _out(args), folds=args.fold, resume=args.resume, checkpoint=args.checkpoint
    )
    print(f"done: {path}")
    return None


def _add_oof(commands: Commands) -> None:
    parser = _command(commands, _run_oof, "predict and score the held-out strips")
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run folder")
    _add_fold(parser)
    parser.add_argument("--npy", action="store_true", help="also write oof_predictions.npy")
    parser.add_argument("--overlays", action="store_true", help="also draw truth and prediction")


def _run_oof(args: argparse.Namespace) -> int | None:
    """Predict every held-out strip with the best model of its fold, and score.

    Reads  RUN/fold_K/best_model.safetensors, data.root
    Writes RUN/fold_K/oof_predictions.zarr, RUN/metrics.json

    Example: steelseg oof outputs/first
    """
    from steelseg.api import oof

    oof(args.run_dir, args.settings, folds=args.fold, npy=args.npy, overlays=args.overlays)
    print(f"wrote {args.run_dir / 'metrics.json'}")
    return None


def _add_predict(commands: Commands) -> None:
    parser = _command(commands, _run_predict, "predict images and write submission.csv")
    parser.add_argument("run_dir", type=Path, nargs="?", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--checkpoints", type=Path, nargs="+", metavar="FILE", help="checkpoints instead of a run"
    )
    _add_fold(parser)
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="images to predict; default data.root/test_images",
    )
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="where results go; default RUN"
    )
    parser.add_argument(
        "--format",
        choices=("coco", "png", "jsonl"),
        action="append",
        default=[],
        help="write this beside submission.csv; can be given several times",
    )
    parser.add_argument("--overlays", action="store_true", help="also draw strips with outlines")


def _run_predict(args: argparse.Namespace) -> int | None:
    """Predict images with the mean of a run's folds, or of any checkpoints.

    Reads  RUN/fold_K/best_model.safetensors or the checkpoints, and the images
    Writes DIR/submission.csv; on request predictions.json, masks/, predictions.jsonl, overlays/

    Example: steelseg predict outputs/first --images new_strips --output-dir found --overlays
             steelseg predict --checkpoints a.safetensors b.safetensors --output-dir found
    """
    from steelseg.errors import ConfigError
    from steelseg.inference.predict import predict_folder
    from steelseg.inference.predictor import Predictor

    if (args.run_dir is None) == (args.checkpoints is None):
        raise ConfigError("Give either a run folder or --checkpoints.")
    if args.checkpoints and args.fold:
        raise ConfigError("--fold chooses among the folds of a run; leave it out here.")
    if args.checkpoints and args.output_dir is None:
        raise ConfigError("--checkpoints needs --output-dir DIR.")
    source = args.checkpoints or args.run_dir
    written = predict_folder(
        Predictor(source, args.settings, folds=args.fold),
        args.output_dir or args.run_dir,
        images=args.images,
        formats=args.format,
        overlays=args.overlays,
    )
    for path in written:
        print(f"wrote {path}")
    return None


def _add_synth(commands: Commands) -> None:
    parser = _command(commands, _run_synth, "make a small synthetic data set", takes_settings=False)
    parser.add_argument("root", type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--num-train", type=int, default=160, metavar="N", help="training strips")
    parser.add_argument("--num-test", type=int, default=24, metavar="N", help="test strips")
    parser.add_argument("--height", type=int, default=256, metavar="PX", help="height of a strip")
    parser.add_argument("--width", type=int, default=1600, metavar="PX", help="width of a strip")
    parser.add_argument(
        "--min-per-class",
        type=int,
        default=4,
        metavar="N",
        help="training strips of each class at least, where its real share gives fewer",
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same strips")


def _run_synth(args: argparse.Namespace) -> int | None:
    """Make a small synthetic data set in Kaggle's layout, to try everything on.

    Writes DIR/train_images/, test_images/, train.csv, sample_submission.csv

    Example: steelseg synth demo/data --num-train 160 --num-test 24
    """
    from steelseg.data.synthetic import make_dataset
    from steelseg.progress import progress

    make_dataset(
        args.root,
        num_train=args.num_train,
        num_test=args.num_test,
        height=args.height,
        width=args.width,
        min_per_class=args.min_per_class,
        seed=args.seed,
        progress=progress,
    )
    print(f"wrote {args.root}")
    return None


def _load(args: argparse.Namespace) -> "Config":
    """Settings of a YAML file or a run folder, with the command line's laid over them."""
    from steelseg.config_file import load_config
    from steelseg.run_folder import RunFolder

    if args.config.is_dir():
        return RunFolder(args.config).load_config(tuple(args.settings))
    return load_config(args.config, args.settings)


def _out(args: argparse.Namespace) -> Path | None:
    """Where a run goes: --out, else the run folder that was named as the settings."""
    return args.out or (args.config if args.config.is_dir() else None)
