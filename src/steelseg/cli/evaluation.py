"""Commands that evaluate a run: tune, evaluate, cascade, ensemble, compare, report."""

import argparse

from steelseg.cli.arguments import (
    Commands,
    add_command,
    add_fold,
    add_overlays,
    add_run_dir,
    path,
)


def add_tune(commands: Commands) -> None:
    """Add `steelseg tune`."""
    parser = add_command(commands, _run_tune, "choose thresholds and sizes on held-out strips")
    add_run_dir(parser)


def _run_tune(args: argparse.Namespace) -> int | None:
    """Choose threshold, top_threshold, min_size and min_area of each class.

    With inference.gate=hard it chooses the gate of each class instead of top_threshold. Values that
    are given in the settings are kept. The reported score is cross-fitted: every strip is scored
    with values chosen on other strips. `steelseg predict RUN` uses values chosen on all strips.

    Reads  RUN/fold_K/oof_predictions.zarr, data.root/train.csv
    Writes RUN/postprocess.json

    Example: steelseg tune outputs/first
             steelseg tune outputs/first tune.objective=recall tune.min_recall=0.98
    """
    from steelseg.api import tune

    tune(args.run_dir, args.settings)
    print(f"wrote {args.run_dir / 'postprocess.json'}")
    return None


def add_evaluate(commands: Commands) -> None:
    """Add `steelseg evaluate`."""
    parser = add_command(commands, _run_evaluate, "score the held-out strips")
    add_run_dir(parser)
    add_fold(parser)
    add_overlays(parser)


def _run_evaluate(args: argparse.Namespace) -> int | None:
    """Score the held-out strips: tables, confidence intervals, recall by defect size.

    After tuning, every strip is scored with values chosen on other strips.

    Reads  RUN/fold_K/oof_predictions.zarr, RUN/postprocess.json, data.root
    Writes RUN/metrics.json, RUN/scores.csv; on request RUN/overlays_oof/

    Example: steelseg evaluate outputs/first
    """
    from steelseg.api import evaluate

    evaluate(args.run_dir, args.settings, folds=args.fold, overlays=args.overlays)
    print(f"wrote {args.run_dir / 'metrics.json'}")
    print(f"wrote {args.run_dir / 'scores.csv'}")
    return None


def add_cascade(commands: Commands) -> None:
    """Add `steelseg cascade`."""
    parser = add_command(commands, _run_cascade, "choose which strips can skip the full model")
    add_run_dir(parser)
    parser.add_argument(
        "--first",
        type=path,
        metavar="FIRST",
        required=True,
        help="the cheap run of the first stage",
    )
    parser.add_argument(
        "--miss-rate",
        type=float,
        metavar="SHARE",
        default=0.01,
        help="maximum fraction of the defective strips that may be skipped; default 0.01",
    )
    parser.add_argument(
        "--first-fold", type=int, metavar="K", help="fold of FIRST to use; default its lowest"
    )


def _run_cascade(args: argparse.Namespace) -> int | None:
    """Choose the defect score of a cheap run below which strips can skip the full model.

    The score is chosen on held-out strips of both runs; the miss rate is reported cross-fitted.
    `steelseg predict RUN` then skips strips that the first stage classifies as clean;
    inference.cascade=false predicts every strip.

    Reads  RUN/fold_K/oof_predictions.zarr, FIRST/fold_K/oof_predictions.zarr, data.root/train.csv
    Writes RUN/cascade.json

    Example: steelseg cascade outputs/best --first outputs/small --miss-rate 0.005
    """
    from steelseg.api import cascade

    cascade(args.run_dir, args.first, args.settings, miss_rate=args.miss_rate, fold=args.first_fold)
    print(f"wrote {args.run_dir / 'cascade.json'}")
    return None


def add_ensemble(commands: Commands) -> None:
    """Add `steelseg ensemble`."""
    parser = add_command(commands, _run_ensemble, "combine trained runs into one")
    add_run_dir(parser, "runs", nargs="+", help="run folders")
    parser.add_argument(
        "--out", type=path, metavar="DIR", required=True, help="the combined run folder"
    )
    parser.add_argument(
        "--weights",
        choices=("equal", "greedy"),
        default="equal",
        help="equal, the default: the plain mean. greedy: add one run at a time while the error "
        "decreases",
    )
    parser.add_argument(
        "--per-class", action="store_true", help="choose separate weights for each class"
    )
    parser.add_argument(
        "--presence",
        type=path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="take presence, for inference.gate, from these runs, such as classifiers",
    )


def _run_ensemble(args: argparse.Namespace) -> int | None:
    """Combine trained runs of the same folds into one that every other command accepts.

    Their networks must have the same classes and channels. Weights are chosen on held-out
    strips, and every strip is scored with weights chosen on other strips.

    Reads  RUN/fold_K/oof_predictions.zarr and best_model.safetensors, RUN/folds.csv,
           data.root/train.csv
    Writes DIR/config.yaml, DIR/folds.csv, DIR/ensemble.json, DIR/fold_K/oof_predictions.zarr

    Example: steelseg ensemble outputs/a outputs/b --out outputs/both
             steelseg ensemble outputs/a outputs/b --weights greedy --out outputs/both
             steelseg ensemble outputs/a --presence outputs/classifier --out outputs/gated
    """
    from steelseg.api import ensemble

    ensemble(
        args.runs,
        args.out,
        args.settings,
        weights=args.weights,
        per_class=args.per_class,
        presence=args.presence,
    )
    print(f"wrote {args.out}")
    return None


def add_compare(commands: Commands) -> None:
    """Add `steelseg compare`."""
    parser = add_command(
        commands, _run_compare, "test whether one run is better than another", takes_settings=False
    )
    add_run_dir(parser, "run_a", metavar="RUN_A")
    add_run_dir(parser, "run_b", metavar="RUN_B", help="another run folder")


def _run_compare(args: argparse.Namespace) -> int | None:
    """Compare two runs on the strips that both predicted, paired by strip.

    Reads  RUN_A/scores.csv, RUN_B/scores.csv
    Writes nothing

    Example: steelseg compare outputs/first outputs/second
    """
    from steelseg.api import compare
    from steelseg.evaluation.compare import describe
    from steelseg.run.run_folder import RunFolder

    names = RunFolder(args.run_a).load_config().data.names
    print(describe(compare(args.run_a, args.run_b), names))
    return None


def add_report(commands: Commands) -> None:
    """Add `steelseg report`."""
    parser = add_command(commands, _run_report, "write a report page of a run")
    add_run_dir(parser)


def _run_report(args: argparse.Namespace) -> int | None:
    """Write one page that opens offline: curves, tables, landscapes, the worst strips.

    Reads  RUN, data.root
    Writes RUN/report.html

    Example: steelseg report outputs/first
    """
    from steelseg.api import report

    print(f"wrote {report(args.run_dir, args.settings)}")
    return None


COMMANDS = (add_tune, add_evaluate, add_cascade, add_ensemble, add_compare, add_report)
