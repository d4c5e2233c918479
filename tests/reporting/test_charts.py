import math
import re
from xml.etree import ElementTree

import pytest

from steelseg.reporting.charts import Series, heat_map, line_chart
from steelseg.reporting.scales import Axis

X, Y = Axis("epoch", low=0, high=10), Axis("Dice", low=0, high=1)
NASTY = '<script>alert("1")</script> & "quotes"'


def parts(svg, kind):
    """Attributes of all elements of a kind; fails unless the picture is well-formed."""
    return [element.attrib for element in ElementTree.fromstring(str(svg)).iter(kind)]


def draw(points, **options):
    """A chart of one line."""
    return line_chart([Series(points, "s0", **options)], x=X, y=Y, title="Dice")


def test_a_line_runs_from_corner_to_corner():
    """The plot lies from (50, 190), below left, to (346, 26)."""
    (line,) = parts(draw([(0, 0), (5, 0.5), (10, 1)]), "polyline")

    assert line == {"class": "line s0", "points": "50,190 198,108 346,26"}


@pytest.mark.parametrize("hole", [None, math.nan, math.inf])
def test_what_is_not_defined_breaks_the_line(hole):
    """A straight line over a gap would claim a value; a point alone is a dot."""
    svg = draw([(0, 0), (2, 0.2), (4, hole), (6, 0.6)])

    assert [line["points"] for line in parts(svg, "polyline")] == ["50,190 109.2,157.2"]
    assert [(dot["cx"], dot["cy"]) for dot in parts(svg, "circle")] == [("227.6", "91.6")]


def test_points_tell_their_values():
    """A tooltip for each, also where no dot is seen."""
    svg = draw([(0, 0), (10, 1)], notes=["epoch 0", "epoch 10"])

    assert re.findall("<title>(.*?)</title>", svg) == ["epoch 0", "epoch 10"]
    assert [dot["class"] for dot in parts(svg, "circle")] == ["hit", "hit"]


@pytest.mark.parametrize("points", [[], [(0, None)], [(1, math.nan)]])
def test_a_chart_without_values_says_so(points):
    """Rather than axes around nothing."""
    assert "nothing to show" in draw(points)


def test_axes_have_their_labels():
    """A chart without a unit is a decoration."""
    texts = re.findall("<text[^>]*>(.*?)</text>", draw([(0, 0), (10, 1)]))

    assert texts[0] == "Dice"
    assert texts[-1] == "1.0"
    assert "epoch" in texts


def test_names_are_escaped():
    """Class names come from a file."""
    charts = [
        line_chart([Series([(0, 1)], "s0", [NASTY])], x=Axis(NASTY), y=Y, title=NASTY),
        heat_map(
            [[1.0]], columns=[NASTY], rows=["1"], labels=("a", NASTY), chosen=None, title=NASTY
        ),
    ]

    for svg in charts:
        assert "<script" not in svg
        ElementTree.fromstring(str(svg))


def heat(values, chosen=None):
    """A heat map with made-up labels."""
    return heat_map(
        values,
        columns=[f"t{k}" for k in range(len(values))],
        rows=[f"s{k}" for k in range(len(values[0]))],
        labels=("threshold", "min_size"),
        chosen=chosen,
        title="Dice",
    )


def cells(svg):
    """Colour of each cell, without the ten steps of the legend."""
    return [rect["fill"] for rect in parts(svg, "rect")][10:]


def test_a_heat_map_has_a_cell_a_value_the_best_bright():
    """Columns go to the right, rows upwards."""
    svg = heat([[0.1, 0.2], [0.3, 0.9], [0.1, 0.5]])

    assert len(cells(svg)) == 6
    assert cells(svg)[3] == "#fde725"
    assert cells(svg)[0] == cells(svg)[4] == "#440154"
    assert "<title>t1, s1: 0.9000</title>" in svg
    assert [(r["x"], r["y"]) for r in parts(svg, "rect")][10:12] == [
        ("50.0", "108.0"),
        ("50.0", "26.0"),
    ]


def test_the_chosen_cell_is_ringed():
    """In its middle: the plot is 296 wide and 164 high."""
    rings = parts(heat([[0.1, 0.2], [0.3, 0.9]], chosen=(1, 0)), "circle")

    assert {(ring["cx"], ring["cy"]) for ring in rings} == {("272.0", "149.0")}


def test_differences_that_mean_nothing_get_one_colour():
    """0.0005 of Dice is noise; stretched over the palette it would look like a mountain."""
    assert set(cells(heat([[0.9, 0.9001], [0.9005, 0.9]]))) <= {"#fde725", "#b5de2b"}


def test_a_single_combination_is_a_heat_map_too():
    """One threshold and one size may be all that is searched."""
    assert cells(heat([[0.5]], chosen=(0, 0))) == ["#fde725"]
