import pytest

from steelseg.export.exported import Figures
from steelseg.export.parity import describe, failures

ORIGINAL = Figures(
    difference=0.0,
    pairs_that_differ=0,
    pairs=8,
    dice=0.9,
    dice_per_class=(0.8, 1.0),
    strips_per_second=1.0,
)


def judge(precision, **networks):
    figures = {"original": ORIGINAL}
    figures |= {name: ORIGINAL.model_copy(update=changes) for name, changes in networks.items()}
    return failures(figures, precision=precision)


@pytest.mark.parametrize(("difference", "failed"), [(9.9e-5, []), (1.1e-4, ["difference"])])
def test_fp32_may_differ_by_a_ten_thousandth(difference, failed):
    """More than rounding means that something is computed differently."""
    assert list(judge("fp32", fp32={"difference": difference})) == failed


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"dice": 0.8981, "strips_per_second": 3.1}, []),
        ({"dice": 0.95, "strips_per_second": 3.1, "difference": 0.5}, []),
        ({"dice": 0.8979, "strips_per_second": 3.1}, ["dice"]),
        ({"strips_per_second": 3.0}, ["speed"]),
        ({"dice": 0.1, "strips_per_second": 2.0}, ["dice", "speed"]),
    ],
)
def test_int8_must_be_as_good_and_faster_than_fp32(changes, failed):
    """Than fp32 of the same format: the original is slow anyway."""
    assert list(judge("int8", fp32={"strips_per_second": 3.0}, int8=changes)) == failed


def test_figures_are_a_table():
    """One line a network, columns aligned."""
    lines = describe(
        {"original": ORIGINAL, "fp32": ORIGINAL.model_copy(update={"difference": 3e-6})}
    ).split("\n")

    assert len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["fp32", "3.0e-06", "0/8", "0.9000", "0.8000", "1.0000", "1.00"]
