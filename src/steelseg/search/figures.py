"""Which charts the page of a search shows, made from its trials.

Finished trials are dots and lines in the accent colour, those given up are hollow and faint, the
best stands out. A trial's number, score and settings show when the pointer is on it.
"""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from steelseg.reporting.charts import Series, line_chart
from steelseg.reporting.scales import Axis, fit
from steelseg.search.charts import Column, Dot, Thread, bar_chart, dot_chart, ends, parallel_chart
from steelseg.search.results import Search, Trial, write_value
from steelseg.search.space import Choice, Number, Setting

_TRIAL = Axis("trial", is_whole=True)

# Of the finished trials, how many stand out in the parallel chart.
_STANDING_OUT = 4


def importance_chart(search: Search) -> Markup | None:
    """How much each setting matters; None of too few trials."""
    if search.importance is None:
        return None
    return bar_chart(list(search.importance.items()), title="Importance of each setting")


def history_chart(search: Search) -> Markup:
    """Score by trial, and the best so far."""
    finished = [trial for trial in search.trials if trial.state == "finished"]
    stairs: list[tuple[float, float]] = []
    for trial in finished:
        score = trial.score or 0.0
        best = max(score, stairs[-1][1]) if stairs else score
        stairs += [(trial.number, stairs[-1][1])] if stairs else []
        stairs.append((trial.number, best))
    if stairs:
        stairs.append((search.trials[-1].number, stairs[-1][1]))
    return line_chart(
        [
            Series(stairs, "ink faint"),
            _dots(_given_up(search), "reference hollow", _number),
            _dots(finished, "ink", _number),
            *_ring(search, _number),
        ],
        x=_TRIAL,
        y=Axis(search.score_name),
        title="Score by trial",
    )


def curves_chart(search: Search) -> Markup:
    """Score by epoch of each trial; the best on top."""
    shown = [t for t in search.trials if t.epochs and t is not search.best]
    lines = [_curve(t, "reference faint" if t.state != "finished" else "ink thin") for t in shown]
    best = [_curve(search.best, "s1")] if search.best and search.best.epochs else []
    return line_chart(
        [*lines, *best],
        x=Axis("epoch", is_whole=True),
        y=Axis(search.score_name),
        title="Score by epoch",
    )


def _curve(trial: Trial, style: str) -> Series:
    """The epochs of one trial."""
    notes = [f"trial {trial.number}, epoch {epoch}: {score:.4f}" for epoch, score in trial.epochs]
    return Series([(float(epoch), score) for epoch, score in trial.epochs], style, notes)


def setting_chart(search: Search, setting: Setting) -> Markup:
    """Score by the value of one setting: against numbers, or a row for each word."""
    title = f"Score by {setting.name}"
    if isinstance(setting, Choice):
        dots = [
            Dot(str(trial.drawn[setting.name]), trial.score, style, _note(trial))
            for trial, style in _styled(search)
            if trial.score is not None
        ]
        return dot_chart(list(setting.values), dots, x=Axis(search.score_name), title=title)

    def place(trial: Trial) -> float:
        return float(trial.drawn[setting.name])

    return line_chart(
        [
            _dots(_given_up(search), "reference hollow", place),
            _dots(search.finished, "ink", place),
            *_ring(search, place),
        ],
        x=_axis(setting),
        y=Axis(search.score_name),
        title=title,
    )


def _axis(setting: Number) -> Axis:
    """The axis of a setting; a logarithmic one shows whole decades."""
    low, high = (None, None) if setting.is_log else (setting.low, setting.high)
    label = setting.name + (", logarithmic" if setting.is_log else "")
    return Axis(label, low, high, is_log=setting.is_log, is_whole=setting.is_whole)


def _styled(search: Search) -> list[tuple[Trial, str]]:
    """Trials with a score and how their dots look, the best last."""
    hollow = [(trial, "reference hollow") for trial in _given_up(search)]
    filled = [(trial, "ink") for trial in search.finished[::-1]]
    return [*hollow, *filled, *([(search.best, "ring")] if search.best else [])]


def _given_up(search: Search) -> list[Trial]:
    """Trials that were given up after they had a score."""
    return [t for t in search.trials if t.state == "given up" and t.score is not None]


def _number(trial: Trial) -> float:
    """Place of a trial among the trials."""
    return float(trial.number)


def _dots(trials: Sequence[Trial], style: str, place: Callable[[Trial], float]) -> Series:
    """Scores as dots."""
    points = [(place(trial), trial.score) for trial in trials]
    return Series(points, f"{style} bare", [_note(trial) for trial in trials], has_dots=True)


def _ring(search: Search, place: Callable[[Trial], float]) -> list[Series]:
    """A ring around the best trial."""
    best = search.best
    if best is None:
        return []
    return [Series([(place(best), best.score)], "ring", ["best: " + _note(best)], has_dots=True)]


def _note(trial: Trial) -> str:
    """A trial in words."""
    drawn = ", ".join(f"{name} {write_value(value)}" for name, value in trial.drawn.items())
    score = "-" if trial.score is None else f"{trial.score:.4f}"
    return f"trial {trial.number}, {trial.state}: {score}; {drawn}"


def threads_chart(search: Search) -> Markup | None:
    """Finished trials across all settings, to their score; None of fewer than two."""
    finished = search.finished
    if len(finished) < 2:
        return None
    score = fit(Axis(search.score_name), (trial.score for trial in finished), *ends())
    columns = [*map(_column, search.space), Column(search.score_name, score)]
    threads = [
        Thread(
            [*(trial.drawn[name] for name in search.settings), trial.score or 0.0],
            "s1" if not place else "ink" if place < _STANDING_OUT else "reference thin",
            _note(trial),
        )
        for place, trial in enumerate(finished)
    ]
    return parallel_chart(columns, threads[::-1], title="Finished trials across all settings")


def _column(setting: Setting) -> Column:
    """The axis of a setting in the parallel chart."""
    if isinstance(setting, Choice):
        return Column(setting.name, None, tuple(setting.values))
    return Column(setting.name, fit(_axis(setting), (setting.low, setting.high), *ends()))
