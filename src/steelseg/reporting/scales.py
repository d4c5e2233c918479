"""Axes of charts: limits, ticks, and the mapping from values to coordinates.

Limits are round numbers unless they are given; an axis has at most six ticks. `charts` draws them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

Value = float | None


@dataclass(frozen=True)
class Axis:
    """An axis; limits that are None are fitted to the values."""

    label: str
    low: float | None = None
    high: float | None = None
    is_log: bool = False
    is_whole: bool = False
    """Put ticks at whole numbers only."""


@dataclass(frozen=True)
class Scale:
    """The mapping from the values of an axis to coordinates."""

    low: float
    high: float
    begin: float
    end: float
    step: float
    """Distance between ticks; 0 for a logarithmic scale."""

    def at(self, value: float) -> float:
        """Return the coordinate of a value; values outside the limits go to the edge."""
        low, high, inside = self.low, self.high, min(max(value, self.low), self.high)
        if not self.step:
            low, high, inside = math.log10(low), math.log10(high), math.log10(inside)
        share = (inside - low) / (high - low)
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return coordinate and label of each tick."""
        if self.step:
            first, last = math.ceil(self.low / self.step - 1e-9), self.high / self.step + 1e-9
            values = [number * self.step for number in range(first, math.floor(last) + 1)]
        else:
            decades = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            values = [10.0**power for power in decades[:: -(-len(decades) // 6)]]
        return [(self.at(value), short(value, self.step)) for value in values]


def short(value: float, step: float = 0.0) -> str:
    """Format a tick label: as many decimals as the step needs, thousands as k."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit and (abs(value) >= 10 * unit or not step):
            return f"{value / unit:.4g}{letter}"
    if not step:
        return f"{value:g}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def fit(axis: Axis, values: Iterable[Value], begin: float, end: float) -> Scale | None:
    """Make the scale of an axis; None if no value is finite."""
    finite = [
        v for v in values if v is not None and math.isfinite(v) and (v > 0 or not axis.is_log)
    ]
    if not finite:
        return None
    low = min(finite) if axis.low is None else axis.low
    high = max(finite) if axis.high is None else axis.high
    if axis.is_log:
        low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
        return Scale(low, high if high > low else 10 * low, begin, end, 0)
    if high - low < 1e-9 * max(abs(high), 1):
        room = 1.0 if axis.is_whole else max(abs(high), 0.1) / 10
        low, high = (low if axis.low is not None else low - room), high + room
    step = _step(high - low, is_whole=axis.is_whole)
    low = low if axis.low is not None else math.floor(low / step + 1e-9) * step
    high = high if axis.high is not None else math.ceil(high / step - 1e-9) * step
    return Scale(low, high, begin, end, step)


def _step(length: float, *, is_whole: bool) -> float:
    """Return a round step that gives at most five intervals."""
    power = 10.0 ** math.floor(math.log10(length / 5))
    step = next(power * m for m in (1, 2, 5, 10, 20) if length / (power * m) <= 5 + 1e-9)
    return max(step, 1.0) if is_whole else step
