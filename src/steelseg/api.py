"""Every command of `steelseg` as a function; `run` calls the stages in order.

    from steelseg import load_config, run
    run(load_config("configs/smoke.yaml", ["data.root=input"]), out="outputs/first")

A function imports its stage when it is called, so importing this module loads neither torch nor
numpy. `overrides` are settings as on the command line, such as "inference.tta=hflip". Every
function raises a `steelseg.errors.SteelsegError` for what a user can cause; the message says what
is wrong and what to do.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from steelseg.config.config import Config
    from steelseg.data.checks.check import Inspection
    from steelseg.evaluation.compare import Comparison
    from steelseg.export.bench import Bench
    from steelseg.export.exported import Check, Export
    from steelseg.export.repository import Server
    from steelseg.run.ensemble_json import EnsembleSpec
    from steelseg.run.run_folder import RunFolder
    from steelseg.run.tuned_postprocess import TunedPostprocessing
    from steelseg.scoring.blending.weights import Weighing
    from steelseg.scoring.screening import ScreeningResult
    from steelseg.search.results import Search
    from steelseg.writers.open_writer import OutputFormat


def synth(
    root: Path | str,
    *,
    num_train: int = 160,
    num_test: int = 24,
    height: int = 256,
    width: int = 1600,
    min_per_class: int = 4,
    seed: int = 0,
) -> Path:
    """Make a small synthetic data set in Kaggle's layout.

    Args:
        root: A new or empty folder.
        num_train: Number of training strips, at least four times `min_per_class`.
        num_test: Number of test strips, at least 1.
        height: Height of a strip, in pixels, at least 32.
        width: Width of a strip, in pixels, at least 64.
        min_per_class: Minimum number of training strips of each class.
        seed: Random seed.

    Returns:
        `root`.

    Raises:
        ConfigError: if a number is too small.
        DataError: if `root` is a file, or a folder that is not empty.
    """
    from steelseg.data.synthetic.dataset import make_dataset
    from steelseg.progress import progress

    make_dataset(
        Path(root),
        num_train=num_train,
        num_test=num_test,
        height=height,
        width=width,
        min_per_class=min_per_class,
        seed=seed,
        progress=progress,
    )
    return Path(root)


def check(config: Config, *, manifest: Path | str | None = None) -> Inspection:
    """Decode every image and check every row of a data set; changes nothing in data.root.

    Args:
        config: The settings.
        manifest: A file with the SHA-256 of every file of the data set. If it exists, each file
            that was changed, removed or added is a fault too; otherwise it is written, provided
            that the data set has no fault.

    Returns:
        The faults, remarks and a summary.
    """
    from steelseg.data.checks.check import inspect_data
    from steelseg.data.checks.file_hashes import compare_manifest, write_manifest
    from steelseg.progress import progress

    inspection = inspect_data(config.data)
    root = config.data.root
    if manifest is None:
        return inspection
    manifest = Path(manifest)
    if manifest.exists():
        changes = compare_manifest(manifest, root, progress=progress)
        return replace(inspection, faults=tuple(sorted([*inspection.faults, *changes])))
    if not inspection.faults:
        write_manifest(manifest, root, progress=progress)
    return inspection


def precrop(config: Config) -> Path:
    """Decode every training strip once into data.precropped_dir; a store that matches is kept.

    Args:
        config: The settings.

    Returns:
        The folder of the store.

    Raises:
        DataError: if the data set has a fault.
    """
    from steelseg.data.checks.check import load_labels
    from steelseg.data.samples.precropped_store import build_store, open_store
    from steelseg.progress import progress

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
            progress=progress,
        )
    return data.precropped_dir


def preview_augmentation(
    config: Config, path: Path | str, *, samples: int = 5, versions: int = 7
) -> None:
    """Draw training samples, original and as augmented in the first epochs.

    Args:
        config: The settings.
        path: The PNG to write.
        samples: Number of samples: of each class in turn, and a clean one.
        versions: Augmented versions of each.

    Raises:
        ConfigError: if the augmentation is unknown.
        DataError: if the data set cannot be read.
    """
    from steelseg.training.augment_preview import preview_augmentation as draw

    draw(config, Path(path), samples=samples, versions=versions)


def train(
    config: Config,
    out: Path | str | None = None,
    *,
    folds: Sequence[int] | None = None,
    resume: bool = False,
    checkpoint: Path | str | None = None,
) -> Path:
    """Train folds into a run folder.

    Args:
        config: The settings.
        out: The run folder; None makes outputs/YYYYMMDD_HHMMSS.
        folds: Which folds; None trains all.
        resume: Resume interrupted folds, and skip those that are complete.
        checkpoint: Resume the one fold of `folds` from this file.

    Returns:
        The run folder.

    Raises:
        CheckpointError: if a checkpoint does not match the settings.
        ConfigError: if a fold does not exist, or was trained already and `resume` is False.
        DataError: if the data set has a fault, or the store does not match it.
        TrainingError: if a loss is not a number.
        Stopped: on Ctrl-C or SIGTERM, once the fold is saved.
    """
    from steelseg.run.run_folder import default_run_path
    from steelseg.training.train import train_run

    path = Path(out) if out else default_run_path()
    start = Path(checkpoint) if checkpoint else None
    train_run(config, path, folds=folds, resume=resume, checkpoint=start)
    return path


def search(
    config: Config,
    out: Path | str = Path("outputs/search"),
    *,
    folds: Sequence[int] = (0,),
    minutes: float | None = None,
) -> Search:
    """Search for the best settings, or resume a search; each trial trains a run of its own.

    Args:
        config: The settings; section search defines the search space.
        out: The folder of the search.
        folds: Folds that each trial trains; only the first decides whether it is pruned.
        minutes: Time budget: finish the current epoch, then stop. Call again to resume.

    Returns:
        The trials so far, and the best.

    Raises:
        CheckpointError: if study.db is damaged.
        ConfigError: if Optuna or Plotly is not installed, the search space is wrong, the folder
            contains anything else or is in use, or no trial can be built.
        DataError: if the data set has a fault.
        Stopped: on Ctrl-C or SIGTERM, once the current trial is saved.
    """
    for package, name in (("optuna", "Optuna"), ("plotly", "Plotly")):
        if find_spec(package) is None:
            raise ConfigError(
                f"steelseg search needs {name}, which is not installed: "
                "pip install 'steelseg[search]'."
            )
    from steelseg.search.search import search_run

    return search_run(config, Path(out), folds=folds, minutes=minutes)


def oof(
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
    npy: bool = False,
) -> None:
    """Predict every held-out strip with the best model of its fold.

    Args:
        run_dir: A run with trained folds.
        overrides: Settings to change.
        folds: Which folds; None takes every trained one.
        npy: Also write oof_predictions.npy, float32, 4 bytes per pixel and class.

    Raises:
        CheckpointError: if a fold has no best model.
        ConfigError: if the run is an ensemble, whose predictions are those of its members.
        DataError: if the data set has changed.
    """
    from steelseg.evaluation.oof import oof_run

    config, run_folder = _open_run(run_dir, overrides)
    oof_run(config, run_folder, folds=folds, npy=npy)


def tune(run_dir: Path | str, overrides: Sequence[str] = ()) -> TunedPostprocessing:
    """Choose thresholds, sizes and gate of each class on held-out strips.

    Args:
        run_dir: A run with out-of-fold predictions.
        overrides: Settings to change; values given for section postprocess are kept.

    Returns:
        The content of postprocess.json.

    Raises:
        CheckpointError: if there are no predictions.
        ConfigError: if the settings leave nothing to choose.
        DataError: if train.csv has a fault, or only one strip was predicted.
    """
    from steelseg.evaluation.tune import tune_run

    return tune_run(*_open_run(run_dir, overrides))


def evaluate(
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
    overlays: bool = False,
) -> dict[str, Any]:
    """Score the held-out strips of a run.

    Args:
        run_dir: A run with out-of-fold predictions.
        overrides: Settings to change.
        folds: Which folds; None takes every predicted one.
        overlays: Also draw truth and prediction of every strip.

    Returns:
        The content of metrics.json.

    Raises:
        CheckpointError: if there are no predictions, or tuning is older than they are.
        ConfigError: if `overlays` is set for a classifier.
        DataError: if train.csv has a fault.
    """
    from steelseg.evaluation.evaluate import evaluate_run

    config, run_folder = _open_run(run_dir, overrides)
    return evaluate_run(config, run_folder, folds=folds, overlays=overlays)


def cascade(
    run_dir: Path | str,
    first: Path | str,
    overrides: Sequence[str] = (),
    *,
    miss_rate: float = 0.01,
    fold: int | None = None,
) -> ScreeningResult:
    """Choose the defect score of a cheap run below which strips can skip the full model.

    Args:
        run_dir: The run of the full model.
        first: The cheap run, with predictions of the same strips.
        overrides: Settings to change.
        miss_rate: Maximum fraction of the defective strips that may be skipped, in [0, 1).
        fold: Fold of `first` to use; None takes its lowest.

    Returns:
        The effect on the held-out strips, cross-fitted.

    Raises:
        CheckpointError: if predictions are missing.
        ConfigError: if the runs do not match.
        DataError: if no strip has a defect.
    """
    from steelseg.evaluation.cascade import cascade_run
    from steelseg.run.run_folder import RunFolder

    config, run_folder = _open_run(run_dir, overrides)
    first_folder = RunFolder(Path(first))
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
    """Combine trained runs into one that every other function accepts.

    Args:
        runs: Run folders, with predictions of the same strips in the same folds.
        out: The combined run folder; an existing combined run is replaced.
        overrides: Settings of the combined run.
        weights: equal is the plain mean, greedy adds one run at a time while the error decreases.
        per_class: Choose separate weights for each class.
        presence: Runs whose mean presence is used; empty takes those of `runs` that predict it.

    Returns:
        The content of ensemble.json.

    Raises:
        CheckpointError: if predictions are missing or outdated, or the classes differ.
        ConfigError: if there is nothing to combine, or `out` holds something else.
        DataError: if the folds of the runs differ.
    """
    from steelseg.evaluation.ensemble.ensemble import ensemble_run

    return ensemble_run(
        [Path(run_dir) for run_dir in runs],
        Path(out),
        weights=weights,
        per_class=per_class,
        presence=[Path(run) for run in presence],
        overrides=overrides,
    )


def compare(run_a: Path | str, run_b: Path | str) -> Comparison:
    """Compare two runs on the strips that both predicted, paired by strip.

    Args:
        run_a: A run folder with scores.csv, as `evaluate` writes it.
        run_b: Another.

    Returns:
        Each score of both runs, with a 95 % interval of the difference.

    Raises:
        CheckpointError: if a run was not evaluated.
        DataError: if the runs have no strip in common, or different classes.
    """
    from steelseg.evaluation.compare import compare_runs
    from steelseg.run.run_folder import RunFolder

    return compare_runs(RunFolder(Path(run_a)), RunFolder(Path(run_b)))


def report(run_dir: Path | str, overrides: Sequence[str] = ()) -> Path:
    """Write report.html of a run, one page that opens offline.

    Args:
        run_dir: A run folder; it may be incomplete.
        overrides: Settings to change.

    Returns:
        The page.

    Raises:
        ConfigError: if the run is a classifier.
        DataError: if a file of the run or the data set is damaged.
    """
    from steelseg.reporting.report import report_run

    return report_run(*_open_run(run_dir, overrides))


def predict(
    source: Path | str | Sequence[Path | str],
    overrides: Sequence[str] = (),
    *,
    output_dir: Path | str | None = None,
    images: Path | str | None = None,
    folds: Sequence[int] | None = None,
    formats: Sequence[OutputFormat] = (),
    overlays: bool = False,
) -> list[Path]:
    """Predict the images of a folder and write submission.csv; call again to resume.

    For the mask of a single image see `steelseg.Predictor`.

    Args:
        source: A run folder, a bundle, or a list of checkpoints.
        overrides: Settings to change.
        output_dir: Output folder; None takes the run folder.
        images: Folder of images; None takes data.root/test_images.
        folds: Folds of the run or bundle to use; None uses every trained one.
        formats: Additional formats: coco, png, jsonl.
        overlays: Also draw each strip with outlines.

    Returns:
        The files and folders written.

    Raises:
        CheckpointError: if a checkpoint is missing or damaged.
        ConfigError: if `output_dir` is needed or lies in a bundle, `folds` is given with
            checkpoints, or no images are known.
        DataError: if an image cannot be read.
    """
    from steelseg.inference.predictor import Predictor
    from steelseg.prediction.predict import predict_folder
    from steelseg.run.bundle_manifest import is_bundle

    if not isinstance(source, Path | str) or Path(source).is_file():
        if folds:
            raise ConfigError("--fold chooses among the folds of a run; leave it out here.")
        if output_dir is None:
            raise ConfigError("--checkpoints needs --output-dir DIR.")
        place = Path(output_dir)
    else:
        place = Path(output_dir or source)
        if is_bundle(Path(source)) and place.resolve().is_relative_to(Path(source).resolve()):
            raise ConfigError(
                f"{source} is a bundle, which must not be changed. Write results elsewhere "
                "with --output-dir DIR."
            )
    return predict_folder(
        Predictor(source, overrides, folds=folds),
        place,
        images=Path(images) if images else None,
        formats=formats,
        overlays=overlays,
    )


def pseudo(
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    *,
    images: Path | str,
    out: Path | str | None = None,
    teachers: Sequence[Path | str] = (),
) -> Path:
    """Pseudo-label the strips of a folder, to train with train.pseudo_labels.

    Args:
        run_dir: A run with trained folds; its settings make the masks.
        overrides: Settings to change.
        images: Folder of unlabelled strips.
        out: Where the labels go; None makes RUN/pseudo. Existing pseudo-labels are replaced.
        teachers: Additional runs with the same folds that must agree.

    Returns:
        The folder of the labels.

    Raises:
        CheckpointError: if a checkpoint or its predictions cannot be used.
        ConfigError: if the folds of the runs differ, or `out` holds something else.
        DataError: if an image cannot be read or has another size, or all are labelled already.
    """
    from steelseg.pseudo.label import pseudo_run
    from steelseg.run.run_folder import RunFolder

    return pseudo_run(
        RunFolder(Path(run_dir)),
        overrides,
        images=Path(images),
        out=Path(out) if out else None,
        teachers=[RunFolder(Path(teacher)) for teacher in teachers],
    )


def watch(
    source: Path | str,
    overrides: Sequence[str] = (),
    *,
    folder: Path | str,
    out: Path | str,
    folds: Sequence[int] | None = None,
    settle: float = 0.5,
    patience: float = 30.0,
    pieces: str | None = None,
    piece_count: int | None = None,
    overlays: bool = False,
    masks: bool = False,
    webhook: str | None = None,
    mqtt: str | None = None,
) -> None:
    """Predict strips as they arrive in a folder, until Ctrl-C or SIGTERM; call again to resume.

    Args:
        source: A run folder or a bundle.
        overrides: Settings to change.
        folder: Folder that the camera writes to.
        out: Output folder, outside `folder`; results.jsonl gets one line per strip.
        folds: Folds of the run or bundle to use; None uses every trained one.
        settle: Seconds that a file must stay unchanged before it is read.
        patience: Seconds after which an unreadable file is rejected.
        pieces: Regular expression with groups `strip` and `piece`; None: every file is a strip.
        piece_count: Pieces of every strip; None decides by time.
        overlays: Draw strips with outlines.
        masks: Write a PNG for each class found.
        webhook: URL that each line is posted to.
        mqtt: mqtt://HOST/TOPIC that each line is published to.

    Raises:
        ConfigError: if an argument is wrong, or another process writes to `out`.
        DataError: if `folder` does not exist, or earlier results are damaged.
        Stopped: on Ctrl-C or SIGTERM, after the current strip.
    """
    from steelseg.inference.predictor import Predictor
    from steelseg.signals import defer_signals
    from steelseg.watch.watch import WatchPlan, watch_folder

    plan = WatchPlan(
        settle=settle,
        patience=patience,
        pieces=pieces,
        piece_count=piece_count,
        overlays=overlays,
        masks=masks,
        webhook=webhook,
        mqtt=mqtt,
    )
    with defer_signals() as stop:
        predictor = Predictor(source, overrides, folds=folds)
        print(f"watching {folder}, writing {Path(out) / 'results.jsonl'}", flush=True)
        watch_folder(
            predictor, Path(folder), Path(out), plan, is_stopped=lambda: stop.signum is not None
        )


def export(
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    *,
    format: str,
    int8: bool = False,
    folds: Sequence[int] | None = None,
    fixed_size: bool = False,
    calibration: int = 128,
    strips: int = 100,
    allow: Sequence[Check] = (),
) -> Export:
    """Export the networks of a run, verified against the originals on held-out strips.

    Args:
        run_dir: A run with trained folds.
        overrides: Settings to change.
        format: onnx or openvino.
        int8: Quantize to int8; False exports fp32.
        folds: Which folds; None takes every trained one. Other exported folds are kept.
        fixed_size: Accept only images of data.img_height x data.img_width; False accepts any size.
        calibration: Training strips that int8 is calibrated on.
        strips: Held-out strips to compare original and export on.
        allow: Checks that may fail: difference, dice, speed.

    Returns:
        The export, read back.

    Raises:
        CheckpointError: if a checkpoint cannot be used, or tuning is older than it.
        ConfigError: if the network cannot be exported like this, or a package is not installed.
        DataError: if the data set has changed.
        ExportError: if a check fails that is not in `allow`.
    """
    from steelseg.export.export import ExportPlan, export_run
    from steelseg.inference.model_source import resolve_run
    from steelseg.run.run_folder import RunFolder

    plan = ExportPlan(
        format=format,
        int8=int8,
        fixed_size=fixed_size,
        calibration=calibration,
        strips=strips,
        allow=tuple(allow),
    )
    return export_run(resolve_run(RunFolder(Path(run_dir)), overrides, folds=folds), plan)


def bundle(
    run_dir: Path | str,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    folds: Sequence[int] | None = None,
    made_from: str = "torch",
) -> Path:
    """Pack networks, settings and thresholds into one folder for prediction.

    Args:
        run_dir: A run with trained folds.
        overrides: Settings to store in the bundle.
        out: The folder; None makes RUN/bundle. An existing bundle is replaced.
        folds: Which folds; None takes every trained one.
        made_from: torch for the checkpoints themselves, or an export such as openvino-int8.

    Returns:
        The bundle.

    Raises:
        CheckpointError: if a checkpoint or an export cannot be used, or is outdated.
        ConfigError: if an override is wrong, or `out` holds something else.
    """
    from steelseg.export.bundle import bundle_run
    from steelseg.inference.model_source import resolve_model

    model = resolve_model(run_dir, overrides, folds=folds)
    return bundle_run(model, out=Path(out) if out else None, made_from=made_from)


def repository(bundle_dir: Path | str, out: Path | str, *, server: Server) -> Path:
    """Write the networks of a bundle as the model repository of an inference server.

    Args:
        bundle_dir: A bundle of an export.
        out: A new or empty folder.
        server: triton or ovms (OpenVINO Model Server).

    Returns:
        `out`.

    Raises:
        CheckpointError: if the bundle is damaged.
        ConfigError: if it holds no exported networks, or `out` holds files.
    """
    from steelseg.export.repository import write_repository

    return write_repository(Path(bundle_dir), Path(out), server=server)


def bench(
    source: Path | str,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
    images: Path | str | None = None,
    strips: int = 32,
    rounds: int = 3,
    backends: Sequence[str] | None = None,
) -> Bench:
    """Time the inference backends on this machine.

    Args:
        source: A run folder or a bundle.
        overrides: Settings to change.
        folds: Which folds; None takes all.
        images: Folder of strips; None takes data.root/test_images.
        strips: Number of strips, evenly spaced.
        rounds: Timing rounds of each backend.
        backends: Backends to time, for a run folder; None times all that are installed.

    Returns:
        The figures of each backend and precision.

    Raises:
        CheckpointError: if the run or the bundle cannot be used.
        ConfigError: if no folder of images is known, or a setting is wrong.
        DataError: if an image cannot be read.
    """
    from steelseg.export.bench import bench_run

    return bench_run(
        Path(source),
        overrides,
        folds=folds,
        images=Path(images) if images else None,
        strips=strips,
        rounds=rounds,
        backends=backends,
    )


def serve(
    source: Path | str,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    queue: int | None = None,
    max_pixels: int = 8_000_000,
    max_bytes: int = 33_554_432,
    admin_token: str | None = None,
    models: Path | str | None = None,
) -> None:
    """Serve predictions over HTTP until SIGTERM or Ctrl-C, from the main thread.

    Args:
        source: A run folder or a bundle.
        overrides: Settings to change, also for models that are switched to.
        folds: Folds of the run or bundle to use; None uses every trained one.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        queue: Maximum number of strips in progress or waiting; None takes twice as many as are
            computed concurrently, and 3 at least.
        max_pixels: Largest image, in pixels.
        max_bytes: Largest file, in bytes.
        admin_token: Clients that send it may change the model; None allows nobody.
        models: Folder of runs and bundles to switch to; None allows only to reload `source`.

    Raises:
        CheckpointError: if the model is missing or damaged.
        ConfigError: if a package is not installed, `models` is not a folder, or the port is in use.
    """
    packages = ("fastapi", "prometheus_client", "uvicorn")  # of the extra `serve`
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"The server needs {', '.join(missing)}: pip install 'steelseg[serve]'.")
    if models is not None and not Path(models).is_dir():
        raise ConfigError(f"--models {models} is not a folder.")
    from steelseg.serving.limits import Limits
    from steelseg.serving.server import run_server

    run_server(
        Path(source),
        overrides,
        folds=folds,
        host=host,
        port=port,
        queue=queue,
        limits=Limits(max_pixels=max_pixels, max_bytes=max_bytes),
        admin_token=admin_token,
        models=Path(models) if models else None,
    )


def run(
    config: Config,
    out: Path | str | None = None,
    *,
    folds: Sequence[int] | None = None,
    resume: bool = False,
    overlays: bool = False,
) -> Path:
    """Run the whole pipeline: check, precrop, train, oof, tune, evaluate, predict, report.

    A classifier predicts no masks, so its pipeline is check, precrop, train, oof, evaluate. Each
    stage prints the command that runs it alone.

    Args:
        config: The settings.
        out: The run folder; None makes outputs/YYYYMMDD_HHMMSS.
        folds: Train and predict with these folds only; None takes all.
        resume: Resume an interrupted run.
        overlays: Also draw the held-out and the test strips.

    Returns:
        The run folder.

    Raises:
        SteelsegError: if a stage raises it.
    """
    from steelseg.data.checks.check import refuse_faults
    from steelseg.data.folder import DataSet
    from steelseg.run.run_folder import default_run_path
    from steelseg.run.tuned_postprocess import has_untuned_settings
    from steelseg.training.train import choose_folds

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
        print(f"to screen strips for a run: steelseg cascade RUN --first {place}")
        return path
    if has_untuned_settings(config):
        _announce(f"steelseg tune {place}")
        tune(path)
    _announce(f"steelseg evaluate {place}")
    evaluate(path, overlays=overlays)
    test_images = DataSet(config.data.root).test_images
    if test_images.is_dir():
        _announce(f"steelseg predict {place}{flags}")
        for written in predict(path, folds=chosen, overlays=overlays):
            print(f"wrote {written}")
    else:
        print(f"{test_images} is missing; to predict: steelseg predict {place} --images FOLDER")
    _announce(f"steelseg report {place}")
    print(f"wrote {report(path)}")
    return path


def _open_run(run_dir: Path | str, overrides: Sequence[str]) -> tuple[Config, RunFolder]:
    """Read the settings of a run folder, with `overrides` applied."""
    from steelseg.run.run_folder import RunFolder

    run_folder = RunFolder(Path(run_dir))
    return run_folder.load_config(tuple(overrides)), run_folder


def _announce(command: str) -> None:
    """Print the command of the stage that begins."""
    print(f"\n$ {command}", flush=True)
