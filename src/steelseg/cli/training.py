"""Commands that train: run, train, oof, pseudo, search."""

import argparse

from steelseg.cli.arguments import (
    Commands,
    add_command,
    add_config,
    add_fold,
    add_overlays,
    add_run_dir,
    add_run_out,
    load,
    out,
    path,
)


def add_run(commands: Commands) -> None:
    """Add `steelseg run`."""
    parser = add_command(
        commands, _run_run, "run the whole pipeline, from train.csv to submission.csv"
    )
    add_config(parser)
    add_fold(parser)
    add_run_out(parser)
    parser.add_argument("--resume", action="store_true", help="resume an interrupted run")
    add_overlays(parser)


def _run_run(args: argparse.Namespace) -> int | None:
    """Run the whole pipeline: check, precrop, train, oof, tune, evaluate, predict, report.

    Reads  data.root
    Writes DIR: checkpoints, OOF predictions, postprocess.json, metrics.json, submission.csv,
           report.html

    Example: steelseg run configs/smoke.yaml data.root=input --out outputs/first
    """
    from steelseg.api import run

    run_dir = run(
        load(args),
        out(args),
        folds=args.fold,
        resume=args.resume,
        overlays=args.overlays,
    )
    print(f"\ndone: {run_dir}")
    return None


def add_train(commands: Commands) -> None:
    """Add `steelseg train`."""
    parser = add_command(commands, _run_train, "train folds, or resume training")
    add_config(parser)
    add_fold(parser)
    add_run_out(parser)
    parser.add_argument("--resume", action="store_true", help="resume interrupted folds")
    parser.add_argument(
        "--checkpoint", type=path, metavar="FILE", help="resume one fold from this checkpoint"
    )


def _run_train(args: argparse.Namespace) -> int | None:
    """Train folds, or resume training.

    Reads  data.root, and data.precropped_dir in mode precropped
    Writes DIR/folds.csv, DIR/fold_K/best_model.safetensors, last/, history.csv

    Example: steelseg train configs/full.yaml --fold 0 --out outputs/first
             steelseg train outputs/first --fold 0 --resume
    """
    from steelseg.api import train
    from steelseg.errors import ConfigError

    if args.checkpoint and len(args.fold or ()) != 1:
        raise ConfigError("--checkpoint resumes a single fold: name it with --fold K.")
    run_dir = train(
        load(args), out(args), folds=args.fold, resume=args.resume, checkpoint=args.checkpoint
    )
    print(f"done: {run_dir}")
    return None


def add_oof(commands: Commands) -> None:
    """Add `steelseg oof`."""
    parser = add_command(commands, _run_oof, "predict the held-out strips")
    add_run_dir(parser)
    add_fold(parser)
    parser.add_argument("--npy", action="store_true", help="also write oof_predictions.npy")


def _run_oof(args: argparse.Namespace) -> int | None:
    """Predict every held-out strip with the best model of its fold.

    Reads  RUN/fold_K/best_model.safetensors, data.root
    Writes RUN/fold_K/oof_predictions.zarr

    Example: steelseg oof outputs/first
    """
    from steelseg.api import oof

    oof(args.run_dir, args.settings, folds=args.fold, npy=args.npy)
    return None


def add_search(commands: Commands) -> None:
    """Add `steelseg search`."""
    parser = add_command(commands, _run_search, "search for the best settings")
    # Resuming needs no --resume.
    parser.set_defaults(reword=_with_the_same_command)
    add_config(parser)
    parser.add_argument(
        "--out",
        type=path,
        default="outputs/search",
        metavar="DIR",
        help="the folder of the search; default %(default)s",
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", help="total number of trials; default search.trials"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="time budget in minutes: finish the current epoch, then stop; rerun to resume",
    )
    parser.add_argument(
        "--fold",
        type=int,
        nargs="+",
        default=[0],
        metavar="K",
        help="folds that each trial trains; default 0",
    )


def _with_the_same_command(text: str) -> str:
    """Say how to resume a search."""
    return text.replace("with --resume", "with the same command")


def _run_search(args: argparse.Namespace) -> int | None:
    """Search for the best settings; each trial trains a run of its own.

    Section search of the settings defines the search space. Trials that fall behind, or whose
    network is slower than search.min_images_per_second, are pruned. Rerun the same command to
    resume an interrupted search.

    Reads  data.root, and data.precropped_dir in mode precropped
    Writes DIR/study.db, trial_NNNN/ (a run folder each), best.yaml, report.html

    Example: steelseg search configs/mine.yaml --trials 40
             steelseg run outputs/search/best.yaml --out outputs/best
    """
    from steelseg.api import search
    from steelseg.errors import ConfigError
    from steelseg.search.results import table

    if args.trials is not None:
        args.settings.append(f"search.trials={args.trials}")
    if args.minutes is not None and not args.minutes > 0:
        raise ConfigError(f"--minutes {args.minutes:g}: give a number above 0.")
    found = search(load(args), args.out, folds=args.fold, minutes=args.minutes)
    print(table(found))
    if found.best is not None:
        print(f"wrote {args.out / 'best.yaml'}, the settings of trial {found.best.number}")
    if (args.out / "report.html").is_file():
        print(f"wrote {args.out / 'report.html'}")
    if found.best is None and found.ended >= found.wanted:
        reason = next((t.reason for t in reversed(found.trials) if t.reason), "")
        raise ConfigError(f"No trial has a score, so there is no best.yaml. The last: {reason}.")
    return None


def add_pseudo(commands: Commands) -> None:
    """Add `steelseg pseudo`."""
    parser = add_command(commands, _run_pseudo, "pseudo-label unlabelled strips")
    add_run_dir(parser)
    parser.add_argument(
        "--images", type=path, metavar="DIR", required=True, help="folder of unlabelled strips"
    )
    parser.add_argument(
        "--out", type=path, metavar="OUT", help="folder of the labels; default RUN/pseudo"
    )
    parser.add_argument(
        "--teachers",
        type=path,
        nargs="+",
        metavar="RUN",
        default=[],
        help="additional runs with the same folds that must agree",
    )


def _run_pseudo(args: argparse.Namespace) -> int | None:
    """Pseudo-label strips with the networks of a run, to train with train.pseudo_labels=OUT.

    Every fold gets its own labels, from networks that never saw its held-out strips. A strip is
    accepted only if its TTA flips and all runs agree on every class (pseudo.agreement) with high
    confidence (pseudo.confidence, or pseudo.precision on held-out strips). Copies of labelled
    strips are excluded. Rerun the same command to resume.

    Reads  RUN/fold_K/best_model.safetensors, RUN/folds.csv, RUN/postprocess.json, DIR, data.root;
           RUN/fold_K/oof_predictions.zarr with pseudo.precision
    Writes OUT: index.json, folds.csv, fold_K/train.csv, fold_K/strips.csv

    Example: steelseg pseudo outputs/first --images input/test_images
             steelseg train configs/full.yaml train.pseudo_labels=outputs/first/pseudo
    """
    from steelseg.api import pseudo

    written = pseudo(
        args.run_dir, args.settings, images=args.images, out=args.out, teachers=args.teachers
    )
    print(f"wrote {written}")
    return None


COMMANDS = (add_run, add_train, add_search, add_oof, add_pseudo)
