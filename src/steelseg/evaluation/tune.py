"""The tuning stage: choose post-processing on out-of-fold predictions, and score it without bias.

Reads  RUN/fold_K/oof_predictions.zarr, data.root/train.csv
Writes RUN/postprocess.json

The score to report is the cross-fitted one: every strip is scored with settings that were chosen
without it. The naive score, chosen and scored on the same strips, shows the optimistic bias.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.config.config import Config
from steelseg.errors import ConfigError
from steelseg.progress import progress as show
from steelseg.run.held_out import HeldOut, ToMask, assign_inner_folds, held_out_masks, open_held_out
from steelseg.run.kinds import refuse_classifier
from steelseg.run.run_folder import RunFolder
from steelseg.run.tuned_postprocess import TunedPostprocessing, has_untuned_settings, write_tuned
from steelseg.scoring.metrics import count_pixels, dice
from steelseg.scoring.postprocess import MaskSettings, per_class
from steelseg.scoring.tuning.grid_search import (
    Ranking,
    best,
    between_levels,
    cross_fit,
    landscape,
    operating_points,
    ranking,
)
from steelseg.scoring.tuning.grid_tables import (
    Choice,
    Grid,
    Outcome,
    Sums,
    Tables,
    add_up,
    make_grid,
)

_THRESHOLDS = tuple(step / 20 for step in range(1, 20))
_GATES = (0.0, *_THRESHOLDS)


def tune_run(config: Config, run: RunFolder) -> TunedPostprocessing:
    """Choose threshold, top_threshold, min_size and min_area of each class, and its hard gate.

    Settings that the user has set are not searched.

    Args:
        config: The settings.
        run: A run with out-of-fold predictions.

    Returns:
        The content of postprocess.json.

    Raises:
        CheckpointError: if there are no predictions.
        ConfigError: if every setting is set.
        DataError: if train.csv has a fault, or only one strip was predicted.
    """
    refuse_classifier(config, run.path, what="to tune")
    if not has_untuned_settings(config):
        raise ConfigError(
            "Every postprocess setting is set, so there is nothing to choose. Set one to null, "
            "such as postprocess.threshold=null."
        )
    held_out = open_held_out(config.data, run, gate=config.inference.gate)
    inner_fold_of = assign_inner_folds(
        run, held_out, num_folds=config.tune.inner_folds, seed=config.train.seed
    )
    num_inner_folds = len(set(inner_fold_of.values()))
    tables = [Tables(grid, num_inner_folds) for grid in grids(config, held_out.labels.sizes)]
    untuned = _fill(tables, held_out, inner_fold_of, held_out_masks(config, run, held_out, None))
    fits = [
        _Fit(table, num_inner_folds, rank)
        for table, rank in zip(tables, rankings(config), strict=True)
    ]
    tuned = TunedPostprocessing(
        settings=_settings(config, [fit.chosen for fit in fits]),
        inner_folds=tuple(
            _settings(config, choices) for choices in zip(*(f.by_fold for f in fits), strict=True)
        ),
        inner_fold_of=inner_fold_of,
        models=held_out.models,
        report=_report(config, fits, untuned),
    )
    # Later stages use the same settings.
    run.save_config(config)
    write_tuned(run.postprocess_json, tuned)
    run.say(_summary(config, tuned, len(held_out)))
    return tuned


def grids(config: Config, sizes: Mapping[str, tuple[int, int]]) -> list[Grid]:
    """Return the grid of each class: values that the user has set, and defaults for the others.

    Args:
        config: The settings.
        sizes: Height and width of each strip; the largest decides which sizes are tried.
    """
    fixed, classes = config.postprocess, config.data.num_classes
    thresholds = [between_levels(threshold) for threshold in _THRESHOLDS]
    steps = default_sizes(max(height * width for height, width in sizes.values()))

    def tried(name: str, default: Sequence[Any]) -> list[Sequence[Any]]:
        value = getattr(fixed, name)
        if value is None:
            return [default] * classes
        return [(v,) for v in per_class(value, classes, name=f"postprocess.{name}")]

    is_hard = config.inference.gate == "hard"
    # A hard gate serves the same purpose as top_threshold, and searching both takes long.
    tops = (
        [None] * classes
        if is_hard and fixed.top_threshold is None
        else tried("top_threshold", thresholds)
    )
    return [
        make_grid(
            thresholds=threshold, top_thresholds=top, min_sizes=size, min_areas=area, gates=gates
        )
        for threshold, top, size, area, gates in zip(
            tried("threshold", thresholds),
            tops,
            tried("min_size", steps),
            tried("min_area", steps),
            tried("gate", _GATES) if is_hard else [(0.0,)] * classes,
            strict=True,
        )
    ]


def default_sizes(pixels: int) -> tuple[int, ...]:
    """Return sizes to try for images of `pixels` pixels: 0 and 21 steps of the square root of 2."""
    steps = pixels / 2**14 * np.sqrt(2) ** np.arange(21)
    return tuple(sorted({0, *(round(float(step)) for step in steps)}))


def rankings(config: Config) -> list[Ranking]:
    """Return the objective of each class."""
    tune, classes = config.tune, config.data.num_classes
    return [
        ranking(tune.objective, min_recall=tune.min_recall, cost_miss=miss, cost_false_alarm=alarm)
        for miss, alarm in zip(
            per_class(tune.cost_miss, classes, name="tune.cost_miss"),
            per_class(tune.cost_false_alarm, classes, name="tune.cost_false_alarm"),
            strict=True,
        )
    ]


class _Fit:
    """The search for one class: on all strips, and for each inner fold on the others."""

    def __init__(self, tables: Tables, num_inner_folds: int, rank: Ranking) -> None:
        self.sums: Sums = tables.sums(range(num_inner_folds))
        index = best(self.sums, rank)
        self.chosen: Choice = self.sums.choice(index)
        self.naive: Outcome = self.sums.outcome(index)
        self.by_fold, self.cross_fitted = cross_fit(tables, num_inner_folds, rank)


def _fill(
    tables: Sequence[Tables], held_out: HeldOut, inner_fold_of: Mapping[str, int], to_mask: ToMask
) -> list[Outcome]:
    """Count every strip, and return the outcome of each class without tuning."""
    counts = []
    for image_id, probs_chw, truth_chw in show(held_out, len(held_out), "tune"):
        counts.append(count_pixels(to_mask(image_id, probs_chw), truth_chw))
        # Without a presence head no class is ruled out.
        presence = held_out.presence[image_id].tolist() or [1.0] * len(tables)
        for table, *strip in zip(tables, probs_chw, truth_chw, presence, strict=True):
            table.add(inner_fold_of[image_id], *strip)
    return [_outcome(counts_n3) for counts_n3 in np.stack(counts, axis=1)]


def _outcome(counts_n3: NDArray[np.int64]) -> Outcome:
    """Sum the counts of one class."""
    is_predicted, is_positive = counts_n3[:, 1] > 0, counts_n3[:, 2] > 0
    return Outcome(
        dice_sum=float(dice(counts_n3[is_positive]).sum()),
        found=int(np.count_nonzero(is_predicted & is_positive)),
        false_alarms=int(np.count_nonzero(is_predicted & ~is_positive)),
        positives=int(np.count_nonzero(is_positive)),
        negatives=int(np.count_nonzero(~is_positive)),
    )


def _settings(config: Config, choices: Sequence[Choice]) -> MaskSettings:
    """Return the choices of all classes as settings."""
    return MaskSettings(
        threshold=tuple(choice.threshold for choice in choices),
        min_size=tuple(choice.min_size for choice in choices),
        min_area=tuple(choice.min_area for choice in choices),
        top_threshold=tuple(choice.top_threshold for choice in choices),
        gate=tuple(choice.gate for choice in choices) if config.inference.gate == "hard" else (),
    )


def _report(config: Config, fits: Sequence[_Fit], untuned: Sequence[Outcome]) -> dict[str, Any]:
    """Return objective, scores and alternatives of each class, for JSON."""
    return {
        "tune": config.tune.model_dump(mode="json"),
        "scores": {
            "untuned": _scores(untuned),
            "naive": _scores([fit.naive for fit in fits]),
            "cross_fitted": _scores([fit.cross_fitted for fit in fits]),
        },
        "classes": [_alternatives(fit.sums) for fit in fits],
    }


def _scores(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the outcome of all classes together and of each."""
    return {
        **_figures(add_up(outcomes)),
        "classes": [_figures(outcome) for outcome in outcomes],
    }


def _figures(outcome: Outcome) -> dict[str, float | int | None]:
    """Return an outcome for JSON; undefined figures are null."""
    return {
        "dice": outcome.dice,
        "dice_positive": outcome.dice_positive if outcome.positives else None,
        "found": outcome.found,
        "positives": outcome.positives,
        "false_alarms": outcome.false_alarms,
        "negatives": outcome.negatives,
    }


def _alternatives(sums: Sums) -> dict[str, Any]:
    """Return the landscape and operating points of a class."""
    thresholds, dice_ts = landscape(sums)
    return {
        "landscape": {
            "thresholds": thresholds,
            "min_sizes": list(sums.grid.min_sizes),
            "dice": dice_ts.round(6).tolist(),
        },
        "operating_points": [
            {**vars(choice), **_figures(outcome)} for choice, outcome in operating_points(sums)
        ],
    }


def _summary(config: Config, tuned: TunedPostprocessing, strips: int) -> str:
    """Return the chosen settings and their scores as a table."""
    chosen, scores = tuned.settings, tuned.report["scores"]
    gates = [f"  {gate:5.2f}" for gate in chosen.gate] or [""] * len(config.data.names)
    gate_head = "   gate" if chosen.gate else ""
    head = (
        f"{'class':<12}  threshold    top  min_size  min_area{gate_head}"
        "  untuned  cross-fitted  naive"
    )
    lines = [f"tuned on {strips} strips for {config.tune.objective}; Dice:", head]
    lines += [
        f"{name[:12]:<12}  {chosen.threshold[c]:9.3f}  {chosen.top_threshold[c]:5.3f}"
        f"  {chosen.min_size[c]:8d}  {chosen.min_area[c]:8d}{gates[c]}"
        + _columns({kind: values["classes"][c] for kind, values in scores.items()})
        for c, name in enumerate(config.data.names)
    ]
    optimism = scores["naive"]["dice"] - scores["cross_fitted"]["dice"]
    lines += [
        f"{'all':<12}{'':38}{'':{len(gate_head)}}" + _columns(scores),
        "cross-fitted: every strip with settings chosen without it; report this score. "
        f"naive: chosen and scored on the same strips, {optimism:+.4f}",
    ]
    return "\n".join(lines)


def _columns(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the three Dice of a line."""
    untuned, fitted, naive = (scores[k]["dice"] for k in ("untuned", "cross_fitted", "naive"))
    return f"  {untuned:7.4f}  {fitted:12.4f}  {naive:5.4f}"
