"""The page as text: templates filled in, numbers written as people read them.

Templates lie in `templates/`, the style sheet beside them. What the user named (classes, files,
settings) is escaped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from steelseg.reporting import figures
from steelseg.reporting.scales import Axis, Value
from steelseg.writers.overlays import PALETTE

_DASH, _MINUS = "\u2013", "\u2212"


@dataclass(frozen=True)
class Gap:
    """Stands in place of a part whose file is missing."""

    reason: str
    """What is missing and which command makes it."""

    def __str__(self) -> str:
        return self.reason


def render(view: Mapping[str, Any], template: str = "report.html.j2") -> str:
    """Fill in a page.

    Args:
        view: What the template names.
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
    environment.globals.update(figures=figures, axis=Axis)
    environment.tests["gap"] = lambda value: isinstance(value, Gap)
    environment.filters.update(
        number=number,
        signed=signed,
        count=count,
        percent=percent,
        when=when,
        duration=duration,
        color=color,
    )
    return environment.get_template(template).render(view).lstrip()


def number(value: Value) -> str:
    """Four decimals."""
    return _write(value, ".4f")


def signed(value: Value) -> str:
    """Four decimals with their sign."""
    return _write(value, "+.4f").replace("-", _MINUS)


def count(value: Value) -> str:
    """A whole number with its thousands apart."""
    return _write(value, ",.0f")


def percent(value: Value) -> str:
    """A share in per cent."""
    return _write(value, ".1%").replace("%", " %")


def _write(value: Value, form: str) -> str:
    """A figure, or a dash where it is not defined."""
    return _DASH if value is None or not math.isfinite(value) else format(value, form)


def when(time: datetime) -> str:
    """A moment, such as 3 May 2026, 09:30 UTC."""
    utc = time.astimezone(UTC)
    return f"{utc.day} {utc:%B %Y, %H:%M} UTC"


def duration(seconds: Sequence[Value]) -> str:
    """The sum of some seconds in words."""
    total = round(sum(s for s in seconds if s is not None))
    minutes, hours = total // 60 % 60, total // 3600
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {total % 60} s" if minutes else f"{total} s"


def color(channel: int) -> str:
    """The colour in which a class is outlined."""
    return "#{:02x}{:02x}{:02x}".format(*PALETTE[channel % len(PALETTE)])
