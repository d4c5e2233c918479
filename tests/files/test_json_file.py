import pytest
from pydantic import BaseModel

from steelseg.errors import DataError
from steelseg.files.json_file import read_json

REMEDY = "Recreate it with: steelseg tune RUN."


class Point(BaseModel):
    """Something to read."""

    x: int


def test_a_file_is_read_into_what_parse_makes_of_it(tmp_path):
    """A pydantic model is as good as a function."""
    path = tmp_path / "point.json"
    path.write_text('{"x": 3}')

    assert read_json(path, Point.model_validate, remedy=REMEDY) == Point(x=3)
    assert read_json(path, dict, remedy=REMEDY) == {"x": 3}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, content):
    """The line names the file, and says how to make it again."""
    path = tmp_path / "point.json"
    path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        read_json(path, Point.model_validate, remedy=REMEDY)

    assert str(caught.value) == f"{path} is damaged. {REMEDY}"


@pytest.mark.parametrize(
    ("content", "place"), [("[]", "content"), ("{}", "x"), ('{"x": "three"}', "x")]
)
def test_a_model_names_the_place_of_the_damage(tmp_path, content, place):
    """A file that someone has edited can be repaired by it."""
    path = tmp_path / "point.json"
    path.write_text(content)

    with pytest.raises(DataError) as caught:
        read_json(path, Point.model_validate, remedy=REMEDY)

    assert str(caught.value).startswith(f"{path} is damaged: {place}: ")
    assert str(caught.value).endswith(f". {REMEDY}")


@pytest.mark.parametrize(
    "parse",
    [
        lambda content: content["y"],
        lambda content: content[0],
        lambda content: content.y,
        lambda content: [][content["x"]],
    ],
)
def test_content_that_parse_does_not_expect_is_damage(tmp_path, parse):
    """Whatever error it ends in, it is no traceback."""
    path = tmp_path / "point.json"
    path.write_text('{"x": 3}')

    with pytest.raises(DataError, match="is damaged"):
        read_json(path, parse, remedy=REMEDY)


def test_a_refusal_of_parse_reaches_the_caller(tmp_path):
    """Another version is not damage, and its message says so."""
    path = tmp_path / "point.json"
    path.write_text('{"x": 3}')

    def refuse(content):
        raise DataError("This is of another version.")

    with pytest.raises(DataError, match=r"^This is of another version\.$"):
        read_json(path, refuse, remedy=REMEDY)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path):
    """The reason is the system's."""
    with pytest.raises(DataError, match=r"none\.json cannot be read: No such file or directory\."):
        read_json(tmp_path / "none.json", dict, remedy=REMEDY)
    with pytest.raises(DataError, match=r"cannot be read: Is a directory\."):
        read_json(tmp_path, dict, remedy=REMEDY)
