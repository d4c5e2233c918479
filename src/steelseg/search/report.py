"""The report of a search: Optuna's charts, a table of all trials, and the best settings.

One HTML file that opens offline. The charts are `optuna.visualization`'s, drawn by Plotly, whose
script (4.8 MB) is inside the page; its content security policy loads nothing from elsewhere.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

import optuna
from markupsafe import Markup
from optuna import visualization
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from steelseg.files.atomic import write_text
from steelseg.reporting.page import render
from steelseg.search.results import Search, Trial, summary, write_value

# With fewer finished trials, importances are a guess.
_ENOUGH_FOR_IMPORTANCE = 4

_HEIGHT = 360
_PAGE_WIDTH = 1080
_SLICE_WIDTH = 240


def write_search_report(
    study: optuna.Study, search: Search, folder: Path, *, best_settings: str
) -> Path:
    """Write report.html of a search.

    Args:
        study: The study, which the charts show.
        search: The same trials as records, for the table.
        folder: The folder of the search.
        best_settings: Content of best.yaml; "" if no trial is finished.

    Returns:
        Path of the report.
    """
    path = folder / "report.html"
    view = {
        "name": folder.resolve().name,
        "place": shlex.quote(str(folder)),
        "search": search,
        "summary": summary(search),
        "plotly": Markup(get_plotlyjs()),
        "charts": [(title, note, _html(figure)) for title, note, figure in _charts(study, search)],
        "value": write_value,
        "links": {trial.number: _link(folder, trial) for trial in search.trials},
        "best_settings": best_settings,
    }
    write_text(path, render(view, "search.html.j2"))
    return path


def _charts(study: optuna.Study, search: Search) -> Iterator[tuple[str, str, Figure]]:
    """Yield title, explanation and figure of each chart that has something to show."""
    score = search.score_name
    if any(trial.epochs for trial in search.trials):
        yield (
            "Score by epoch",
            "One line per trial, of its first fold.",
            visualization.plot_intermediate_values(study)
            .update_xaxes(title="epoch")
            .update_yaxes(title=score),
        )
    if not search.finished:
        return
    yield (
        "Score by trial",
        "Finished trials, and the best score so far.",
        visualization.plot_optimization_history(study, target_name=score),
    )
    if len(search.finished) >= _ENOUGH_FOR_IMPORTANCE:
        yield (
            "Importance of each setting",
            "How much the values of the best trials differ from those of all (PED-ANOVA). With few "
            "trials this is a hint, not a measurement.",
            visualization.plot_param_importances(study, target_name=score),
        )
    slices = visualization.plot_slice(study, target_name=score)
    yield (
        "Score by value of each setting",
        "Hollow markers are pruned or failed trials, darker ones are later trials.",
        slices.update_layout(
            width=max(_PAGE_WIDTH, _SLICE_WIDTH * len(search.space) + 120)
        ).update_xaxes(tickangle=30),
    )
    yield (
        "Settings of each trial",
        "One line per trial; drag along an axis to select a range.",
        visualization.plot_parallel_coordinate(study, target_name=score),
    )
    yield "Timeline", "When each trial ran, and how it ended.", visualization.plot_timeline(study)


def _html(figure: Figure) -> Markup:
    """Turn a figure into HTML that uses the script of the page."""
    figure.update_layout(
        template="plotly_white", title=None, height=_HEIGHT, margin={"t": 40, "r": 20, "b": 50}
    )
    figure.update_xaxes(automargin=True)
    config = {"displaylogo": False, "displayModeBar": False, "responsive": True}
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def _link(folder: Path, trial: Trial) -> str:
    """Link to the report of a trial, else to its folder; "" if it has none."""
    for path in (f"{trial.name}/report.html", f"{trial.name}/"):
        if (folder / path).exists():
            return path
    return ""
