from steelseg.config.flips import FLIPS
from steelseg.inference.forward import FLIP_AXES


def test_flips_have_the_same_names_in_settings_and_in_prediction():
    assert tuple(FLIP_AXES) == FLIPS
