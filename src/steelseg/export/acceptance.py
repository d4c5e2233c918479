"""What an export must hold to be kept."""

from collections.abc import Mapping

from steelseg.export.exported import Check, Precision
from steelseg.export.parity import Compared

LARGEST_DIFFERENCE = 1e-4
"""Of probabilities, between fp32 and the original."""

LARGEST_DROP = 0.002
"""Of the mean Dice, from the original to int8."""


def failures(figures: Mapping[str, Compared], *, precision: Precision) -> dict[Check, str]:
    """Hold the figures of an export against what is asked of it.

    Args:
        figures: Of "original", of "fp32" in the same format and, where asked for, of "int8".
        precision: Which of them is to be kept.

    Returns:
        For each check that failed, why, as a part of a sentence.
    """
    original, full = figures["original"], figures["fp32"]
    failed: dict[Check, str] = {}
    if precision == "fp32":
        if full.difference > LARGEST_DIFFERENCE:
            failed["difference"] = (
                f"probabilities differ by up to {full.difference:.2g} from the original's, "
                f"{LARGEST_DIFFERENCE:g} is allowed"
            )
        return failed
    int8 = figures["int8"]
    if original.dice - int8.dice > LARGEST_DROP:
        failed["dice"] = (
            f"Dice is {int8.dice:.4f}, {original.dice - int8.dice:.4f} below the original's "
            f"{original.dice:.4f}, {LARGEST_DROP:g} is allowed"
        )
    if int8.strips_per_second <= full.strips_per_second:
        failed["speed"] = (
            f"{int8.strips_per_second:.2f} strips/s are not more than the "
            f"{full.strips_per_second:.2f} of fp32 in the same format"
        )
    return failed


def describe(figures: Mapping[str, Compared]) -> str:
    """Draw the figures as a text table, one line a network."""
    classes = len(next(iter(figures.values())).dice_per_class)
    rows = [
        ("", "difference", "other masks", "Dice", *map(str, range(1, classes + 1)), "strips/s"),
        *(
            (
                name,
                f"{each.difference:.1e}",
                f"{each.pairs_that_differ}/{each.pairs}",
                f"{each.dice:.4f}",
                *(f"{dice:.4f}" for dice in each.dice_per_class),
                f"{each.strips_per_second:.2f}",
            )
            for name, each in figures.items()
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )
