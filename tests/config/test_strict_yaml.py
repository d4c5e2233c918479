import pytest
import yaml

from steelseg.config import strict_yaml


def test_plain_values_are_read_as_pyyaml_reads_them():
    """Only repeated names are treated otherwise."""
    text = "a: {x: 1, y: [0.5, true, null, word]}\nb: {x: 1}\n1: one\n'1': text\n"

    assert strict_yaml.load(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2\n", "a: {x: 1, x: 1}", "a:\n  x: 1\n  x: 2\n", "'a': 1\n\"a\": 2\n"]
)
def test_a_name_that_stands_twice_is_refused_with_its_line(text):
    """PyYAML would keep the last in silence."""
    with pytest.raises(yaml.YAMLError, match=r"(?s)'[ax]' is duplicated.*line [123], column"):
        strict_yaml.load(text)


def test_a_merged_name_may_be_given_again():
    """That is what YAML's merge is for."""
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b}\n"

    assert strict_yaml.load(text)["b"] == {"x": 3, "y": 2}
    assert strict_yaml.load(text)["c"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    "text", ["2024-13-45", "9" * 5000, "[1", "*a", "!!python/object:os.system {}", "a\x00b"]
)
def test_what_cannot_be_read_is_one_kind_of_error(text):
    """Callers catch YAMLError; no object is made on the way."""
    with pytest.raises(yaml.YAMLError):
        strict_yaml.load(text)


DOUBLING = "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a0: &a0 [1, 2]\n" + DOUBLING, "its aliases expand to more than 100000 values"),
        ("a: &a [*a]", "its aliases expand to more than 100000 values"),
        ("[" * 5000, "it is nested too deeply"),
    ],
)
def test_a_text_that_unpacks_to_more_than_memory_holds_is_refused(text, fault):
    """Forty lines of aliases are a trillion values."""
    with pytest.raises(yaml.YAMLError, match=fault):
        strict_yaml.load(text)
