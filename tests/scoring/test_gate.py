import numpy as np

from steelseg.scoring.gate import build_gate
from steelseg.scoring.postprocess import to_uint8

PROBS = np.random.default_rng(0).random((2, 3, 4), dtype=np.float32)
PRESENCE = np.array([0.25, 0.5], np.float32)


def test_a_hard_gate_empties_a_class_below_its_own_presence():
    """Of both types, and a presence that equals what is asked for passes."""
    gate = build_gate("hard", (0.3, 0.5))

    for probs_chw in (PROBS, to_uint8(PROBS)):
        gated_chw = gate(probs_chw, PRESENCE)
        assert gated_chw.dtype == probs_chw.dtype
        assert not gated_chw[0].any()
        np.testing.assert_array_equal(gated_chw[1], probs_chw[1])


def test_a_soft_gate_multiplies():
    """Each class by its own presence; stored levels stay within one of the floats' level."""
    gate = build_gate("soft", ())

    expected = PROBS * np.array([0.25, 0.5])[:, None, None]
    np.testing.assert_allclose(gate(PROBS, PRESENCE), expected, rtol=1e-6)
    of_levels = gate(to_uint8(PROBS), PRESENCE)
    assert of_levels.dtype == np.uint8
    assert np.abs(of_levels - expected * 255).max() <= 0.75


def test_no_gate_needs_no_presence():
    """And hands on the same array."""
    assert build_gate("none", ())(PROBS, np.empty(0, np.float32)) is PROBS
