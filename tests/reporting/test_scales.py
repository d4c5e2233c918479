import math

import pytest

from steelseg.reporting.scales import Axis, fit, short


def test_limits_and_ticks_are_round():
    """0.13 to 0.87 is read best on an axis from 0 to 1."""
    scale = fit(Axis("Dice"), [0.13, 0.87], 0, 100)

    assert scale.ticks() == [
        (0, "0.0"),
        (20, "0.2"),
        (40, "0.4"),
        (60, "0.6"),
        (80, "0.8"),
        (100, "1.0"),
    ]
    assert scale.at(0.5) == 50


def test_an_axis_may_run_upwards():
    """SVG counts from above."""
    scale = fit(Axis("Dice", low=0, high=1), [0.5], 200, 100)

    assert (scale.at(0), scale.at(1)) == (200, 100)


def test_what_is_outside_the_limits_is_drawn_at_the_edge():
    """Nothing is painted over its neighbours."""
    assert fit(Axis("share", low=0, high=1), [3.0], 0, 100).at(3) == 100


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e6])
def test_a_single_value_has_room_around_it(value):
    """One epoch is no reason to divide by zero."""
    scale = fit(Axis("loss"), [value], 0, 100)

    assert 0 < scale.at(value) < 100
    assert scale.ticks()


def test_epochs_get_whole_ticks():
    """There is no epoch 1.5."""
    labels = [label for _, label in fit(Axis("epoch", is_whole=True), [1, 3], 0, 100).ticks()]

    assert labels == ["1", "2", "3"]


def test_a_logarithmic_axis_ticks_at_powers_of_ten():
    """Each decade is as long as the next."""
    scale = fit(Axis("px", is_log=True), [20, 5000], 0, 90)

    assert scale.ticks() == [(0, "10"), (30, "100"), (60, "1k"), (90, "10k")]


def test_without_a_number_there_is_no_scale():
    """A class that is never there has no figures."""
    assert fit(Axis("Dice"), [None, math.nan, math.inf], 0, 100) is None
    assert fit(Axis("px", is_log=True), [0, -1], 0, 100) is None


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (0.25, 0.05, "0.25"),
        (5, 1, "5"),
        (1500, 500, "1500"),
        (20000, 5000, "20k"),
        (1e6, 0, "1M"),
        (1e-5, 0, "1e-05"),
        (0, 0.2, "0.0"),
    ],
)
def test_numbers_are_as_long_as_their_step_needs(value, step, text):
    """Labels must not run into each other."""
    assert short(value, step) == text
