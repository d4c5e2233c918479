"""The export stage: convert trained folds to another runtime, and verify the results.

Reads  RUN/config.yaml, RUN/folds.csv, RUN/fold_K/best_model.safetensors, RUN/postprocess.json,
       data.root
Writes RUN/export/FORMAT-PRECISION/

Each exported network is compared with its original on strips that its fold held out, with the
run's post-processing. If a check fails, the folder is not changed. int8 is calibrated on the
fold's training strips, never on held-out ones.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.config.export_formats import EXPORT_FORMATS, network_sources
from steelseg.data.checks.check import load_labels
from steelseg.data.folder import DataSet
from steelseg.data.folds import read_folds
from steelseg.data.formats.annotations import Labels
from steelseg.data.formats.images import read_image
from steelseg.errors import CheckpointError, ConfigError, ExportError
from steelseg.export.choose_strips import choose_strips
from steelseg.export.convert import as_input, convert
from steelseg.export.exported import (
    EXPORT_JSON,
    Check,
    Export,
    ExportedFold,
    ExportRecord,
    Figures,
    Precision,
    export_folder,
    network_names,
    read_export,
    read_record,
    record_text,
    verify_fold,
)
from steelseg.export.parity import compare, describe, failures
from steelseg.files.atomic import replacing_folder, write_text
from steelseg.files.sha256 import sha256_file
from steelseg.inference.backends.backend import Size
from steelseg.inference.forward import Network, batches, forward_plan
from steelseg.inference.load_exported import load_exported
from steelseg.inference.model_source import ResolvedModel
from steelseg.models.build import restore_model
from steelseg.models.checkpoint import load_checkpoint
from steelseg.progress import progress as show
from steelseg.run.kinds import refuse_combined
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import gate_of, mask_maker
from steelseg.scoring.gate import Gate
from steelseg.scoring.postprocess import MaskSettings
from steelseg.scoring.presence import has_pixels, one_pixel, without_sizes


@dataclass(frozen=True)
class ExportPlan:
    """Options of an export."""

    format: str

    int8: bool = False
    """int8 instead of fp32."""

    fixed_size: bool = False
    """Accept only images of data.img_height x data.img_width; False accepts any size."""

    calibration: int = 128
    """Number of training strips that int8 is calibrated on."""

    strips: int = 100
    """Number of held-out strips that original and export are compared on."""

    allow: tuple[Check, ...] = ()
    """Checks that may fail."""

    def __post_init__(self) -> None:
        """Raise ConfigError unless the format has this precision."""
        name = f"{self.format}-{self.precision}"
        if name not in network_sources():
            exports = ", ".join(network_sources()[1:])
            raise ConfigError(f"{name} is not an export. The exports are: {exports}.")

    @property
    def precision(self) -> Precision:
        """fp32 or int8."""
        return "int8" if self.int8 else "fp32"


def export_run(model: ResolvedModel, plan: ExportPlan) -> Export:
    """Export the folds of a resolved run; its other folds that were exported before are kept.

    Args:
        model: A run, as `resolve_run` returns it.
        plan: Options of the export.

    Returns:
        The export, read back.

    Raises:
        CheckpointError: if a checkpoint cannot be used.
        ConfigError: if the network cannot be exported so, or a package is not installed.
        DataError: if the data set has changed.
        ExportError: if a check fails that is not allowed to.
    """
    run, config = model.run, model.config
    assert run is not None
    refuse_combined(
        run,
        "Export its members, each by itself, and bundle the run from those: steelseg bundle "
        f"{run.path} --from {plan.format}-{plan.precision}; or bundle the checkpoints: steelseg "
        f"bundle {run.path}.",
    )
    chosen = sorted(model.folds)
    labels = load_labels(config.data)
    fold_of = read_folds(
        run.folds_csv, image_ids=list(labels.sizes), num_folds=config.data.num_folds
    )
    target = export_folder(run, plan.format, plan.precision)
    target.parent.mkdir(exist_ok=True)
    with replacing_folder(target) as folder:
        made = []
        for fold in chosen:
            strips = _Strips(
                config, labels, held_out=tuple(i for i in labels.sizes if fold_of[i] == fold)
            )
            made.append(_export_fold(model, plan, fold, strips, folder))
        record = ExportRecord(
            format=plan.format,
            precision=plan.precision,
            class_names=config.data.names,
            channels=config.data.channels,
            folds=tuple(sorted([*made, *_keep(target, folder, chosen)], key=lambda f: f.fold)),
        )
        write_text(folder / EXPORT_JSON, record_text(record))
    run.say(f"wrote {target}")
    return read_export(target)


@dataclass(frozen=True)
class _Strips:
    """The strips of one fold."""

    config: Config
    labels: Labels
    held_out: tuple[str, ...]

    def read(self, image_id: str) -> NDArray[np.uint8]:
        """Pixels of a strip, image_hwc."""
        data = self.config.data
        return read_image(DataSet(data.root).train_images / image_id, channels=data.channels)

    def truth(self, image_id: str) -> NDArray[np.bool_]:
        """Return the ground truth, mask_chw; for a classifier, a single pixel."""
        mask_chw = self.labels.draw(image_id)
        return has_pixels(mask_chw) if self.config.model.is_classifier else mask_chw

    def draw(self, count: int, fold: int, *, held_out: bool) -> list[str]:
        """Draw strips evenly by class from those that the fold held out, or was trained on."""
        present = {
            image_id: self.labels.class_ids(image_id)
            for image_id in self.labels.sizes
            if (image_id in self.held_out) is held_out
        }
        return choose_strips(present, count, seed=self.config.train.seed + fold)


def _export_fold(
    source: ResolvedModel, plan: ExportPlan, fold: int, strips: _Strips, folder: Path
) -> ExportedFold:
    """Export and verify one fold; its files go into `folder`."""
    run, config = source.run, source.config
    assert run is not None
    checkpoint = load_checkpoint(run.best_model(fold))
    model = restore_model(checkpoint)
    size = _fixed_size(config, model.multiple) if plan.fixed_size else None
    calibration = strips.draw(plan.calibration, fold, held_out=False) if plan.int8 else []
    compared_on = strips.draw(plan.strips, fold, held_out=True)
    settings = without_sizes(source.masks) if config.model.is_classifier else source.masks
    with TemporaryDirectory(dir=folder) as work:
        paths = convert(
            model,
            Path(work),
            format=plan.format,
            channels=config.data.channels,
            size=size,
            calibration=[
                as_input(strips.read(image_id), model)
                for image_id in show(calibration, len(calibration), f"fold {fold}: read")
            ],
        )
        networks: dict[str, Network] = {"original": model}
        for precision, exported in paths.items():
            networks[precision] = load_exported(exported, multiple=model.multiple, amp=False)
        figures = compare(
            networks,
            batches(
                show(compared_on, len(compared_on), f"fold {fold}: compare"),
                strips.read,
                batch_size=config.train.batch_size_val,
            ),
            truth=strips.truth,
            gate=_gate(config, settings),
            to_mask=mask_maker(settings),
            plan=forward_plan(config),
        )
        run.say(f"fold {fold}, {len(compared_on)} held-out strips:\n{describe(figures)}")
        waived = _judge(run, plan, fold, figures)
        files = {}
        for name in network_names(fold, plan.format):
            paths[plan.precision].with_suffix(Path(name).suffix).rename(folder / name)
            files[name] = sha256_file(folder / name)
    height, width = size or (None, None)
    return ExportedFold(
        fold=fold,
        checkpoint_sha256=checkpoint.sha256,
        files=files,
        multiple=model.multiple,
        height=height,
        width=width,
        calibration=tuple(calibration),
        strips=len(compared_on),
        figures=figures,
        waived=waived,
        packages=_versions(),
    )


def _versions() -> dict[str, str]:
    """Return the versions of torch and of every installed package of an export format."""
    formats = EXPORT_FORMATS.values()
    packages = {"torch"}.union(*((*f.packages, *f.int8_packages) for f in formats))
    return {name: version(name) for name in sorted(packages) if find_spec(name)}


def _judge(
    run: RunFolder, plan: ExportPlan, fold: int, figures: dict[str, Figures]
) -> tuple[Check, ...]:
    """Return the failed checks that are allowed to fail; raise ExportError for others."""
    failed = failures(figures, precision=plan.precision)
    refused = [check for check in failed if check not in plan.allow]
    if refused:
        raise ExportError(
            f"fold {fold}, {plan.format} {plan.precision}: "
            + "; ".join(failed[check] for check in refused)
            + f". Nothing was kept; --allow {' '.join(refused)} waives "
            + ("it." if len(refused) == 1 else "them.")
        )
    for check, reason in failed.items():
        run.warn(f"fold {fold}: {reason}; allowed by --allow {check}")
    return tuple(failed)


def _fixed_size(config: Config, multiple: int) -> Size:
    """Return the height and width for --fixed-size.

    Raises:
        ConfigError: if the images, or the crops that the network predicts, vary in size.
    """
    height, width = config.data.img_height, config.data.img_width
    if height is None or width is None:
        raise ConfigError(
            "--fixed-size needs data.img_height and data.img_width, and one of them is null. "
            "Leave --fixed-size out: the files then accept any size."
        )
    if config.inference.crops:
        raise ConfigError(
            "--fixed-size is the size of whole strips, but inference.crops=true predicts crops. "
            "Leave --fixed-size out: the files then accept any size."
        )
    return height + -height % multiple, width + -width % multiple


def _gate(config: Config, settings: MaskSettings) -> Gate:
    """Return the gate of the run; for a classifier, presence as a single pixel."""
    if config.model.is_classifier:
        return lambda _, presence_c: one_pixel(presence_c)
    return gate_of(config, settings)


def _keep(target: Path, folder: Path, chosen: Sequence[int]) -> list[ExportedFold]:
    """Copy the other folds of an existing export, if they are intact and still the run's."""
    kept = []
    try:
        export = Export(folder=target, record=read_record(target))
    except CheckpointError:
        return []
    for fold in export.record.folds:
        if fold.fold in chosen:
            continue
        try:
            verify_fold(export, fold)
        except CheckpointError:
            continue
        for name in fold.files:
            shutil.copyfile(target / name, folder / name)
        kept.append(fold)
    return kept
