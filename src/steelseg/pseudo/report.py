"""Summaries of the pseudo-labels of a fold, for index.json and the terminal."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from steelseg.data.formats.annotations import Labels
from steelseg.data.pseudo_labels import KEPT
from steelseg.pseudo.held_out_confidence import FoldThresholds
from steelseg.pseudo.verdicts import COPY, DISAGREE, UNSURE, Finding


def report_fold(
    found: Mapping[str, Finding], chosen: FoldThresholds, *, num_classes: int
) -> dict[str, Any]:
    """Count the verdicts on the strips of a fold, for index.json.

    Args:
        found: The finding of each strip.
        chosen: Confidence thresholds of the fold.
        num_classes: Number of classes C.
    """
    counts = Counter(one.verdict for one in found.values())
    kept = [one.masks for one in found.values() if one.verdict == KEPT]
    return {
        "strips": len(found),
        **{word: counts[word] for word in (KEPT, COPY, DISAGREE, UNSURE)},
        "kept_clean": sum(not any(masks) for masks in kept),
        "kept_with_class": [sum(bool(masks[c]) for masks in kept) for c in range(num_classes)],
        "least_sureness": asdict(chosen.thresholds),
        "on_held_out": [asdict(one) for one in chosen.held_out],
    }


def describe_fold(
    found: Mapping[str, Finding], chosen: FoldThresholds, *, class_names: Sequence[str]
) -> str:
    """Return the same in a line, with a line per class if the thresholds were chosen."""
    report = report_fold(found, chosen, num_classes=len(class_names))
    with_class = ", ".join(map(str, report["kept_with_class"]))
    lines = [
        f"{report[KEPT]} of {report['strips']} strips kept, {report['kept_clean']} of them clean; "
        f"masks of class 1 to {len(class_names)}: {with_class}; left out: {report[COPY]} copies, "
        f"{report[DISAGREE]} where votes disagree, {report[UNSURE]} below the confidence thresholds"
    ]
    for channel, held in enumerate(chosen.held_out):
        lines.append(
            f"  {class_names[channel]}: on held-out strips {held.masks_trusted} of {held.masks} "
            f"masks are accepted{_from(chosen.thresholds.found[channel], held.precision)}, and "
            f"{held.absences_trusted} of {held.absences} absences"
            f"{_from(chosen.thresholds.absent[channel], held.absences_right)}"
        )
    return "\n".join(lines)


def never_accepted(chosen: FoldThresholds, class_names: Sequence[str]) -> list[str]:
    """Return the classes whose masks do not reach the precision at any threshold."""
    pairs = zip(class_names, chosen.thresholds.found, strict=True)
    return [name for name, threshold in pairs if math.isinf(threshold)]


def lacking_classes(found: Mapping[str, Finding], labels: Labels) -> list[int]:
    """Return the ids of classes that labelled strips show, but no kept strip does."""
    kept = [one.masks for one in found.values() if one.verdict == KEPT]
    shown = {class_id for _, class_id in labels.runs}
    return sorted(k for k in shown if not any(masks[k - 1] for masks in kept))


def _from(threshold: float, precision: float) -> str:
    """Return the threshold and the precision in words; empty if nothing is accepted."""
    return f" (from {threshold:.3f}; {precision:.3f} correct)" if math.isfinite(threshold) else ""


def plain(value: Any) -> Any:
    """Convert to JSON types: keys become text, and numbers that are not finite null."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
