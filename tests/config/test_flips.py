from steelseg.config.flips import FLIPS
from steelseg.inference.forward import FLIP_AXES


def test_every_flip_setting_has_its_axes():
    assert tuple(FLIP_AXES) == FLIPS
