"""Line charts and heat maps as SVG text, for a page that runs no script.

Every chart is 360 units wide and scales with its column. Colours are classes of the style sheet
(`s0` to `s7`, `ink`, `reference`), so they follow light and dark mode. Text is escaped by Markup. A
value that is None or NaN breaks its line; a chart without any value says so. `figures` decides what
is drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from steelseg.reporting.scales import Axis, Scale, Value, fit

_WIDTH = 360
_HEIGHT = 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 26, 42
_SPAN = 0.01  # Minimum range of the colours of a heat map, so that they do not show noise.
_STRIPES = 12  # Minimum distance of the axis labels of a heat map.

# Viridis in ten steps: brightness grows with the value, for every kind of colour vision.
_STEPS = (
    *("#440154", "#482878", "#3e4989", "#31688e", "#26828e"),
    *("#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"),
)

_CHART = Markup('<svg viewBox="0 0 360 {}" role="img" aria-label="{}">{}</svg>')
_LINE = Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>')
_TEXT = Markup('<text class="{}" x="{}" y="{}">{}</text>')
_PATH = Markup('<polyline class="line {}" points="{}"/>')
_DOT = Markup('<circle class="{}" cx="{}" cy="{}" r="{}">{}</circle>')
_RECT = Markup('<rect x="{}" y="{}" width="{}" height="{}" fill="{}">{}</rect>')
_TITLE = Markup("<title>{}</title>")


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    points: Sequence[tuple[float, Value]]
    style: str
    """Classes of the style sheet."""
    notes: Sequence[str] = ()
    """Tooltip of each point; empty for none."""
    has_dots: bool = False
    """Draw a dot at each point that has a note."""


def line_chart(series: Sequence[Series], *, x: Axis, y: Axis, title: str) -> Markup:
    """Draw lines over each other.

    Args:
        series: The lines, the last on top.
        x: Axis below.
        y: Axis at the left; its label is above it.
        title: Description of the chart for screen readers.
    """
    across = fit(x, (x for s in series for x, _ in s.points), _LEFT, _WIDTH - _RIGHT)
    up = fit(y, (y for s in series for _, y in s.points), _HEIGHT - _BOTTOM, _TOP)
    if across is None or up is None:
        return _empty_chart(title)
    parts = [_TEXT.format("axis", 0, 12, y.label), *_x_axis(across, x.label, _HEIGHT)]
    for position, label in up.ticks():
        parts.append(_LINE.format("grid", _LEFT, position, _WIDTH - _RIGHT, position))
        parts.append(_TEXT.format("tick end", _LEFT - 9, position + 4, label))
    parts += [_draw(one, across, up) for one in series]
    return _CHART.format(_HEIGHT, title, Markup("").join(parts))


def _x_axis(scale: Scale, label: str, height: int) -> list[Markup]:
    """Draw the ticks and the label below a chart."""
    bottom = height - _BOTTOM
    parts = [_LINE.format("base", scale.begin, bottom, scale.end, bottom)]
    for position, text in scale.ticks():
        parts.append(_LINE.format("base", position, bottom, position, bottom + 4))
        parts.append(_TEXT.format("tick mid", position, bottom + 17, text))
    return [*parts, _TEXT.format("axis mid", (scale.begin + scale.end) / 2, height - 6, label)]


def _draw(series: Series, across: Scale, up: Scale) -> Markup:
    """Draw one line; a point without neighbours becomes a dot."""
    pieces: list[list[tuple[float, float]]] = [[]]
    dots = []
    for number, (x, y) in enumerate(series.points):
        if y is None or not math.isfinite(y):
            pieces.append([])
            continue
        point = across.at(x), up.at(y)
        pieces[-1].append(point)
        if series.notes:
            style, radius = (f"dot {series.style}", 3) if series.has_dots else ("hit", 6)
            dots.append(_DOT.format(style, *point, radius, _TITLE.format(series.notes[number])))
    lines = [
        _PATH.format(series.style, " ".join(f"{x:g},{y:g}" for x, y in piece))
        for piece in pieces
        if len(piece) > 1
    ]
    if not series.has_dots:
        alone = [piece[0] for piece in pieces if len(piece) == 1]
        lines += [_DOT.format(f"dot {series.style}", x, y, 3, "") for x, y in alone]
    return Markup("").join(lines + dots)


def heat_map(
    values: Sequence[Sequence[float]],
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    labels: tuple[str, str],
    chosen: tuple[int, int] | None,
    title: str,
) -> Markup:
    """Draw a table of numbers as colours; the lowest fifth shares one, for contrast at the top.

    Args:
        values: One list per column, from left to right, with one value per row, from below.
        columns: Label of each column.
        rows: Label of each row.
        labels: Labels of the axis below and the axis at the left.
        chosen: Column and row to mark; None for none.
        title: Description of the chart for screen readers.
    """
    ordered = sorted(v for column in values for v in column)
    high = ordered[-1]
    low = min(ordered[len(ordered) // 5], high - _SPAN)
    wide = (_WIDTH - _LEFT - _RIGHT) / len(columns)
    tall = (_HEIGHT - _TOP - _BOTTOM) / len(rows)
    bottom = _HEIGHT - _BOTTOM
    parts = [_TEXT.format("axis", 0, 12, labels[1]), *_legend(low, high)]
    for number, column in enumerate(values):
        for row, value in enumerate(column):
            left, top = round(_LEFT + number * wide, 1), round(bottom - (row + 1) * tall, 1)
            note = _TITLE.format(f"{columns[number]}, {rows[row]}: {value:.4f}")
            size = round(wide + 0.3, 1), round(tall + 0.3, 1)
            parts.append(_RECT.format(left, top, *size, _color(value, low, high), note))
    for row in range(0, len(rows), -(-_STRIPES // math.ceil(tall))):
        middle = round(bottom - (row + 0.5) * tall + 4, 1)
        parts.append(_TEXT.format("tick end", _LEFT - 9, middle, rows[row]))
    for number in range(0, len(columns), max(1, -(-len(columns) // 7))):
        middle = round(_LEFT + (number + 0.5) * wide, 1)
        parts.append(_TEXT.format("tick mid", middle, bottom + 17, columns[number]))
    parts.append(_TEXT.format("axis mid", (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, labels[0]))
    if chosen is not None:
        x, y = _LEFT + (chosen[0] + 0.5) * wide, bottom - (chosen[1] + 0.5) * tall
        for style in ("ring dark", "ring light"):
            parts.append(_DOT.format(style, round(x, 1), round(y, 1), 6, ""))
    return _CHART.format(_HEIGHT, title, Markup("").join(parts))


def _color(value: float, low: float, high: float) -> str:
    """Return a colour of the palette."""
    step = int((value - low) / (high - low) * len(_STEPS))
    return _STEPS[min(max(step, 0), len(_STEPS) - 1)]


def _legend(low: float, high: float) -> list[Markup]:
    """Draw the palette with its limits, above the right corner."""
    left, end = _WIDTH - _RIGHT - 130, _WIDTH - _RIGHT
    return [
        *(_RECT.format(left + 8 * k, 3, 8, 10, color, "") for k, color in enumerate(_STEPS)),
        _TEXT.format("tick end", left - 5, 12, f"to {low:.3f}"),
        _TEXT.format("tick end", end, 12, f"{high:.3f}"),
    ]


def _empty_chart(title: str) -> Markup:
    """Draw a chart without values."""
    return _CHART.format(60, title, _TEXT.format("axis mid", _WIDTH / 2, 36, "nothing to show"))
