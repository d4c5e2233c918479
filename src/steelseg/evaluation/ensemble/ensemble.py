"""The ensemble stage: combine trained runs into one run by averaging their predictions.

Reads  RUN/fold_K/oof_predictions.zarr, RUN/fold_K/best_model.safetensors, RUN/folds.csv,
       data.root/train.csv
Writes OUT/config.yaml, OUT/folds.csv, OUT/ensemble.json, OUT/fold_K/oof_predictions.zarr

The combined out-of-fold predictions are cross-fitted: each strip is combined with weights that
were chosen on other strips. New strips get weights that were chosen on all. The folder is written
completely or not at all; a combined run that was there is replaced.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steelseg.config.config import Config
from steelseg.config.load import build_config
from steelseg.evaluation.ensemble.candidates import (
    Candidate,
    TrainedRun,
    open_candidate,
    open_runs,
    read_side_by_side,
    refuse_other_folds,
    refuse_other_strips,
)
from steelseg.evaluation.ensemble.pool import (
    Pool,
    build_spec,
    refuse_no_presence,
    refuse_nothing_to_do,
    refuse_other_folder,
)
from steelseg.files.atomic import replacing_folder
from steelseg.inference.forward import FLIP_AXES
from steelseg.inference.members import check_members_compatible
from steelseg.progress import progress as show
from steelseg.run.ensemble_json import EnsembleSpec, write_ensemble
from steelseg.run.held_out import assign_inner_folds
from steelseg.run.kinds import refuse_classifier
from steelseg.run.oof_store import new_store
from steelseg.run.run_folder import RunFolder, create_run
from steelseg.scoring.best_threshold_dice import BestThresholdDice
from steelseg.scoring.blending.blend import Products, Weights, blend, multiply, stack_products
from steelseg.scoring.blending.report import StripScores, make_report, summary
from steelseg.scoring.blending.weights import (
    Weighing,
    build_weigh,
    cross_fitted_errors,
    cross_fitted_weights,
)


def ensemble_run(
    paths: Sequence[Path],
    out: Path,
    *,
    weights: Weighing = "equal",
    per_class: bool = False,
    presence: Sequence[Path] = (),
    overrides: Sequence[str] = (),
) -> EnsembleSpec:
    """Combine trained runs into a new one.

    Args:
        paths: The runs, with out-of-fold predictions of the same strips in the same folds.
        out: The folder to write; a combined run there is replaced.
        weights: equal, or greedy selection on the out-of-fold predictions.
        per_class: Select separate weights for each class.
        presence: Runs whose presence is averaged; empty averages over the runs of `paths` that
            have a presence head.
        overrides: Settings of the combined run, such as "tune.objective=recall".

    Returns:
        The content of ensemble.json.

    Raises:
        CheckpointError: if a run has no predictions, or those of other checkpoints, or the runs
            were trained for other classes.
        ConfigError: if there is nothing to combine, or `out` contains anything else.
        DataError: if the runs have other strips in their folds.
    """
    refuse_nothing_to_do(paths, presence, weights=weights, per_class=per_class)
    refuse_other_folder(out)
    runs, presence_runs = open_runs(paths), open_runs(presence)
    for trained in runs:
        refuse_classifier(trained.config, trained.run.path, what="to average")
    refuse_other_folds([*runs, *presence_runs])
    networks = [m for trained in (*runs, *presence_runs) for m in trained.members.values()]
    check_members_compatible(networks, with_presence=False)
    root = settings_of(runs, overrides, has_presence=True).data.root
    for_presence = tuple(open_candidate(trained, root=root) for trained in presence_runs)
    refuse_no_presence(for_presence)
    candidates = tuple(open_candidate(trained, root=root) for trained in runs)
    refuse_other_strips([*candidates, *for_presence])
    has_presence = bool(for_presence) or any(c.has_presence for c in candidates)
    config = settings_of(runs, overrides, has_presence=has_presence)
    pool = Pool(config, out, weights, per_class, candidates, for_presence)
    with replacing_folder(out) as folder:
        run = create_run(folder, config)
        spec, report = _combine(pool, run)
        shutil.copyfile(runs[0].run.folds_csv, run.folds_csv)
        write_ensemble(run.ensemble_json, spec, report)
    RunFolder(out).say(summary(report))
    return spec


def settings_of(
    runs: Sequence[TrainedRun], overrides: Sequence[str], *, has_presence: bool
) -> Config:
    """Return the settings of a combined run: data and gate of its members, otherwise defaults.

    Raises:
        ConfigError: if an override is wrong, or asks for a gate without presence.
    """
    first = runs[0].config
    gates = {run.config.inference.gate for run in runs}
    content = {
        # Each member has its own crops.
        "data": first.data.model_dump() | {"mode": "full"},
        "model": first.model.model_dump() | {"init_from": None, "presence_head": has_presence},
        "train": {"batch_size_val": min(run.config.train.batch_size_val for run in runs)},
        "inference": {
            "amp": all(run.config.inference.amp for run in runs),
            "gate": gates.pop() if len(gates) == 1 else "none",
        },
    }
    return build_config(content, overrides, source="the settings of the combined run")


def _combine(pool: Pool, run: RunFolder) -> tuple[EnsembleSpec, dict[str, Any]]:
    """Choose weights, write the combined predictions, and score them."""
    first = pool.candidates[0]
    inner_fold_of = assign_inner_folds(
        first.run,
        first.held_out,
        num_folds=pool.config.tune.inner_folds,
        seed=pool.config.train.seed,
    )
    inner_fold_n = np.array([inner_fold_of[image_id] for image_id in first.held_out.fold_of])
    products = _multiply(pool)
    weigh = build_weigh(pool.weights, per_class=pool.per_class)
    plain = build_weigh("equal", per_class=False)
    weights_kc = weigh(products)
    blends = {
        "chosen": cross_fitted_weights(products, inner_fold_n, weigh),
        "plain": cross_fitted_weights(products, inner_fold_n, plain),
    }
    spec = build_spec(pool, weights_kc, blends["chosen"])
    dices = _write(pool, run, spec, blends, inner_fold_of)
    strip_scores = StripScores(
        products,
        errors={
            name: cross_fitted_errors(products, inner_fold_n, by_fold)
            for name, by_fold in blends.items()
        },
        counts={name: dice.cross_fitted(inner_fold_n) for name, dice in dices.items()},
    )
    report = make_report(
        strip_scores,
        weights=pool.weights,
        names=[str(candidate.run.path) for candidate in pool.candidates],
        passes=[len(FLIP_AXES[candidate.tta]) for candidate in pool.candidates],
        weights_kc=weights_kc,
    )
    return spec, report


def _multiply(pool: Pool) -> Products:
    """Read all predictions once, and keep their products."""
    fold_of = pool.candidates[0].held_out.fold_of
    strips = (
        (probs_kchw, truth_chw)
        for fold in dict.fromkeys(fold_of.values())
        for _, probs_kchw, truth_chw in read_side_by_side(pool.candidates, fold)
    )
    return stack_products([multiply(*strip) for strip in show(strips, len(fold_of), "compare")])


def _write(
    pool: Pool,
    run: RunFolder,
    spec: EnsembleSpec,
    blends: Mapping[str, Sequence[Weights]],
    inner_fold_of: Mapping[str, int],
) -> dict[str, BestThresholdDice]:
    """Write the combined predictions of every fold, and count them and those they compare with.

    Args:
        pool: The runs.
        run: The combined run.
        spec: The content of ensemble.json.
        blends: Weights of each inner fold, of the predictions to write ("chosen") and of others.
        inner_fold_of: Inner fold of each strip.

    Returns:
        By the names of `blends`, and by "alone K" for each candidate.
    """
    held_out = pool.candidates[0].held_out
    alone = [f"alone {k}" for k in range(len(pool.candidates))]
    dices = {name: BestThresholdDice() for name in (*blends, *alone)}
    waiting = iter(show(held_out.fold_of, len(held_out), "combine"))
    for fold in spec.folds:
        image_ids = [i for i, number in held_out.fold_of.items() if number == fold]
        run.fold(fold).mkdir()
        with new_store(
            run.oof(fold),
            image_ids=image_ids,
            sizes=[held_out.labels.sizes[image_id] for image_id in image_ids],
            num_classes=pool.config.data.num_classes,
            model_sha256=spec.digest(fold),
        ) as array:
            presence = []
            strips = read_side_by_side(pool.candidates, fold)
            for index, (image_id, probs_kchw, truth_chw) in enumerate(strips):
                next(waiting)
                inner_fold = inner_fold_of[image_id]
                means = {
                    name: blend(probs_kchw, weights[inner_fold]) for name, weights in blends.items()
                }
                array[index, :, : truth_chw.shape[1], : truth_chw.shape[2]] = means["chosen"]
                presence.append(_presence(pool.with_presence, image_id))
                for name, probs_chw in (*means.items(), *zip(alone, probs_kchw, strict=True)):
                    dices[name].add(probs_chw, truth_chw)
            if spec.has_presence:
                array.attrs["presence"] = presence
    next(waiting, None)
    return dices


def _presence(candidates: Sequence[Candidate], image_id: str) -> list[float]:
    """Return the mean presence of a strip; empty without candidates."""
    if not candidates:
        return []
    means_c = np.mean([candidate.presence(image_id) for candidate in candidates], axis=0)
    return [float(mean) for mean in means_c]
