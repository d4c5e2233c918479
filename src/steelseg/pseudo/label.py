"""The pseudo-label stage: label unlabelled strips with the networks of a run.

Reads  RUN/folds.csv, RUN/fold_K/best_model.safetensors, RUN/postprocess.json, a folder of images;
       data.root, to find copies; RUN/fold_K/oof_predictions.zarr with pseudo.precision
Writes OUT: index.json, folds.csv, fold_K/train.csv, fold_K/strips.csv

A network that is scored on the held-out strips of fold K must not learn from labels by a network
that was trained on them. So every fold has its own labels: fold_K/train.csv holds the predictions
of the fold-K networks of this run and of other runs with the same folds, and of no other networks.
Copies and near-duplicates of labelled strips are left out of every fold. The only remaining leak is
post-processing: a few numbers that were tuned on strips of all folds.

A strip is kept only if all votes agree and every class is confident; see `scoring.confidence`.
Findings are written to a journal next to OUT, so a killed stage resumes; OUT appears once all folds
are done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from steelseg.config.config import Config
from steelseg.data.checks.check import load_labels
from steelseg.data.checks.copies import Candidate, find_copies
from steelseg.data.folder import DataSet
from steelseg.data.folds import read_fold_numbers, read_folds
from steelseg.data.formats.annotations import Labels
from steelseg.data.formats.images import list_images
from steelseg.data.pseudo_labels import KEPT, is_pseudo_folder, write_fold, write_index
from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.files.atomic import replacing_folder, write_bytes
from steelseg.files.journal import open_journal
from steelseg.inference.forward import ForwardPlan, forward_plan
from steelseg.inference.members import Member, check_settings_match, checkpoint_member
from steelseg.inference.model_source import tuned_settings
from steelseg.models.checkpoint import load_checkpoint
from steelseg.models.device import pick_device
from steelseg.progress import progress as show
from steelseg.pseudo.held_out_confidence import (
    FoldThresholds,
    choose_fold_thresholds,
    gather_evidence,
)
from steelseg.pseudo.report import (
    describe_fold,
    lacking_classes,
    never_accepted,
    plain,
    report_fold,
)
from steelseg.pseudo.teachers import Teachers
from steelseg.pseudo.verdicts import Finding, label_strips, make_judge, verdicts
from steelseg.run.kinds import refuse_classifier, refuse_combined
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import given, mask_settings
from steelseg.scoring.confidence import ConfidenceThresholds
from steelseg.scoring.postprocess import MaskSettings, per_class
from steelseg.version import __version__


@dataclass(frozen=True)
class _Run:
    """A run that labels strips."""

    folder: RunFolder
    plan: ForwardPlan
    members: Mapping[int, Member]
    """The network of each fold."""


def pseudo_run(
    run: RunFolder,
    overrides: Sequence[str] = (),
    *,
    images: Path,
    out: Path | None = None,
    teachers: Sequence[RunFolder] = (),
) -> Path:
    """Label the images of a folder with the networks of a run.

    Args:
        run: A run with trained folds; its settings make the masks.
        overrides: Settings to change, such as "pseudo.agreement=0.9".
        images: Folder of the images.
        out: Output folder; None for RUN/pseudo. Existing pseudo-labels are replaced.
        teachers: Other runs with the same folds, whose networks vote too.

    Returns:
        The output folder.

    Raises:
        CheckpointError: if a checkpoint or its predictions cannot be used.
        ConfigError: if the runs have different folds, or `out` contains anything else.
        DataError: if an image cannot be read or has another size, or all are labelled already.
    """
    out = out or run.path / "pseudo"
    config = run.load_config(tuple(overrides))
    _refuse_other_folder(out)
    runs = _open_runs(config, [run, *teachers], tuple(overrides))
    digests = [{fold: member.sha256 for fold, member in one.members.items()} for one in runs]
    settings = mask_settings(config, tuned_settings(run, digests[0]))
    labels = load_labels(config.data)
    candidates = _find_candidates(config, run, labels, images)
    thresholds = _fold_thresholds(config, runs, digests)
    identity = {
        "networks": digests,
        "settings": [config.model_dump(mode="json"), asdict(settings)],
        "plans": [asdict(one.plan) for one in runs],
        "trust": {fold: plain(asdict(one.thresholds)) for fold, one in thresholds.items()},
        "version": __version__,
    }
    with open_journal(out.with_name(f"{out.name}.journal"), identity) as journal:
        found = {
            fold: label_strips(
                fold,
                images,
                candidates,
                journal,
                channels=config.data.channels,
                load=partial(_load_teachers, runs, fold),
                judge=make_judge(config, settings, chosen.thresholds),
            )
            for fold, chosen in thresholds.items()
        }
        with replacing_folder(out) as folder:
            for fold, strips in found.items():
                masks = {i: one.masks for i, one in strips.items() if one.verdict == KEPT}
                write_fold(folder, fold, verdicts(candidates, strips), masks)
            write_bytes(folder / "folds.csv", run.folds_csv.read_bytes())
            content = _index(config, runs, settings, images, thresholds, found)
            write_index(folder, content)
    _print_summary(config, run, labels, thresholds, found)
    return out


def _refuse_other_folder(path: Path) -> None:
    """Raise ConfigError unless `path` is missing, an empty folder, or contains pseudo-labels."""
    is_free = not path.exists() and not path.is_symlink()
    if not is_free and (path.is_symlink() or not path.is_dir()):
        raise ConfigError(f"{path} is not a folder. Choose another --out.")
    if not is_free and any(path.iterdir()) and not is_pseudo_folder(path):
        raise ConfigError(
            f"{path} contains files that are not pseudo-labels. Choose another --out."
        )


def _open_runs(
    config: Config, folders: Sequence[RunFolder], overrides: tuple[str, ...]
) -> list[_Run]:
    """Open the networks of every run, fold by fold."""
    first = folders[0]
    for folder in folders:
        refuse_combined(folder, "Name its members: one as RUN, the others as --teachers.")
    folds = first.trained_folds(config.data.num_folds)
    fold_of = read_fold_numbers(first.folds_csv)
    runs = []
    for folder in folders:
        own = folder.load_config(overrides)
        refuse_classifier(own, folder.path, what="to label strips with")
        if read_fold_numbers(folder.folds_csv) != fold_of:
            raise ConfigError(
                f"{folder.path} and {first.path} have different folds, so networks of one may have "
                "been trained on held-out strips of the other. Use runs with the same folds.csv: "
                "same train.csv, data.num_folds and data.fold_seed (null: train.seed)."
            )
        members = {fold: checkpoint_member(folder.best_model(fold)) for fold in folds}
        check_settings_match(members[folds[0]], own)
        for fold in folds:
            _refuse_other_fold(folder.best_model(fold), fold)
        runs.append(_Run(folder, replace(forward_plan(own), tta="none"), members))
    paths = [one.folder.path.resolve() for one in runs]
    if len(set(paths)) < len(paths):
        raise ConfigError("A run is named twice. Name each of RUN and --teachers once.")
    return runs


def _refuse_other_fold(path: Path, fold: int) -> None:
    """Raise CheckpointError if a checkpoint is in the folder of another fold."""
    trained = load_checkpoint(path).state.get("fold")
    if trained != fold:
        raise CheckpointError(
            f"{path} belongs to fold {trained}, so it was trained on held-out strips of fold "
            f"{fold}. Put the model of fold {fold} there."
        )


def _find_candidates(
    config: Config, run: RunFolder, labels: Labels, images: Path
) -> dict[str, Candidate]:
    """List the images, and find those that are copies of labelled strips."""
    image_ids = list_images(images)
    data, known = config.data, list(labels.sizes)
    read_folds(run.folds_csv, image_ids=known, num_folds=data.num_folds)
    candidates = find_copies(
        images,
        image_ids,
        known_folder=DataSet(data.root).train_images,
        known_ids=known,
        channels=data.channels,
        progress=show,
    )
    _refuse_other_sizes(config, images, candidates)
    copies = {image_id: one for image_id, one in candidates.items() if one.copy_of}
    if len(copies) == len(candidates):
        raise DataError(
            f"Every image of {images} is a copy of a labelled strip, so there is nothing to label. "
            "Name a folder of strips that are not in train_images."
        )
    if copies:
        same = sum(one.is_same_file for one in copies.values())
        run.warn(
            f"{len(copies)} of {len(candidates)} images are copies of labelled strips, such as "
            f"{min(copies)} ({same} identical, {len(copies) - same} look alike). They are left "
            "out."
        )
    return candidates


def _refuse_other_sizes(config: Config, images: Path, candidates: Mapping[str, Candidate]) -> None:
    """Raise DataError if an image does not have the size that the settings require."""
    expected_size = config.data.img_height, config.data.img_width
    for image_id, one in candidates.items():
        if any(side not in (None, own) for side, own in zip(expected_size, one.size, strict=True)):
            expected = "x".join("any" if side is None else str(side) for side in expected_size)
            raise DataError(
                f"{images / image_id}: the image is {one.size[0]}x{one.size[1]}, but strips are "
                f"{expected} (data.img_height x data.img_width; null for any)."
            )


def _fold_thresholds(
    config: Config, runs: Sequence[_Run], digests: Sequence[Mapping[int, str]]
) -> dict[int, FoldThresholds]:
    """Return the confidence thresholds of each fold: as given, or chosen by precision."""
    precision, folds = config.pseudo.precision, list(runs[0].members)
    if precision is None:
        minimum = per_class(
            config.pseudo.min_confidence, config.data.num_classes, name="pseudo.confidence"
        )
        return {fold: FoldThresholds(ConfidenceThresholds(minimum, minimum)) for fold in folds}
    evidence = gather_evidence(config, [one.folder for one in runs], digests)
    return {fold: choose_fold_thresholds(evidence, fold, precision=precision) for fold in folds}


def _load_teachers(runs: Sequence[_Run], fold: int) -> Teachers:
    """Load the networks of one fold."""
    return Teachers(
        [one.members[fold] for one in runs],
        [one.plan for one in runs],
        device=pick_device(),
    )


def _index(
    config: Config,
    runs: Sequence[_Run],
    settings: MaskSettings,
    images: Path,
    thresholds: Mapping[int, FoldThresholds],
    found: Mapping[int, Mapping[str, Finding]],
) -> dict[str, object]:
    """Return the content of index.json."""
    content: dict[str, object] = plain(
        {
            "steelseg": __version__,
            "images": str(images.resolve()),
            "class_names": config.data.names,
            "teachers": [
                {
                    "run": str(one.folder.path),
                    "models": {fold: member.sha256 for fold, member in one.members.items()},
                }
                for one in runs
            ],
            "pseudo": config.pseudo.model_dump(mode="json"),
            "postprocess": given(settings),
            "folds": {
                fold: report_fold(strips, thresholds[fold], num_classes=config.data.num_classes)
                for fold, strips in found.items()
            },
        }
    )
    return content


def _print_summary(
    config: Config,
    run: RunFolder,
    labels: Labels,
    thresholds: Mapping[int, FoldThresholds],
    found: Mapping[int, Mapping[str, Finding]],
) -> None:
    """Print a summary of each fold, with warnings where the labels are not usable."""
    for fold, strips in found.items():
        summary = describe_fold(strips, thresholds[fold], class_names=config.data.names)
        run.say(f"fold {fold}: {summary}")
        if rejected := never_accepted(thresholds[fold], config.data.names):
            run.warn(
                f"fold {fold}: no mask of {', '.join(rejected)} is accepted, because none reaches "
                f"pseudo.precision={config.pseudo.precision}."
            )
        if not any(one.verdict == KEPT for one in strips.values()):
            run.warn(
                f"fold {fold}: no strip was kept, so it cannot be trained with these labels. "
                "Lower pseudo.agreement and pseudo.confidence, or use a better run."
            )
        elif missing := lacking_classes(strips, labels):
            names = ", ".join(config.data.names[class_id - 1] for class_id in missing)
            run.warn(
                f"fold {fold}: no kept strip shows {names}. A network that never finds a class "
                "labels its strips as clean, and training learns that; pseudo.precision=0.9 "
                "compares its predictions with the ground truth."
            )
