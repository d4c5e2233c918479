from xml.etree import ElementTree

import pytest

from steelseg.reporting.scales import Axis, fit
from steelseg.search.charts import Column, Dot, Thread, bar_chart, dot_chart, ends, parallel_chart
from steelseg.search.report import write_search_report
from steelseg.search.results import Search, Trial
from steelseg.search.space import Choice, Number

NASTY = '<script>alert("1")</script> & "quotes"'

SPACE = (
    Number("train.learning_rate", 1e-4, 1e-2, is_log=True, is_whole=False),
    Choice("model.encoder", {"resnet18": "resnet18", NASTY: NASTY}),
)


def trial(number, state="finished", score=0.5, word="resnet18", **changes):
    values = {
        "drawn": {"train.learning_rate": 1e-3, "model.encoder": word},
        "epochs": () if score is None else ((1, score / 2), (2, score)),
        "images_per_second": 12.5,
        "seconds": 60.0,
        "reason": "",
    }
    return Trial(number=number, state=state, score=score, **{**values, **changes})


def page(folder, *trials, importance=None):
    search = Search(SPACE, trials, 40, importance, (0,), "Dice", 10.0)
    return write_search_report(search, folder, best_settings="a: 1\n").read_text()


def parts(svg, kind):
    """Attributes of all elements of a kind; fails unless the picture is well-formed."""
    return [element.attrib for element in ElementTree.fromstring(str(svg)).iter(kind)]


def test_a_search_that_has_just_begun_has_a_page(tmp_path):
    """Each part says in a line why it is not there yet."""
    text = page(tmp_path)

    assert "No trial is finished yet" in text
    assert "once four trials are finished" in text


def test_all_that_a_user_named_is_escaped(tmp_path):
    """Encoders, reasons and settings are text."""
    trials = [
        trial(0),
        trial(1, score=0.7, word=NASTY),
        trial(2, "given up", None, reason=NASTY, images_per_second=None),
        trial(3, "failed", 0.1, reason=NASTY),
        trial(4, "under way", 0.2),
    ]

    text = page(tmp_path, *trials, importance={"model.encoder": 0.75, "train.learning_rate": 0.25})

    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 4
    assert "4 of 40" not in text
    assert "3 of 40 trials: 2 finished, 1 given up, 1 failed, 1 under way" in text


def test_trials_are_links_to_what_is_there(tmp_path):
    """A report of the trial if someone made one, else its folder, else nothing."""
    (tmp_path / "trial_0000").mkdir()
    (tmp_path / "trial_0001").mkdir()
    (tmp_path / "trial_0001" / "report.html").write_text("")

    text = page(tmp_path, trial(0), trial(1), trial(2))

    assert '<a href="trial_0000/">trial 0</a>' in text
    assert '<a href="trial_0001/report.html">trial 1</a>' in text
    assert "trial_0002" not in text


def test_a_bar_is_as_long_as_its_share():
    """Of 360 units, below its name."""
    _, bar = parts(bar_chart([("train.epochs", 0.25)], title="Importance"), "rect")

    assert (bar["class"], bar["width"]) == ("bar ink", "90.0")


def test_a_dot_lies_on_the_row_of_its_word():
    """The first word is above."""
    dots = [Dot("unet", 0.0, "ink", "a"), Dot("fpn", 1.0, "ink", "b")]

    svg = dot_chart(["unet", "fpn"], dots, x=Axis("Dice", low=0, high=1), title="Dice")

    first, second = parts(svg, "circle")
    assert (first["cx"], second["cx"]) == ("14.0", "346.0")
    assert float(first["cy"]) < float(second["cy"])


@pytest.mark.parametrize(("word", "height"), [("below", 223.0), ("above", 105.0)])
def test_a_thread_goes_through_its_values(word, height):
    """Words divide their axis evenly; numbers have a scale."""
    score = fit(Axis("Dice", low=0, high=1), [0.0, 1.0], *ends())
    columns = [Column("model.arch", None, ("below", "above")), Column("Dice", score)]

    svg = parallel_chart(columns, [Thread([word, 1.0], "ink", "")], title="All")

    (line,) = parts(svg, "polyline")
    assert line["points"] == f"70,{height:g} 240,{ends()[1]:g}"
