"""From values to places on a chart: axes, their limits and their ticks.

Limits are round numbers unless they are given, ticks are at most six. Nothing is drawn here:
`charts` does.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

Value = float | None


@dataclass(frozen=True)
class Axis:
    """What an axis shows; without limits it fits its values."""

    label: str
    low: float | None = None
    high: float | None = None
    is_log: bool = False
    is_whole: bool = False
    """Only whole numbers get a tick."""


@dataclass(frozen=True)
class Scale:
    """Where the values of one axis are drawn."""

    low: float
    high: float
    begin: float
    end: float
    step: float
    """Between ticks; of a logarithmic scale 0."""

    def at(self, value: float) -> float:
        """Place of a value; what lies outside is drawn at the edge."""
        low, high, inside = self.low, self.high, min(max(value, self.low), self.high)
        if not self.step:
            low, high, inside = math.log10(low), math.log10(high), math.log10(inside)
        share = (inside - low) / (high - low)
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels of the ticks."""
        if self.step:
            first, last = math.ceil(self.low / self.step - 1e-9), self.high / self.step + 1e-9
            values = [number * self.step for number in range(first, math.floor(last) + 1)]
        else:
            decades = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            values = [10.0**power for power in decades[:: -(-len(decades) // 6)]]
        return [(self.at(value), short(value, self.step)) for value in values]


def short(value: float, step: float = 0.0) -> str:
    """Write a number as an axis does: as many decimals as its step needs, thousands as k."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit and (abs(value) >= 10 * unit or not step):
            return f"{value / unit:.4g}{letter}"
    if not step:
        return f"{value:g}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def fit(axis: Axis, values: Iterable[Value], begin: float, end: float) -> Scale | None:
    """Make the scale of an axis; None if there is nothing to show."""
    there = [v for v in values if v is not None and math.isfinite(v) and (v > 0 or not axis.is_log)]
    if not there:
        return None
    low = min(there) if axis.low is None else axis.low
    high = max(there) if axis.high is None else axis.high
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
    """A round step that gives at most five intervals."""
    power = 10.0 ** math.floor(math.log10(length / 5))
    step = next(power * m for m in (1, 2, 5, 10, 20) if length / (power * m) <= 5 + 1e-9)
    return max(step, 1.0) if is_whole else step
