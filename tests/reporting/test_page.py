import math
from datetime import datetime

import pytest

from steelseg.reporting.page import color, count, duration, number, percent, signed, when


@pytest.mark.parametrize("write", [number, signed, count, percent])
@pytest.mark.parametrize("value", [None, math.nan])
def test_a_figure_that_is_not_defined_is_a_dash(write, value):
    """Neither 0 nor nan: nothing was measured."""
    assert write(value) == "\u2013"


def test_figures_are_written_as_people_read_them():
    """Four decimals, a real minus, thousands apart."""
    assert number(0.87654) == "0.8765"
    assert signed(-0.01) == "\u22120.0100"
    assert signed(0.01) == "+0.0100"
    assert count(12568) == "12,568"
    assert percent(0.0561) == "5.6 %"


def test_moments_are_in_utc():
    """A run is read in another place than it was made."""
    moment = datetime.fromisoformat("2026-05-03T23:30:00-02:00")

    assert when(moment) == "4 May 2026, 01:30 UTC"


@pytest.mark.parametrize(
    ("seconds", "words"), [((), "0 s"), ((20, None, 39.6), "1 min 0 s"), ((7260,), "2 h 1 min")]
)
def test_durations_are_in_words(seconds, words):
    """Epochs add up."""
    assert duration(seconds) == words


def test_a_class_has_the_colour_of_its_outline():
    """The palette repeats after twelve classes."""
    assert color(0) == color(12) == "#ffc33b"
