import pytest
import yaml

from steelseg.config.load import build_config, dump_config
from steelseg.errors import ConfigError


def search(**values):
    return build_config({"search": values})


def test_a_space_is_read_back_as_it_was_written():
    """The report and the run folder show it."""
    space = {
        "train.learning_rate": {"low": "1e-4", "high": 1e-2, "log": True},
        "model.presence_head": [True, False],
        "train.pos_weight": [[], [1.0, 2.0]],
    }

    config = search(space=space)

    assert config.search.space["train.learning_rate"].low == 1e-4
    assert build_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize(
    ("space", "line"),
    [
        ([], "give the names of settings, each with its values."),
        ({"a.b": 3}, "a.b needs a list of values, or a range such as {low: 1, high: 9}."),
        ({"a.b": []}, "a.b needs a list of values, or a range such as {low: 1, high: 9}."),
        ({"a.b": {"low": 1}}, "a.b needs a list of values, or a range such as {low: 1, high: 9}."),
        (
            {"a.b": {"low": 1, "high": 2, "lgo": True}},
            "a.b has lgo, but a range has only low, high and log.",
        ),
        ({"a.b": {"low": "x", "high": 2}}, "a.b: low=x is not a number."),
        ({"a.b": {"low": 2, "high": 2}}, "a.b: low=2 must be below high=2."),
        (
            {"a.b": {"low": 0, "high": 2, "log": True}},
            "a.b: low=0 has no logarithm; log=true needs low above 0.",
        ),
        ({"a.b": {"low": 1, "high": 2, "log": "x"}}, "a.b: log=x is neither true nor false."),
    ],
)
def test_a_wrong_entry_says_what_it_should_be(space, line):
    """Not every form that it is not."""
    with pytest.raises(ConfigError) as refusal:
        search(space=space)

    assert str(refusal.value).splitlines()[1:] == [f"  search.space: {line}"]
