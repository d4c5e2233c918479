"""The stages of a run as functions of the settings; `run` does them all.

from steelseg import load_config, run
run(load_config("configs/smoke.yaml", ["data.root=input"]), out="outputs/first")
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from steelseg.config.config import Config
from steelseg.data.checks.check import Inspection, inspect_data, load_labels, refuse_faults
from steelseg.data.checks.file_hashes import compare_manifest, write_manifest
from steelseg.data.folder import DataSet
from steelseg.data.samples.precropped_store import build_store, open_store
from steelseg.errors import ConfigError, DataError
from steelseg.evaluation.cascade import cascade_run
from steelseg.evaluation.ensemble.ensemble import ensemble_run
from steelseg.evaluation.evaluate import evaluate_run
from steelseg.evaluation.oof import oof_run
from steelseg.evaluation.tune import tune_run
from steelseg.export.bench import Bench, bench_run
from steelseg.export.bundle import MadeFrom, bundle_run
from steelseg.export.export import ExportPlan, export_run
from steelseg.export.exported import Check, Export, Format
from steelseg.export.repository import Server, write_repository
from steelseg.inference.predictor import Predictor
from steelseg.prediction.predict import predict_folder
from steelseg.progress import progress as show
from steelseg.pseudo.label import pseudo_run
from steelseg.reporting.report import report_run
from steelseg.run.bundle_manifest import Backend
from steelseg.run.ensemble_json import EnsembleSpec
from steelseg.run.run_folder import RunFolder, default_run_path
from steelseg.run.tuned_postprocess import TunedPostprocessing, has_untuned_settings
from steelseg.scoring.blending.weights import Weighing
from steelseg.scoring.screening import ScreeningResult
from steelseg.search.results import Search
from steelseg.training.augment_preview import preview_augmentation as preview_augmentation
from steelseg.training.train import choose_folds, train_run


def check(config: Config, *, manifest: Path | None = None) -> Inspection:
    """Decode every image and hold every row against the rules; changes nothing in data.root.

    Args:
        config: The settings.
        manifest: A file with the hash of every file of the data set. If it is there, each file
            that has changed, is missing or was added is a fault too; if it is not, and the data
            set has no fault, it is written.
    """
    inspection = inspect_data(config.data)
    root = config.data.root
    if manifest is None:
        return inspection
    if manifest.exists():
        changes = compare_manifest(manifest, root, progress=show)
        return replace(inspection, faults=tuple(sorted([*inspection.faults, *changes])))
    if not inspection.faults:
        write_manifest(manifest, root, progress=show)
    return inspection


def precrop(config: Config) -> Path:
    """Decode every training strip once into data.precropped_dir; a store that fits is kept.

    Raises:
        DataError: if the data set has a fault.
    """
    data = config.data
    image_ids = list(load_labels(data).sizes)
    try:
        open_store(data.precropped_dir, root=data.root, image_ids=image_ids, channels=data.channels)
    except DataError:
        build_store(
            data.precropped_dir,
            root=data.root,
            image_ids=image_ids,
            channels=data.channels,
            progress=show,
        )
    return data.precropped_dir


def train(
    config: Config,
    out: Path | str | None = None,
    *,
    folds: Sequence[int] | None = None,
    resume: bool = False,
    checkpoint: Path | None = None,
) -> Path:
    """Train folds into a run folder; see `steelseg.training.train.train_run`.

    Args:
        config: The settings.
        out: The run folder; None makes outputs/YYYYMMDD_HHMMSS.
        folds: Which folds; None trains all.
        resume: Go on with folds that were begun.
        checkpoint: Go on with the one fold of `folds` from this file.

    Returns:
        The run folder.
    """
    path = Path(out) if out else default_run_path()
    train_run(config, path, folds=folds, go_on=resume, checkpoint=checkpoint)
    return path


def oof(
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
    npy: bool = False,
) -> None:
    """Predict the held-out strips of a run; see `steelseg.evaluation.oof.oof_run`."""
    run_folder = RunFolder(Path(run_dir))
    oof_run(run_folder.load_config(tuple(overrides)), run_folder, folds=folds, npy=npy)


def tune(run_dir: Path | str, overrides: Sequence[str] = ()) -> TunedPostprocessing:
    """Choose the post-processing of a run; see `steelseg.evaluation.tune.tune_run`."""
    run_folder = RunFolder(Path(run_dir))
    return tune_run(run_folder.load_config(tuple(overrides)), run_folder)


def cascade(
    run_dir: Path | str,
    first: Path | str,
    overrides: Sequence[str] = (),
    *,
    miss_rate: float = 0.01,
    fold: int | None = None,
) -> ScreeningResult:
    """Let a cheap run look first; see `steelseg.evaluation.cascade.cascade_run`."""
    run_folder, first_folder = RunFolder(Path(run_dir)), RunFolder(Path(first))
    config = run_folder.load_config(tuple(overrides))
    return cascade_run(config, run_folder, first_folder, miss_rate=miss_rate, fold=fold)


def ensemble(
    runs: Sequence[Path | str],
    out: Path | str,
    overrides: Sequence[str] = (),
    *,
    weights: Weighing = "equal",
    per_class: bool = False,
    presence: Sequence[Path | str] = (),
) -> EnsembleSpec:
    """Combine trained runs into a new one; see `steelseg.evaluation.ensemble.ensemble_run`."""
    return ensemble_run(
        [Path(run) for run in runs],
        Path(out),
        weights=weights,
        per_class=per_class,
        presence=[Path(run) for run in presence],
        overrides=overrides,
    )


def evaluate(
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
    overlays: bool = False,
) -> dict[str, Any]:
    """Score the held-out strips of a run; see `steelseg.evaluation.evaluate.evaluate_run`."""
    run_folder = RunFolder(Path(run_dir))
    config = run_folder.load_config(tuple(overrides))
    return evaluate_run(config, run_folder, folds=folds, overlays=overlays)


def export(
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    *,
    format: Format,
    int8: bool = False,
    folds: Sequence[int] | None = None,
    fixed_size: bool = False,
    calibration: int = 128,
    strips: int = 100,
    allow: Sequence[Check] = (),
) -> Export:
    """Write the networks of a run as files of another runtime, if they hold up to the originals.

    See `steelseg.export.export.ExportPlan` for the arguments, `export_run` for the rest.
    """
    run_folder = RunFolder(Path(run_dir))
    plan = ExportPlan(
        format=format,
        int8=int8,
        fixed_size=fixed_size,
        calibration=calibration,
        strips=strips,
        allow=tuple(allow),
    )
    return export_run(run_folder.load_config(tuple(overrides)), run_folder, plan, folds=folds)


def report(run_dir: Path | str, overrides: Sequence[str] = ()) -> Path:
    """Write report.html of a run; see `steelseg.reporting.report.report_run`."""
    run_folder = RunFolder(Path(run_dir))
    return report_run(run_folder.load_config(tuple(overrides)), run_folder)


def pseudo(
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    *,
    images: Path | str,
    out: Path | str | None = None,
    teachers: Sequence[Path | str] = (),
) -> Path:
    """Label the strips of a folder by the networks of a run; see `inference.pseudo.pseudo_run`."""
    return pseudo_run(
        RunFolder(Path(run_dir)),
        overrides,
        images=Path(images),
        out=Path(out) if out else None,
        teachers=[RunFolder(Path(teacher)) for teacher in teachers],
    )


def bundle(
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    folds: Sequence[int] | None = None,
    made_from: MadeFrom = "torch",
) -> Path:
    """Put all that prediction needs into one folder; see `deployment.bundle.bundle_run`."""
    run_folder = RunFolder(Path(run_dir))
    path = Path(out) if out else None
    return bundle_run(run_folder, overrides, out=path, folds=folds, made_from=made_from)


def bench(
    place: Path | str,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
    images: Path | str | None = None,
    strips: int = 32,
    rounds: int = 3,
    backends: Sequence[Backend] = ("torch", "onnx", "openvino"),
) -> Bench:
    """Time every way to predict with a run or a bundle; see `deployment.bench.bench_run`."""
    return bench_run(
        Path(place),
        overrides,
        folds=folds,
        images=Path(images) if images else None,
        strips=strips,
        rounds=rounds,
        backends=backends,
    )


def repository(bundle_dir: Path | str, out: Path | str, *, server: Server) -> Path:
    """Write a bundle for an inference server; see `deployment.repository.write_repository`."""
    return write_repository(Path(bundle_dir), Path(out), server=server)


def search(
    config: Config,
    out: Path | str = Path("outputs/search"),
    *,
    folds: Sequence[int] = (0,),
    minutes: float | None = None,
) -> Search:
    """Search settings; see `steelseg.search.search.search_run`.

    Raises:
        ConfigError: if Optuna is not installed, or what `search_run` refuses.
    """
    if find_spec("optuna") is None:
        raise ConfigError(
            "steelseg search needs Optuna, which is not installed: pip install 'steelseg[search]'."
        )
    from steelseg.search.search import search_run

    return search_run(config, Path(out), folds=folds, minutes=minutes)


def run(
    config: Config,
    out: Path | str | None = None,
    *,
    folds: Sequence[int] | None = None,
    resume: bool = False,
    overlays: bool = False,
) -> Path:
    """Do the whole job: check, precrop, train, oof, tune, evaluate, predict, report.

    Of a classifier that is check, precrop, train, oof, evaluate: it makes no masks.

    Each stage prints its own command, by which it can be run again alone.

    Args:
        config: The settings.
        out: The run folder; None makes outputs/YYYYMMDD_HHMMSS.
        folds: Train and predict with these folds only; None takes all.
        resume: Go on with a run that was begun.
        overlays: Also draw the held-out and the test strips.

    Returns:
        The run folder.

    Raises:
        SteelsegError: whatever a stage refuses.
    """
    path = Path(out) if out else default_run_path()
    chosen = choose_folds(folds, config.data.num_folds)
    flags = f" --fold {' '.join(map(str, chosen))}" if folds else ""
    place = shlex.quote(str(path))
    _announce(f"steelseg check {place}")
    print(f"ok: {refuse_faults(config.data.root, check(config)).summary}")
    if config.data.mode == "precropped":
        _announce(f"steelseg precrop {place}")
        precrop(config)
    _announce(f"steelseg train {place}{flags} --resume")
    train(config, path, folds=chosen, resume=resume)
    _announce(f"steelseg oof {place}{flags}")
    oof(path, folds=chosen)
    if config.model.is_classifier:
        _announce(f"steelseg evaluate {place}")
        evaluate(path, overlays=overlays)
        print(f"a classifier makes no masks; it looks first: steelseg cascade RUN --first {place}")
        return path
    if has_untuned_settings(config):
        _announce(f"steelseg tune {place}")
        tune(path)
    _announce(f"steelseg evaluate {place}")
    evaluate(path, overlays=overlays)
    test_images = DataSet(config.data.root).test_images
    if test_images.is_dir():
        _announce(f"steelseg predict {place}{flags}")
        for written in predict_folder(Predictor(path, folds=chosen), path, overlays=overlays):
            print(f"wrote {written}")
    else:
        print(f"no {test_images}: steelseg predict {place} --images FOLDER")
    _announce(f"steelseg report {place}")
    print(f"wrote {report(path)}")
    return path


def _announce(command: str) -> None:
    """Print the command of the stage that begins."""
    print(f"\n$ {command}", flush=True)
