"""What became of unlabelled strips, in figures and in words."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from steelseg.data.formats.annotations import Labels
from steelseg.data.pseudo_labels import KEPT
from steelseg.pseudo.held_out_confidence import FoldTrust
from steelseg.pseudo.verdicts import COPY, DISAGREE, UNSURE, Finding


def report_fold(
    found: Mapping[str, Finding], trust: FoldTrust, *, num_classes: int
) -> dict[str, Any]:
    """What became of the strips of a fold, for index.json.

    Args:
        found: Of each strip.
        trust: How far the networks of the fold were trusted.
        num_classes: Classes C.
    """
    counts = Counter(one.verdict for one in found.values())
    kept = [one.masks for one in found.values() if one.verdict == KEPT]
    return {
        "strips": len(found),
        **{word: counts[word] for word in (KEPT, COPY, DISAGREE, UNSURE)},
        "kept_clean": sum(not any(masks) for masks in kept),
        "kept_with_class": [sum(bool(masks[c]) for masks in kept) for c in range(num_classes)],
        "least_sureness": asdict(trust.trust),
        "on_held_out": [asdict(one) for one in trust.held_out],
    }


def describe_fold(
    found: Mapping[str, Finding], trust: FoldTrust, *, class_names: Sequence[str]
) -> str:
    """Say the same in a line, and in a line a class where the trust was chosen."""
    report = report_fold(found, trust, num_classes=len(class_names))
    with_class = ", ".join(map(str, report["kept_with_class"]))
    lines = [
        f"{report[KEPT]} of {report['strips']} strips kept, {report['kept_clean']} of them clean; "
        f"masks of class 1 to {len(class_names)}: {with_class}; left out: {report[COPY]} copies, "
        f"{report[DISAGREE]} where votes disagree, {report[UNSURE]} not sure enough"
    ]
    for channel, held in enumerate(trust.held_out):
        lines.append(
            f"  {class_names[channel]}: on held-out strips {held.masks_trusted} of {held.masks} "
            f"masks are trusted{_from(trust.trust.found[channel], held.precision)}, and "
            f"{held.absences_trusted} of {held.absences} absences"
            f"{_from(trust.trust.absent[channel], held.absences_right)}"
        )
    return "\n".join(lines)


def never_trusted(trust: FoldTrust, class_names: Sequence[str]) -> list[str]:
    """Name the classes whose masks no sureness makes right often enough."""
    pairs = zip(class_names, trust.trust.found, strict=True)
    return [name for name, least in pairs if math.isinf(least)]


def lacking_classes(found: Mapping[str, Finding], labels: Labels) -> list[int]:
    """Name the class ids that labelled strips show, but none that was kept."""
    kept = [one.masks for one in found.values() if one.verdict == KEPT]
    shown = {class_id for _, class_id in labels.runs}
    return sorted(k for k in shown if not any(masks[k - 1] for masks in kept))


def _from(least: float, right: float) -> str:
    """From what sureness on, and the share that is right; nothing where none is trusted."""
    return f" (from {least:.3f} on; {right:.3f} right)" if math.isfinite(least) else ""


def plain(value: Any) -> Any:
    """What JSON can hold: names become text, and what is not finite null."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
