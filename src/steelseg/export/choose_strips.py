"""Choose strips for calibrating and comparing networks, evenly by class.

int8 clips values outside the calibrated range. So strips are drawn evenly from clean strips and
from those of each class, however rare it is.
"""

from collections.abc import Mapping, Sequence

import numpy as np


def choose_strips(present: Mapping[str, Sequence[int]], count: int, *, seed: int) -> list[str]:
    """Draw strips evenly from clean strips and from those of each class.

    Args:
        present: Class ids on each strip, by image_id.
        count: Number of strips; fewer are returned if there are not as many.
        seed: Seed of the draw.

    Returns:
        Sorted image_ids; they do not depend on the order of `present`.
    """
    image_ids = sorted(present)
    shuffled = [image_ids[k] for k in np.random.default_rng(seed).permutation(len(image_ids))]
    classes = sorted({class_id for shown in present.values() for class_id in shown})
    piles = [[i for i in shuffled if class_id in present[i]] for class_id in classes]
    piles.append([i for i in shuffled if not present[i]])
    chosen: set[str] = set()
    while len(chosen) < min(count, len(image_ids)):
        for pile in piles:
            left = [image_id for image_id in pile if image_id not in chosen]
            if left and len(chosen) < count:
                chosen.add(left[0])
    return sorted(chosen)
