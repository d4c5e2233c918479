"""The page of a search: what matters, which settings were best, what was given up and why.

It opens offline and runs no script, as the page of a run does, and shares its style. Trials are
links to their folders beside it.
"""

import shlex
from pathlib import Path

from steelseg.files.atomic import write_text
from steelseg.reporting.page import render
from steelseg.search import figures as search_figures
from steelseg.search.results import Search, Trial, summary, write_value


def write_search_report(search: Search, folder: Path, *, best_settings: str) -> Path:
    """Write report.html of a search.

    Args:
        search: What was found.
        folder: Its folder.
        best_settings: What best.yaml holds; "" of a search without a finished trial.

    Returns:
        The page.
    """
    path = folder / "report.html"
    view = {
        "name": folder.resolve().name,
        "place": shlex.quote(str(folder)),
        "search": search,
        "summary": summary(search),
        "charts": search_figures,
        "value": write_value,
        "links": {trial.number: _link(folder, trial) for trial in search.trials},
        "best_settings": best_settings,
    }
    write_text(path, render(view, "search.html.j2"))
    return path


def _link(folder: Path, trial: Trial) -> str:
    """Where a trial is to be looked at, from the page; "" of one without a folder."""
    for place in (f"{trial.name}/report.html", f"{trial.name}/"):
        if (folder / place).exists():
            return place
    return ""
