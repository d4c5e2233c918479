"""The settings and commands of the baseline scripts, for unet_baseline/.

`SETTINGS` maps each name of config.py to a setting and to the baseline's default. A command takes
the path of config.py and the arguments of its script, calls the functions of `steelseg.api`, and
returns an exit code as `steelseg` does. Messages name settings as config.py does. Settings that
the baseline does not have keep their defaults.
"""

import argparse
import difflib
import json
import re
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelseg.cli.main import guard
from steelseg.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from steelseg.config.config import Config

SETTINGS: dict[str, tuple[str, Any]] = {
    "DATA_ROOT": ("data.root", "input"),
    "MODEL_ARCH": ("model.arch", "unet"),
    "ENCODER": ("model.encoder", "efficientnet-b3"),
    "ENCODER_WEIGHTS": ("model.encoder_weights", "imagenet"),
    "NUM_CLASSES": ("data.num_classes", 4),
    "NUM_FOLDS": ("data.num_folds", 5),
    "NUM_EPOCHS": ("train.epochs", 100),
    "BATCH_SIZE_TRAIN": ("train.batch_size_train", 8),
    "BATCH_SIZE_VAL": ("train.batch_size_val", 8),
    "LEARNING_RATE": ("train.learning_rate", 5e-4),
    "OPTIMIZER": ("train.optimizer", "adam"),
    "SCHEDULER": ("train.scheduler", "reduce_on_plateau"),
    "LOSS": ("train.loss", "bce_dice_pos_weight"),
    "PRECROPPED_DIR": ("data.precropped_dir", "precropped_data"),
    "IMG_HEIGHT": ("data.img_height", 256),
    "IMG_WIDTH": ("data.img_width", 1600),
    "CROP_HEIGHT": ("data.crop_height", 256),
    "CROP_WIDTH": ("data.crop_width", 512),
    "CROP_STRIDE": ("data.crop_stride", 256),
    "THRESHOLD": ("postprocess.threshold", 0.5),
    "MIN_SIZE": ("postprocess.min_size", 3500),
    "NUM_WORKERS": ("train.num_workers", 2),
    "SAVE_BEST_ONLY": ("train.save_best_only", True),
}

SWITCHES = {"USE_CROPS": False, "USE_PRECROPPED": False, "TTA": False, "TTA_HORIZONTAL_FLIP": True}
"""Names that together set data.mode, inference.crops and inference.tta, and their defaults."""

# Settings of prediction that config.py overrides; the others are stored in the checkpoint.
_OF_PREDICTION = (
    "data.root",
    "data.crop_height",
    "data.crop_width",
    "data.crop_stride",
    "train.batch_size_val",
    "postprocess.threshold",
    "postprocess.min_size",
    "inference.tta",
    "inference.crops",
)

_PHRASES = {
    "steelseg precrop CONFIG": "bash precrop_setup.sh",
    "model.encoder_weights=none": "ENCODER_WEIGHTS=None",
    "mode=full": "USE_CROPS=False",
    "Choose another --out.": "Put config.py back as it was, or leave out --checkpoint.",
    "--resume": "--checkpoint FILE",
}


def load_settings(path: Path) -> "Config":
    """Run config.py and build settings from its upper-case names.

    Raises:
        ConfigError: if the file cannot be run, or a name or value in it is wrong.
    """
    from steelseg.config.load import build_config

    given = _run(path)
    switches = SWITCHES | {name: given[name] for name in SWITCHES if name in given}
    if faults := [*_unknown(given), *_contradictions(switches)]:
        raise ConfigError("\n".join([f"Wrong settings in {path}:", *faults]))
    mode = "precropped" if switches["USE_PRECROPPED"] else "crops"
    content: dict[str, dict[str, Any]] = {
        "data": {"mode": mode if switches["USE_CROPS"] else "full"},
        "inference": {
            "crops": switches["USE_CROPS"],
            "tta": "hflip" if switches["TTA"] else "none",
        },
    }
    for word, (setting, default) in SETTINGS.items():
        section, _, name = setting.partition(".")
        content.setdefault(section, {})[name] = given.get(word, default)
    return build_config(content, source=str(path))


def _run(path: Path) -> dict[str, Any]:
    """Run config.py and return its upper-case names; those that begin with _ belong to the user."""
    try:
        names = runpy.run_path(str(path))
    except Exception as error:
        # The file is the user's code and can raise anything.
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f":{frame.lineno}" for frame in frames if frame.filename == str(path)]
        place = f"{path}{lines[-1] if lines else ''}"
        raise ConfigError(f"{place} cannot be run: {type(error).__name__}: {error}.") from error
    return {k: v for k, v in names.items() if k.isupper() and not k.startswith("_")}


def _unknown(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each name that is not a setting."""
    known = [*SETTINGS, *SWITCHES]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"a name of your own is _{name}."
            yield f"  {name}: no such setting; {hint}"


def _contradictions(switches: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each switch that is neither True nor False, or contradicts another."""
    odd = [name for name, value in switches.items() if not isinstance(value, bool)]
    yield from (f"  {name}: expected True or False, got {switches[name]!r:.60}" for name in odd)
    if odd:
        return
    if switches["USE_PRECROPPED"] and not switches["USE_CROPS"]:
        yield (
            "  USE_PRECROPPED=True needs USE_CROPS=True, because the store serves crops; for "
            "whole strips set USE_PRECROPPED=False."
        )
    if switches["TTA"] and not switches["TTA_HORIZONTAL_FLIP"]:
        yield (
            "  TTA=True with TTA_HORIZONTAL_FLIP=False leaves no flip to average; set TTA=False, "
            "or TTA_HORIZONTAL_FLIP=True."
        )


def in_baseline_words(text: str) -> str:
    """Replace settings and commands in a message with those of config.py and unet_baseline/."""
    for ours, theirs in _PHRASES.items():
        text = text.replace(ours, theirs)
    words = {setting: word for word, (setting, _) in SETTINGS.items()}
    # Messages about one section omit its name; there, a name without _ could be any word.
    words |= {bare: word for s, word in words.items() if "_" in (bare := s.partition(".")[2])}
    names = "|".join(map(re.escape, words))
    # Names inside paths stay.
    return re.sub(rf"(?<![\w./])({names})(?![\w/])", lambda match: words[match[0]], text)


def train_main(config_py: Path, argv: Sequence[str] | None = None) -> int:
    """Run `train.py`: train one fold or all, then predict and score the held-out strips."""
    parser = argparse.ArgumentParser(
        description="Train as config.py says, then predict and score the held-out strips."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--fold", type=int, metavar="K", help="train this fold, from 0")
    which.add_argument(
        "--all_folds", action="store_true", help="train all folds, one after the other"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="resume from this file")
    args = parser.parse_args(argv)
    if args.checkpoint and args.all_folds:
        parser.error("--checkpoint resumes a single fold: name it with --fold K")
    folds = None if args.all_folds else [args.fold]
    return guard(
        lambda: _train(load_settings(config_py), folds, args.checkpoint), reword=in_baseline_words
    )


def _train(config: "Config", folds: Sequence[int] | None, named: Path | None) -> None:
    """Train into a new folder, or resume in the folder of the checkpoint."""
    from steelseg.api import evaluate, oof, train

    checkpoint = named and _find(named)
    path = (checkpoint and _run_of(checkpoint)) or Path(f"outputs_{datetime.now():%Y%m%d_%H%M%S}")
    train(config, path, folds=folds, checkpoint=checkpoint)
    moved = _overrides(config, ("data.root",))
    oof(path, moved, folds=folds, npy=True)
    evaluate(path, moved)
    print(f"done: {path}")


def inference_main(config_py: Path, argv: Sequence[str] | None = None) -> int:
    """Run `inference.py`: predict test_images with the mean of checkpoints."""
    parser = argparse.ArgumentParser(
        description="Predict DATA_ROOT/test_images with the mean of checkpoints."
    )
    parser.add_argument(
        "--checkpoints", type=Path, nargs="+", required=True, metavar="FILE", help="trained folds"
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, metavar="DIR", help="folder for submission.csv"
    )
    args = parser.parse_args(argv)
    return guard(
        lambda: _predict(load_settings(config_py), args.checkpoints, args.output_dir),
        reword=in_baseline_words,
    )


def _predict(config: "Config", named: Sequence[Path], output_dir: Path) -> None:
    """Write submission.csv with the checkpoints' settings, overridden by config.py."""
    from steelseg.api import predict

    overrides = _overrides(config, _OF_PREDICTION)
    checkpoints = [_find(path) for path in named]
    for written in predict(checkpoints, overrides, output_dir=output_dir):
        print(f"wrote {written}")


def precrop_main(config_py: Path, argv: Sequence[str] | None = None) -> int:
    """Run `precrop_images.py`: decode every training strip once into PRECROPPED_DIR."""
    argparse.ArgumentParser(
        description="Decode every training strip once into PRECROPPED_DIR."
    ).parse_args(argv)
    return guard(lambda: _precrop(load_settings(config_py)), reword=in_baseline_words)


def _precrop(config: "Config") -> None:
    """Build the store, and say how to use it if config.py does not."""
    from steelseg.api import precrop

    print(f"{precrop(config)} holds every training strip")
    if config.data.mode != "precropped":
        print("to train from it, set USE_CROPS = True and USE_PRECROPPED = True in config.py")


def _find(path: Path) -> Path:
    """Return the path of a checkpoint; for a missing .pth, that of the .safetensors next to it.

    Raises:
        CheckpointError: if neither exists.
    """
    ours = path.with_suffix(".safetensors")
    if path.is_file():
        return path
    if path.suffix != ".pth" or not ours.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint.")
    print(f"there is no {path}; taking {ours}", file=sys.stderr)
    return ours


def _run_of(checkpoint: Path) -> Path | None:
    """Return the run folder of a checkpoint in fold_K/ or fold_K/last/, else None."""
    # The path as it was typed comes first, so that messages repeat it.
    for folder in (*checkpoint.parents[1:3], *checkpoint.absolute().parents[1:3]):
        if (folder / "config.yaml").exists():
            return folder
    return None


def _overrides(config: "Config", settings: Sequence[str]) -> list[str]:
    """Write settings as `section.name=value`."""
    values = config.model_dump(mode="json")
    pairs = ((setting, *setting.split(".")) for setting in settings)
    return [f"{setting}={json.dumps(values[section][name])}" for setting, section, name in pairs]
