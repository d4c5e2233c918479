"""Rendering of the templates in `templates/`, with their number formats.

Everything that a user named (classes, files, settings) is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from steelseg.reporting.scales import Value
from steelseg.writers.overlays import PALETTE

# Colours s0 to s7 of the style sheet.
_STYLES = 8

_DASH, _MINUS = "\u2013", "\u2212"


@dataclass(frozen=True)
class Gap:
    """A part of the page whose file is missing."""

    reason: str
    """What is missing, and the command that makes it."""

    def __str__(self) -> str:
        return self.reason


def render(view: Mapping[str, Any], template: str = "report.html.j2") -> str:
    """Render a page.

    Args:
        view: Variables of the template.
        template: Name of the page in `templates/`.
    """
    templates = files("steelseg.reporting") / "templates"
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["gap"] = lambda value: isinstance(value, Gap)
    environment.filters.update(
        number=number,
        signed=signed,
        count=count,
        percent=percent,
        when=when,
        duration=duration,
        color=color,
        fold_style=fold_style,
    )
    return environment.get_template(template).render(view).lstrip()


def number(value: Value) -> str:
    """Format a number with four decimals."""
    return _write(value, ".4f")


def signed(value: Value) -> str:
    """Format a number with sign and four decimals."""
    return _write(value, "+.4f").replace("-", _MINUS)


def count(value: Value) -> str:
    """Format a whole number with thousands separators."""
    return _write(value, ",.0f")


def percent(value: Value) -> str:
    """Format a fraction as a percentage."""
    return _write(value, ".1%").replace("%", " %")


def _write(value: Value, form: str) -> str:
    """Format a number; a dash if it is undefined."""
    return _DASH if value is None or not math.isfinite(value) else format(value, form)


def when(time: datetime) -> str:
    """Format a time, such as 3 May 2026, 09:30 UTC."""
    utc = time.astimezone(UTC)
    return f"{utc.day} {utc:%B %Y, %H:%M} UTC"


def duration(seconds: Sequence[Value]) -> str:
    """Format the sum of some seconds, such as 2 h 5 min."""
    total = round(sum(s for s in seconds if s is not None))
    minutes, hours = total // 60 % 60, total // 3600
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {total % 60} s" if minutes else f"{total} s"


def fold_style(index: int) -> str:
    """Return the style class of the n-th trained fold."""
    return f"s{index % _STYLES}"


def color(channel: int) -> str:
    """Return the outline colour of a class."""
    return "#{:02x}{:02x}{:02x}".format(*PALETTE[channel % len(PALETTE)])
