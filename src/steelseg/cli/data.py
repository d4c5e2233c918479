"""Commands on data sets: check, precrop, augment-preview, synth."""

import argparse
import sys

from steelseg.cli.arguments import Commands, add_command, add_config, add_number, load, path


def add_check(commands: Commands) -> None:
    """Add `steelseg check`."""
    parser = add_command(commands, _run_check, "check a data set and list every fault")
    add_config(parser)
    parser.add_argument(
        "--hash", type=path, metavar="FILE", help="verify the SHA-256 of every file against FILE"
    )


def _run_check(args: argparse.Namespace) -> int | None:
    """Check a data set and list every fault as file:row: reason; exit with 1 if there is any.

    Near-duplicate strips are listed as remarks, not faults; those whose masks differ come first.

    --hash FILE also detects damage that still decodes, such as a flipped bit in a JPEG. The first
    run writes the SHA-256 of every file to FILE; later runs report every file that was changed,
    removed or added. Delete FILE to accept the data set as it is now.

    Reads  data.root, FILE
    Writes FILE, if it does not exist

    Example: steelseg check configs/smoke.yaml data.root=input --hash input.sha256
    """
    from steelseg.api import check

    is_new = args.hash is not None and not args.hash.exists()
    inspection = check(load(args), manifest=args.hash)
    for fault in inspection.faults:
        print(fault)
    if inspection.faults:
        print(f"error: {len(inspection.faults)} faults", file=sys.stderr)
        return 1
    for remark in inspection.remarks:
        print(f"remark: {remark}")
    if is_new:
        print(f"wrote {args.hash}")
    elif args.hash is not None:
        print(f"ok: every file matches {args.hash}")
    print(f"ok: {inspection.summary}")
    return None


def add_precrop(commands: Commands) -> None:
    """Add `steelseg precrop`."""
    parser = add_command(commands, _run_precrop, "decode every strip once, for mode precropped")
    add_config(parser)


def _run_precrop(args: argparse.Namespace) -> int | None:
    """Decode every training strip once into a store.

    Reads  data.root
    Writes data.precropped_dir

    Example: steelseg precrop configs/precropped.yaml data.root=input
    """
    from steelseg.api import precrop

    print(f"{precrop(load(args))} holds every training strip")
    return None


def add_augment_preview(commands: Commands) -> None:
    """Add `steelseg augment-preview`."""
    parser = add_command(commands, _run_augment_preview, "draw augmented training samples")
    add_config(parser)
    parser.add_argument(
        "--out", type=path, metavar="PNG", required=True, help="the image file to write"
    )
    add_number(parser, "--samples", 5, "samples to show")
    add_number(parser, "--versions", 7, "augmented versions of each")


def _run_augment_preview(args: argparse.Namespace) -> int | None:
    """Draw training samples, original and as augmented in the first epochs.

    Masks are outlined, so that augmentations of defects can be checked.

    Reads  data.root, the precropped store in mode precropped
    Writes PNG

    Example: steelseg augment-preview configs/crops.yaml --out sheet.png
             steelseg augment-preview outputs/first 'train.augmentation=[0.5 jpeg]' --out jpeg.png
    """
    from steelseg.api import preview_augmentation

    preview_augmentation(load(args), args.out, samples=args.samples, versions=args.versions)
    print(f"wrote {args.out}")
    return None


def add_synth(commands: Commands) -> None:
    """Add `steelseg synth`."""
    parser = add_command(
        commands, _run_synth, "make a small synthetic data set", takes_settings=False
    )
    parser.add_argument("root", type=path, metavar="DIR", help="a new folder")
    add_number(parser, "--num-train", 160, "training strips")
    add_number(parser, "--num-test", 24, "test strips")
    add_number(parser, "--height", 256, "height of a strip", metavar="PX")
    add_number(parser, "--width", 1600, "width of a strip", metavar="PX")
    add_number(
        parser, "--min-per-class", 4, "minimum number of training strips of each class", low=0
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed; default %(default)s")


def _run_synth(args: argparse.Namespace) -> int | None:
    """Make a small synthetic data set in Kaggle's layout, to try the commands on.

    Writes DIR/train_images/, test_images/, train.csv, sample_submission.csv

    Example: steelseg synth demo/data --num-train 160 --num-test 24
    """
    from steelseg.api import synth

    written = synth(
        args.root,
        num_train=args.num_train,
        num_test=args.num_test,
        height=args.height,
        width=args.width,
        min_per_class=args.min_per_class,
        seed=args.seed,
    )
    print(f"wrote {written}")
    return None


COMMANDS = (add_synth, add_check, add_precrop, add_augment_preview)
