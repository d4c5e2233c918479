"""Commands for deployment: export, bundle, repository; and bench."""

import argparse

from steelseg.cli.arguments import (
    Commands,
    add_command,
    add_fold,
    add_model,
    add_number,
    add_run_dir,
    path,
)
from steelseg.config.export_formats import EXPORT_FORMATS, backends, network_sources


def add_export(commands: Commands) -> None:
    """Add `steelseg export`."""
    parser = add_command(commands, _run_export, "export networks to ONNX or OpenVINO, verified")
    add_run_dir(parser)
    parser.add_argument(
        "--format", choices=tuple(EXPORT_FORMATS), required=True, help="file format"
    )
    parser.add_argument("--int8", action="store_true", help="quantize to int8; default fp32")
    add_fold(parser)
    parser.add_argument(
        "--fixed-size",
        action="store_true",
        help="accept only images of data.img_height x data.img_width; default any size",
    )
    add_number(parser, "--calibration", 128, "training strips that int8 is calibrated on")
    add_number(parser, "--strips", 100, "held-out strips to compare original and export on")
    parser.add_argument(
        "--allow",
        choices=("difference", "dice", "speed"),
        nargs="+",
        default=[],
        help="keep the export even if it fails this check",
    )


def _run_export(args: argparse.Namespace) -> int | None:
    """Export the networks of a run to ONNX or OpenVINO, verified against the originals.

    Each export is compared with its original on held-out strips. fp32 is kept if no probability
    differs by more than 1e-4 (check "difference"), int8 if its Dice is at most 0.002 lower
    ("dice") and it is faster than fp32 in the same format ("speed"). Otherwise the export is
    discarded.

    Reads  RUN/fold_K/best_model.safetensors, RUN/postprocess.json, data.root
    Writes RUN/export/FORMAT-PRECISION/

    Example: steelseg export outputs/first --format openvino --int8
    """
    from steelseg.api import export

    export(
        args.run_dir,
        args.settings,
        format=args.format,
        int8=args.int8,
        folds=args.fold,
        fixed_size=args.fixed_size,
        calibration=args.calibration,
        strips=args.strips,
        allow=args.allow,
    )
    return None


def add_bundle(commands: Commands) -> None:
    """Add `steelseg bundle`."""
    parser = add_command(
        commands, _run_bundle, "pack everything that prediction needs into one folder"
    )
    add_run_dir(parser)
    add_fold(parser)
    parser.add_argument(
        "--out", type=path, metavar="FOLDER", help="the folder to write; default RUN/bundle"
    )
    parser.add_argument(
        "--from",
        dest="made_from",
        choices=network_sources(),
        default="torch",
        help="the checkpoints themselves (torch, the default), or an export of the run",
    )


def _run_bundle(args: argparse.Namespace) -> int | None:
    """Pack networks, settings and thresholds into one folder for prediction.

    The folder can be copied anywhere and used in place of a run folder; the SHA-256 of every file
    is verified before use. An existing bundle is replaced once the new one is complete. Settings
    on the command line are stored in the bundle.

    Reads  RUN/config.yaml, RUN/fold_K/best_model.safetensors, postprocess.json, metrics.json;
           RUN/export/FORMAT-PRECISION/ of an export
    Writes FOLDER/manifest.json, FOLDER/models/

    Example: steelseg bundle outputs/first
             steelseg bundle outputs/first --fold 0 --out strips_v1 inference.tta=hflip
             steelseg bundle outputs/first --from openvino-int8
    """
    from steelseg.api import bundle

    path = bundle(
        args.run_dir, args.settings, out=args.out, folds=args.fold, made_from=args.made_from
    )
    print(f"wrote {path}")
    return None


def add_bench(commands: Commands) -> None:
    """Add `steelseg bench`."""
    parser = add_command(commands, _run_bench, "benchmark inference backends on this machine")
    add_model(parser, "place")
    add_fold(parser)
    parser.add_argument(
        "--images", type=path, metavar="DIR", help="folder of strips; default data.root/test_images"
    )
    add_number(parser, "--strips", 32, "number of strips, evenly spaced")
    add_number(parser, "--rounds", 3, "timing rounds of each backend")
    parser.add_argument(
        "--backends",
        choices=backends(),
        nargs="+",
        default=backends(),
        help="backends to time, for a run folder; default all that are installed",
    )
    parser.add_argument("--out", type=path, metavar="FILE", help="also write the figures as JSON")


def _run_bench(args: argparse.Namespace) -> int | None:
    """Benchmark inference backends on this machine, with your model and your strips.

    Backends and precisions are timed in turn on the same strips, from image file to RLE rows.
    strips/s: throughput of a stream. times: speedup over the first line. ms: latency of a single
    strip, median and 95th percentile. difference: largest difference in probability from the first
    line. Missing exports of RUN are made in a temporary folder without verification; `steelseg
    export` verifies them.

    Reads  RUN or a bundle, DIR
    Writes FILE on request

    Example: steelseg bench outputs/first --images new_strips --out bench.json
    """
    import json
    from dataclasses import asdict

    from steelseg.api import bench
    from steelseg.export.bench import describe
    from steelseg.files.atomic import write_text

    found = bench(
        args.place,
        args.settings,
        folds=args.fold,
        images=args.images,
        strips=args.strips,
        rounds=args.rounds,
        backends=args.backends,
    )
    print(describe(found))
    if args.out:
        write_text(args.out, json.dumps(asdict(found), indent=1) + "\n")
        print(f"wrote {args.out}")
    return None


def add_repository(commands: Commands) -> None:
    """Add `steelseg repository`."""
    parser = add_command(
        commands,
        _run_repository,
        "write a bundle for Triton or OpenVINO Model Server",
        takes_settings=False,
    )
    parser.add_argument("bundle", type=path, metavar="BUNDLE", help="a bundle of an export")
    parser.add_argument(
        "--for",
        dest="server",
        choices=("triton", "ovms"),
        required=True,
        help="the inference server",
    )
    parser.add_argument(
        "--out", type=path, metavar="FOLDER", required=True, help="a new or empty folder"
    )


def _run_repository(args: argparse.Namespace) -> int | None:
    """Write the networks of a bundle as the model repository of an inference server.

    Images go in as pixels 0 to 255, logits come out; what a client does before and after is in
    docs/guides/beyond_one_machine.md.

    Reads  BUNDLE, made with --from onnx-fp32, onnx-int8, openvino-fp32 or openvino-int8
    Writes FOLDER/fold_K/1/ and config.pbtxt (Triton) or FOLDER/config.json (OpenVINO Model Server)

    Example: steelseg repository outputs/first/bundle --for triton --out repository
    """
    from steelseg.api import repository

    print(f"wrote {repository(args.bundle, args.out, server=args.server)}")
    return None


COMMANDS = (add_export, add_bundle, add_repository, add_bench)
