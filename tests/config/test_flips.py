from steelseg.cli import evaluation
from steelseg.config.flips import FLIPS
from steelseg.inference.forward import FLIP_AXES


def test_every_list_of_flips_has_the_same_names():
    """The command line has a copy, because `--help` does without typing."""
    assert tuple(FLIP_AXES) == FLIPS
    assert evaluation._FLIPS == FLIPS
