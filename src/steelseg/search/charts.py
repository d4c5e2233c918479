"""Charts that only a search needs: bars and dots below their names, trials across parallel axes.

They follow `charts`: SVG text that grows with its column, colours by classes of the style sheet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from steelseg.reporting.charts import WIDTH
from steelseg.reporting.scales import Axis, Scale, fit

_ROW, _BAR = 38, 10
_FOOT, _MARGIN = 40, 14
_COLUMN, _HEIGHT, _TOP, _BOTTOM, _SIDE = 170, 300, 46, 18, 70
_LETTERS = 20

_CHART = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
_TEXT = Markup('<text class="{}" x="{}" y="{}">{}</text>')
_BAR_RECT = Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"/>')
_RULE = Markup('<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>')
_DOT = Markup('<circle class="dot {}" cx="{}" cy="{}" r="4"/>')
_GROUP = Markup("<g><title>{}</title>{}</g>")
_AXIS = Markup('<line class="base" x1="{0}" y1="{1}" x2="{0}" y2="{2}"/>')
_LINE = Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>')


@dataclass(frozen=True)
class Column:
    """One axis of a parallel chart."""

    label: str
    scale: Scale | None
    """Of numbers, from below to above; None of words."""
    words: Sequence[str] = ()
    """What the axis is divided to, from below."""

    def at(self, value: str | float) -> float:
        """Height of a value."""
        if self.scale is not None:
            return self.scale.at(float(value))
        place = list(self.words).index(str(value))
        share = (place + 0.5) / len(self.words)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP), 1)


@dataclass(frozen=True)
class Thread:
    """One trial: a value on each axis."""

    values: Sequence[str | float]
    style: str
    note: str


def ends() -> tuple[float, float]:
    """Where an axis of a parallel chart begins and ends, for its scale."""
    return float(_HEIGHT - _BOTTOM), float(_TOP)


def bar_chart(bars: Sequence[tuple[str, float]], *, title: str) -> Markup:
    """Draw shares as bars, each below its name.

    Args:
        bars: Name and share, 0 to 1, from above.
        title: What the chart shows, for those who cannot see it.
    """
    parts = []
    for number, (name, share) in enumerate(bars):
        top = _ROW * number
        text = f"{share:.0%}".replace("%", " %")
        body = [
            _TEXT.format("name", 0, top + 15, name),
            _TEXT.format("tick end", WIDTH, top + 15, text),
            _BAR_RECT.format("ground", 0, top + 21, WIDTH, _BAR),
            _BAR_RECT.format("ink", 0, top + 21, round(WIDTH * share, 1), _BAR),
        ]
        parts.append(_GROUP.format(f"{name}: {text}", Markup("").join(body)))
    return _CHART.format("", WIDTH, _ROW * len(bars), title, Markup("").join(parts))


@dataclass(frozen=True)
class Dot:
    """One trial of a dot chart."""

    row: str
    value: float
    style: str
    note: str


def dot_chart(rows: Sequence[str], dots: Sequence[Dot], *, x: Axis, title: str) -> Markup:
    """Draw values as dots on a row for each word, its name above it.

    Args:
        rows: The words, from above.
        dots: The values, the last on top.
        x: Axis below.
        title: What the chart shows, for those who cannot see it.
    """
    height = _ROW * len(rows) + _FOOT
    bottom = height - _FOOT
    scale = fit(x, (dot.value for dot in dots), _MARGIN, WIDTH - _MARGIN)
    middle = {word: _ROW * number + 27 for number, word in enumerate(rows)}
    parts = [_TEXT.format("name", 0, y - 12, word) for word, y in middle.items()]
    parts += [_RULE.format(0, y, WIDTH, y) for y in middle.values()]
    if scale is not None:
        for place, text in scale.ticks():
            parts.append(_RULE.format(place, bottom, place, bottom + 4))
            parts.append(_TEXT.format("tick mid", place, bottom + 17, text))
        for dot in dots:
            body = _DOT.format(dot.style, scale.at(dot.value), middle[dot.row])
            parts.append(_GROUP.format(dot.note, body))
    parts.append(_TEXT.format("axis mid", WIDTH / 2, height - 4, x.label))
    return _CHART.format("", WIDTH, height, title, Markup("").join(parts))


def parallel_chart(columns: Sequence[Column], threads: Sequence[Thread], *, title: str) -> Markup:
    """Draw each trial as a line across one axis a setting, the last on top."""
    width = 2 * _SIDE + _COLUMN * (len(columns) - 1)
    places = [_SIDE + _COLUMN * number for number in range(len(columns))]
    lines = [
        _LINE.format(
            thread.style,
            " ".join(
                f"{x},{column.at(value):g}"
                for x, column, value in zip(places, columns, thread.values, strict=True)
            ),
            thread.note,
        )
        for thread in threads
    ]
    axes = [part for x, column in zip(places, columns, strict=True) for part in _axis(x, column)]
    return _CHART.format("parallel", width, _HEIGHT, title, Markup("").join(lines + axes))


def _axis(x: int, column: Column) -> list[Markup]:
    """An axis with its name above it and its values beside it."""
    bottom, top = ends()
    section, _, name = column.label.rpartition(".")
    parts = [
        _TEXT.format("tick mid", x, 13, section),
        _TEXT.format("name mid", x, 28, _cut(name)),
        _AXIS.format(x, top, bottom),
    ]
    if column.scale is None:
        ticks: list[tuple[float, str]] = [(column.at(word), word) for word in column.words]
    else:
        ticks = column.scale.ticks()
    return parts + [_TEXT.format("tick halo", x + 6, y + 4, _cut(text)) for y, text in ticks]


def _cut(text: str) -> str:
    """As much of a word as fits beside an axis."""
    return text if len(text) <= _LETTERS else text[: _LETTERS - 3] + "..."
