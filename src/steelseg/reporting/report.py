"""The report stage: one self-contained HTML page about a run.

Reads  RUN, data.root
Writes RUN/report.html

The page opens offline and runs no script; pictures, charts and styles are embedded. If the file of
a part is missing, one line names the command that makes it. The same run gives the same page.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from steelseg.config.config import Config
from steelseg.data.folder import DataSet
from steelseg.errors import CheckpointError
from steelseg.files.atomic import write_text
from steelseg.reporting import figures
from steelseg.reporting.dataset import read_statistics, require_data_set
from steelseg.reporting.facts import (
    read_environment,
    read_evaluation,
    read_histories,
    read_members,
    read_tuning,
)
from steelseg.reporting.figures import Chart
from steelseg.reporting.gallery import Gallery, choose, draw_cases
from steelseg.reporting.page import Gap, render
from steelseg.run.held_out import held_out_masks, open_held_out
from steelseg.run.kinds import refuse_classifier
from steelseg.run.run_folder import RunFolder
from steelseg.run.scores_csv import read_scores
from steelseg.run.tuned_postprocess import read_tuned

T = TypeVar("T")


def report_run(config: Config, run: RunFolder) -> Path:
    """Write report.html of a run.

    Args:
        config: The settings.
        run: The run; only its config.yaml is required.

    Returns:
        Path of the page.

    Raises:
        ConfigError: if the run is a classifier.
        DataError: if a file of the run or the data set is damaged.
    """
    refuse_classifier(config, run.path, what="to show")
    data, command = config.data, f"steelseg report {run.path}"
    histories = _part(lambda: read_histories(run, data.num_folds))
    evaluation = _part(lambda: read_evaluation(run, data.names))
    tuning = _part(lambda: read_tuning(run, data.names))
    view = {
        "name": run.path.resolve().name,
        "path": str(run.path),
        "config": config,
        "names": data.names,
        "settings": run.config_yaml.read_text(encoding="utf-8"),
        "environment": read_environment(run),
        "histories": histories,
        "members": read_members(run),
        "evaluation": evaluation,
        "tuning": tuning,
        "charts": {
            "training": _draw(figures.training_charts, histories),
            "precision_recall": _draw(figures.precision_recall_charts, evaluation),
            "calibration": _draw(figures.calibration_charts, evaluation),
            "landscape": _draw(figures.landscape_charts, tuning),
            "frontier": _draw(figures.frontier_charts, tuning),
        },
        "gallery": _part(lambda: _gallery(config, run, command)),
        "statistics": _part(lambda: read_statistics(data, command)),
    }
    write_text(run.report_html, render(view))
    return run.report_html


def _part(read: Callable[[], T]) -> T | Gap:
    """Read a part of the page; if its file is missing, return a Gap that says so."""
    try:
        return read()
    except CheckpointError as error:
        return Gap(str(error))


def _draw(draw: Callable[[T], list[Chart]], part: T | Gap) -> list[Chart]:
    """Draw the charts of a part; none if it is missing."""
    return [] if isinstance(part, Gap) else draw(part)


def _gallery(config: Config, run: RunFolder, command: str) -> Gallery:
    """Draw the worst strips with the masks that were scored."""
    data, scores = config.data, read_scores(run.scores_csv)
    require_data_set(data.root, command)
    held_out = open_held_out(
        data, run, folds=sorted(set(scores.fold_of.values())), gate=config.inference.gate
    )
    groups = choose(scores)
    pictures = draw_cases(
        groups,
        held_out,
        held_out_masks(config, run, held_out, read_tuned(run.postprocess_json)),
        scores,
        folder=DataSet(data.root).train_images,
        channels=data.channels,
        class_names=data.names,
        command=f"steelseg evaluate {run.path}",
    )
    return Gallery(groups, pictures)
