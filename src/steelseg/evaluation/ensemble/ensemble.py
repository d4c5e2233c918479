"""The ensemble stage: trained runs combined to one, by what their held-out predictions tell.

Reads  RUN/fold_K/oof_predictions.zarr, RUN/fold_K/best_model.safetensors, RUN/folds.csv,
       data.root/train.csv; where views are chosen, data.root/train_images
Writes OUT/config.yaml, OUT/folds.csv, OUT/ensemble.json, OUT/fold_K/oof_predictions.zarr

What is written as out-of-fold is: every strip is combined with weights that were chosen on other
strips. Prediction of new strips takes the weights of all. The folder is written whole or not at
all; a combination that was there is replaced.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.config.load import build_config
from steelseg.data.folder import DataSet
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
    EnsemblePlan,
    Pool,
    combination_of,
    name_of,
    refuse_classifier,
    refuse_no_presence,
    refuse_nothing_to_do,
    refuse_other_folder,
)
from steelseg.evaluation.ensemble.tta_predictions import predict_view_sets
from steelseg.files.atomic import replacing_folder
from steelseg.inference.forward import FLIP_AXES, forward_plan
from steelseg.inference.members import check_members_compatible
from steelseg.progress import progress as show
from steelseg.run.ensemble_json import Combination, write_combination
from steelseg.run.held_out import deal_parts
from steelseg.run.oof_store import new_store
from steelseg.run.run_folder import RunFolder, create_run
from steelseg.scoring.best_threshold_dice import ThresholdDice
from steelseg.scoring.blending.blend import Products, Weights, blend, multiply, stack_products
from steelseg.scoring.blending.cross_fit import choose_without, judge
from steelseg.scoring.blending.report import Judged, make_report, summary


def ensemble_run(
    paths: Sequence[Path],
    out: Path,
    plan: EnsemblePlan,
    *,
    presence: Sequence[Path] = (),
    overrides: Sequence[str] = (),
) -> Combination:
    """Combine trained runs to a new one.

    Args:
        paths: The runs, with predictions of the same strips in the same folds.
        out: The folder to write; one that holds a combination is replaced.
        plan: How.
        presence: Runs whose mean presence is the combined one; none takes those of `paths` that
            have a presence head.
        overrides: Settings of the combined run, such as "tune.objective=recall".

    Raises:
        CheckpointError: if a run lacks predictions, or they are of other checkpoints, or the runs
            were trained for other classes.
        ConfigError: if there is nothing to combine, or `out` holds something else.
        DataError: if the runs have other strips in their folds.
    """
    refuse_nothing_to_do(paths, plan, presence)
    refuse_other_folder(out)
    runs, looking = open_runs(paths), open_runs(presence)
    for trained in runs:
        refuse_classifier(trained)
    refuse_other_folds([*runs, *looking])
    networks = [m for trained in (*runs, *looking) for m in trained.members.values()]
    check_members_compatible(networks, with_presence=False)
    root = settings_of(runs, overrides, has_presence=True).data.root
    lookers = [_own(trained, len(runs) + place, root=root) for place, trained in enumerate(looking)]
    refuse_no_presence(lookers)
    with replacing_folder(out) as folder, TemporaryDirectory(dir=folder) as work:
        candidates = _candidates(runs, plan, root=root, work=Path(work))
        refuse_other_strips([*candidates, *lookers])
        has_presence = bool(lookers) or any(c.has_presence for c in candidates)
        config = settings_of(runs, overrides, has_presence=has_presence)
        pool = Pool(config, out, plan, tuple(runs), tuple(candidates), tuple(lookers))
        run = create_run(folder, config)
        combination, report = _combine(pool, run)
        shutil.copyfile(runs[0].run.folds_csv, run.folds_csv)
        write_combination(run.ensemble_json, combination, report)
    RunFolder(out).say(summary(report))
    return combination


def settings_of(
    runs: Sequence[TrainedRun], overrides: Sequence[str], *, has_presence: bool
) -> Config:
    """The settings of a combined run: data and gate of its members, all else by default.

    Raises:
        ConfigError: if an override is wrong, or asks for a gate where there is no presence.
    """
    first = runs[0].config
    gates = {run.config.inference.gate for run in runs}
    content = {
        # How a member cuts its strips is its own affair.
        "data": first.data.model_dump() | {"mode": "full"},
        "model": first.model.model_dump() | {"init_from": None, "presence_head": has_presence},
        "train": {"batch_size_val": min(run.config.train.batch_size_val for run in runs)},
        "inference": {
            "amp": all(run.config.inference.amp for run in runs),
            "gate": gates.pop() if len(gates) == 1 else "none",
        },
    }
    return build_config(content, overrides, source="the settings of the combined run")


def _own(trained: TrainedRun, place: int, *, root: Path) -> Candidate:
    """A run with the predictions that lie in its folder."""
    tta = trained.config.inference.tta
    return open_candidate(trained, place, root=root, predictions=trained.run, tta=tta)


def _candidates(
    runs: Sequence[TrainedRun], plan: EnsemblePlan, *, root: Path, work: Path
) -> list[Candidate]:
    """The predictions to choose from; those of sets of views are made first."""
    own = [_own(trained, place, root=root) for place, trained in enumerate(runs)]
    if not plan.choose_tta:
        return own
    refuse_other_strips(own)
    found = []
    for candidate in own:
        folders = {tta: RunFolder(work / f"{candidate.place}_{tta}") for tta in plan.views_first}
        _predict_sets(candidate, folders, root=root)
        found += [
            open_candidate(
                candidate.trained, candidate.place, root=root, predictions=folder, tta=tta
            )
            for tta, folder in folders.items()
        ]
    return found


def _predict_sets(own: Candidate, folders: Mapping[str, RunFolder], *, root: Path) -> None:
    """Predict the strips of each fold of a run under every set of views."""
    trained = own.trained
    for fold, member in trained.members.items():
        for folder in folders.values():
            folder.fold(fold).mkdir(parents=True)
        image_ids = _of_fold(own, fold)
        predict_view_sets(
            member,
            forward_plan(trained.config),
            {tta: folder.oof(fold) for tta, folder in folders.items()},
            images=DataSet(root).train_images,
            image_ids=image_ids,
            sizes=[own.held_out.labels.sizes[image_id] for image_id in image_ids],
            batch_size=trained.config.train.batch_size_val,
            name=f"{trained.run.path.name}, fold {fold}, views",
        )


def _of_fold(candidate: Candidate, fold: int) -> list[str]:
    """The strips of a fold, in the order of the predictions."""
    return [image_id for image_id, own in candidate.held_out.fold_of.items() if own == fold]


def _combine(pool: Pool, run: RunFolder) -> tuple[Combination, dict[str, Any]]:
    """Choose weights, write the combined predictions, and judge them."""
    held_out, tune = pool.candidates[0].held_out, pool.config.tune
    part_of = deal_parts(
        pool.runs[0].run, held_out, parts=tune.inner_folds, seed=pool.config.train.seed
    )
    part_n = np.array([part_of[image_id] for image_id in held_out.fold_of])
    products = _multiply(pool)
    choose = pool.choose(pool.plan.weights)
    weights_kc = choose(products)
    blends = {
        "chosen": choose_without(products, part_n, choose),
        "plain": choose_without(products, part_n, pool.choose("equal")),
    }
    combination = combination_of(pool, weights_kc, blends["chosen"])
    # Each run with the views that were chosen for it; a single run with the fewest.
    alone = [
        max(places, key=lambda k: weights_kc[k].sum()) if len(pool.runs) > 1 else places[0]
        for places in pool.choices
    ]
    dices = _write(pool, run, combination, blends, alone, part_of)
    judged = Judged(
        products,
        part_n,
        errors={name: judge(products, part_n, by_part) for name, by_part in blends.items()},
        counts={name: dice.cross_fitted(part_n) for name, dice in dices.items()},
        sets=_judge_sets(pool, products, part_n),
    )
    report = make_report(
        judged,
        weights=pool.plan.weights,
        names=[name_of(pool, candidate) for candidate in pool.candidates],
        views=[len(FLIP_AXES[candidate.tta]) for candidate in pool.candidates],
        weights_kc=weights_kc,
        alone=alone,
    )
    return combination, report


def _multiply(pool: Pool) -> Products:
    """Read all predictions once, and keep their products."""
    fold_of = pool.candidates[0].held_out.fold_of
    strips = (
        (probs_kchw, truth_chw)
        for fold in dict.fromkeys(fold_of.values())
        for _, probs_kchw, truth_chw in read_side_by_side(pool.candidates, fold)
    )
    return stack_products([multiply(*strip) for strip in show(strips, len(fold_of), "compare")])


def _judge_sets(
    pool: Pool, products: Products, part_n: NDArray[np.int64]
) -> dict[str, tuple[int, NDArray[np.float64]]]:
    """For each set of views, how many views it costs and its errors if every run takes it."""
    weigh = pool.weigh(pool.plan.weights)
    judged = {}
    for tta in pool.plan.views_first:
        places = [k for k, candidate in enumerate(pool.candidates) if candidate.tta == tta]
        of_set = products.among(places)
        errors_nc = judge(of_set, part_n, choose_without(of_set, part_n, weigh))
        judged[tta] = len(places) * len(FLIP_AXES[tta]), errors_nc
    return judged


def _write(
    pool: Pool,
    run: RunFolder,
    combination: Combination,
    blends: Mapping[str, Sequence[Weights]],
    alone: Sequence[int],
    part_of: Mapping[str, int],
) -> dict[str, ThresholdDice]:
    """Write the chosen predictions of every fold, and count them and what they are held against.

    Args:
        pool: What was chosen from.
        run: Where it goes.
        combination: What was chosen.
        blends: Weights by part, of what is written ("chosen") and of others.
        alone: The candidates that are counted by themselves.
        part_of: Part of each strip.

    Returns:
        By the names of `blends`, and by "alone K".
    """
    first = pool.candidates[0]
    dices = {name: ThresholdDice() for name in (*blends, *(f"alone {k}" for k in alone))}
    waiting = iter(show(first.held_out.fold_of, len(first.held_out), "combine"))
    for fold in combination.folds:
        image_ids = _of_fold(first, fold)
        run.fold(fold).mkdir()
        with new_store(
            run.oof(fold),
            image_ids=image_ids,
            sizes=[first.held_out.labels.sizes[image_id] for image_id in image_ids],
            num_classes=pool.config.data.num_classes,
            model_sha256=combination.digest(fold),
        ) as array:
            presence = []
            strips = read_side_by_side(pool.candidates, fold)
            for place, (image_id, probs_kchw, truth_chw) in enumerate(strips):
                next(waiting)
                part = part_of[image_id]
                means = {name: blend(probs_kchw, parts[part]) for name, parts in blends.items()}
                array[place, :, : truth_chw.shape[1], : truth_chw.shape[2]] = means["chosen"]
                presence.append(_presence(pool.looking(blends["chosen"][part]), image_id))
                for name, probs_chw in means.items():
                    dices[name].add(probs_chw, truth_chw)
                for k in alone:
                    dices[f"alone {k}"].add(probs_kchw[k], truth_chw)
            if combination.has_presence:
                array.attrs["presence"] = presence
    next(waiting, None)
    return dices


def _presence(looking: Sequence[Candidate], image_id: str) -> list[float]:
    """Mean presence of a strip; empty where there is none."""
    if not looking:
        return []
    means_c = np.mean([candidate.presence(image_id) for candidate in looking], axis=0)
    return [float(mean) for mean in means_c]
