"""The command that predicts a folder of images: predict."""

import argparse

from steelseg.cli.arguments import Commands, add_command, add_fold, add_model, add_overlays, path


def add_predict(commands: Commands) -> None:
    """Add `steelseg predict`."""
    parser = add_command(commands, _run_predict, "predict images and write submission.csv")
    add_model(parser, "run_dir", nargs="?")
    parser.add_argument(
        "--checkpoints", type=path, nargs="+", metavar="FILE", help="checkpoints instead of a run"
    )
    add_fold(parser)
    parser.add_argument(
        "--images",
        type=path,
        metavar="DIR",
        help="images to predict; default data.root/test_images",
    )
    parser.add_argument(
        "--output-dir", type=path, metavar="DIR", help="output folder; default the run folder"
    )
    parser.add_argument(
        "--format",
        choices=("coco", "png", "jsonl"),
        action="append",
        default=[],
        help="additional output format; can be given several times",
    )
    add_overlays(parser)


def _run_predict(args: argparse.Namespace) -> int | None:
    """Predict images with the mean of the networks of a run, a bundle or a list of checkpoints.

    Reads  RUN/fold_K/best_model.safetensors, the bundle or the checkpoints, and the images
    Writes DIR/submission.csv; on request predictions.json, masks/, predictions.jsonl, overlays/

    Rerun the same command to resume an interrupted prediction from DIR/prediction.journal. Results
    of other networks, settings or images are not reused.

    Example: steelseg predict outputs/first --images new_strips --output-dir found --overlays
             steelseg predict bundle --images new_strips --output-dir found
             steelseg predict --checkpoints a.safetensors b.safetensors --output-dir found
    """
    from steelseg.api import predict
    from steelseg.errors import ConfigError

    if (args.run_dir is None) == (args.checkpoints is None):
        raise ConfigError("Give either a run folder or --checkpoints.")
    written = predict(
        args.checkpoints or args.run_dir,
        args.settings,
        output_dir=args.output_dir,
        images=args.images,
        folds=args.fold,
        formats=args.format,
        overlays=args.overlays,
    )
    for file in written:
        print(f"wrote {file}")
    return None


COMMANDS = (add_predict,)
