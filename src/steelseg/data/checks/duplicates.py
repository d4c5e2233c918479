"""Find near-duplicate strips: recompressed, slightly brighter, shifted by a pixel or flipped.

The search has two steps. `make_thumbnail` reduces a strip to 16x64 numbers; all pairs of
thumbnails are compared in the four flips, and the few similar pairs are *candidates*.
`compare_grain` aligns the two strips and compares their grain tile by tile. A stamped pattern, a
black end or a straight edge can be at the same pixels of two different strips, but not the grain.

Strips without grain, such as black ones, never match, not even copies of one file. Strips of
different sizes and partly overlapping strips never match either. A large defect drawn onto a copy
hides it, and different plates with the same dense pattern, which leaves no grain visible, can
match by mistake.

Images are `image_hwc`, as returned by `read_image`. A flip is "none", "hflip", "vflip" or "both",
as in `inference.tta`. No file is read here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FLIPS = {
    "none": np.s_[..., :, :],
    "hflip": np.s_[..., :, ::-1],
    "vflip": np.s_[..., ::-1, :],
    "both": np.s_[..., ::-1, ::-1],
}
"""Each flip as an index of an array (..., H, W)."""

FLIP_WORDS = {
    "none": "",
    "hflip": "flipped left-right",
    "vflip": "flipped top-bottom",
    "both": "turned by 180 degrees",
}

# More than one pixel, because two copies of a strip may be shifted in opposite directions.
MAX_SHIFT = 2

# Measured on 9,850 changed copies of real and synthetic strips, six of ten recompressed;
# benchmarks/duplicates.py prints the same figures.
# Thumbnails: copies at least 0.64 (99.7 % above 0.70), 4 million other pairs at most 0.55.
CANDIDATE_SIMILARITY = 0.6

# Grain: copies at least 0.16 (99.7 % above 0.24), 60,000 other pairs at most -0.20; checkered
# plates whose patterns are aligned at most -0.17. If recompression has removed the grain of one
# strip, other pairs come close to 0.
GRAIN_SIMILARITY = 0.08

# Masks are equal if this share of their union is in both, within a tolerance of one pixel.
SAME_MASK = 0.9

_GRID, _SMALLEST_CELL = (16, 64), 8
# Limit of the difference of a cell to its neighbours, in grey levels, so that a black end does
# not outweigh everything else.
_CLIP = 2.0
# The thumbnail of a black strip is only rounding errors, so it is not scaled to length 1.
_SMALLEST_NORM = 0.5

# Grain of 3 to 9 pixels survives JPEG quality 50.
_FINE, _COARSE = 1.5, 3.0
_TILE = 8
# Minimum RMS of a tile with grain, in grey levels, and minimum number of such tiles.
_GRAIN, _FEWEST_TILES = 0.25, 32

# Thumbnails compared at once, and how many of the best candidates of a strip are compared.
_BLOCK, _MOST_CANDIDATES = 256, 20

Image = NDArray[np.uint8]
Thumbnail = NDArray[np.float32]
Grain = NDArray[np.float32]


@dataclass(frozen=True)
class Match:
    """Two near-duplicate strips."""

    first: str
    """image_id; sorts before the second."""

    second: str
    """image_id of the other strip."""

    flip: str
    """Flip that aligns the second strip with the first."""

    shift: tuple[int, int]
    """Shift (down, right) of the flipped second strip that aligns it with the first, in pixels."""

    def __str__(self) -> str:
        how = f" ({words})" if (words := FLIP_WORDS[self.flip]) else ""
        return f"{self.first} and {self.second} look alike{how}"


def make_thumbnail(image_hwc: Image) -> Thumbnail:
    """Reduce a strip to at most 16x64 numbers that distinguish it from other strips.

    Cells are averages, so grain and a shift of one pixel have no effect. Each is taken relative to
    its neighbours, its row and its column, which removes lighting and the straight edges of black
    ends, which many strips have in common.

    Returns:
        Array of shape (h, w), at most 16x64, with norm 1, or less for strips without structure.
    """
    image_hw = _grey(image_hwc)
    height, width = (
        max(1, min(most, side // _SMALLEST_CELL))
        for most, side in zip(_GRID, image_hw.shape, strict=True)
    )
    means = cv2.resize(image_hw, (width, height), interpolation=cv2.INTER_AREA)
    around = cv2.GaussianBlur(means, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT)
    cells = np.subtract(means, around)
    cells = cells - cells.mean(axis=1, keepdims=True)
    cells = np.clip(cells - cells.mean(axis=0, keepdims=True), -_CLIP, _CLIP)
    length = max(float(np.linalg.norm(cells)), _SMALLEST_NORM)
    return np.asarray(cells / length, dtype=np.float32)


def find_matches(
    thumbnails: Mapping[str, Thumbnail],
    sizes: Mapping[str, tuple[int, int]],
    read: Callable[[str], Image],
) -> list[Match]:
    """Find near-duplicate strips.

    Args:
        thumbnails: Thumbnail of each strip, by image_id.
        sizes: Height and width of each strip.
        read: Returns the image of a strip; called for candidates only.

    Returns:
        The matches that connect the members of each group, n - 1 for a group of n.
    """
    of_size: dict[tuple[int, int], list[str]] = defaultdict(list)
    for image_id in sorted(thumbnails):
        of_size[sizes[image_id]].append(image_id)
    matches: list[Match] = []
    parents: dict[str, str] = {}
    for image_ids in of_size.values():
        for earlier, later, flip in _candidates(np.stack([thumbnails[i] for i in image_ids])):
            first, second = image_ids[earlier], image_ids[later]
            if _root(parents, first) == _root(parents, second):
                continue
            shift, similarity = compare_grain(read(first), read(second), flip)
            if similarity >= GRAIN_SIMILARITY:
                matches.append(Match(first, second, flip, shift))
                _join(parents, first, second)
    return matches


def group_matches(matches: Iterable[Match]) -> dict[str, str]:
    """Return the first member of the group of each matched strip."""
    parents: dict[str, str] = {}
    for match in matches:
        _join(parents, match.first, match.second)
    return {image_id: _root(parents, image_id) for image_id in sorted(parents)}


def _root(parents: dict[str, str], image_id: str) -> str:
    """Return the first member of a group (union-find with path halving)."""
    while (parent := parents.get(image_id, image_id)) != image_id:
        parents[image_id] = parents[parent]
        image_id = parent
    return image_id


def _join(parents: dict[str, str], one: str, other: str) -> None:
    """Merge two groups."""
    first, last = sorted((_root(parents, one), _root(parents, other)))
    parents[first] = parents[last] = first


def _candidates(thumbnails_nhw: NDArray[np.float32]) -> Iterator[tuple[int, int, str]]:
    """Yield pairs (earlier, later, flip of the later) of similar thumbnails, the best first."""
    flat = thumbnails_nhw.reshape(len(thumbnails_nhw), -1)
    for begin in range(0, len(flat), _BLOCK):
        block = thumbnails_nhw[begin : begin + _BLOCK]
        known = flat[: begin + len(block)].T
        similarity = np.stack([block[f].reshape(len(block), -1) @ known for f in FLIPS.values()])
        for row in range(len(block)):
            later = begin + row
            of_row = similarity[:, row, :later]
            flips, earlier = np.nonzero(of_row >= CANDIDATE_SIMILARITY)
            best_first = np.argsort(-of_row[flips, earlier], kind="stable")
            for k in best_first[:_MOST_CANDIDATES]:
                yield int(earlier[k]), later, list(FLIPS)[flips[k]]


def compare_grain(first_hwc: Image, second_hwc: Image, flip: str) -> tuple[tuple[int, int], float]:
    """Align two strips and compare their grain.

    Args:
        first_hwc: A strip.
        second_hwc: Another strip of the same size.
        flip: Flip that aligns the second strip with the first.

    Returns:
        The shift of a `Match`, and the 25th percentile of the tiles' correlations: 1 for copies,
        -1 for strips with too little grain to compare.
    """
    first_hw, second_hw = _grain(first_hwc), _grain(second_hwc)[FLIPS[flip]]
    # Clipped, because long lines say nothing about a shift along them.
    bounded_hw, inner_hw = (np.clip(grain_hw, -_CLIP, _CLIP) for grain_hw in (first_hw, second_hw))
    inner_hw = inner_hw[MAX_SHIFT:-MAX_SHIFT, MAX_SHIFT:-MAX_SHIFT]
    *_, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(bounded_hw, inner_hw, cv2.TM_CCORR))
    shift = y - MAX_SHIFT, x - MAX_SHIFT
    return shift, _grain_similarity(*cut_to_overlap(first_hw, second_hw, shift))


def describe_conflicts(
    match: Match, first_chw: NDArray[np.bool_], second_chw: NDArray[np.bool_]
) -> list[str]:
    """Describe the classes in which the masks of two near-duplicates differ.

    The strips are aligned first, and pixels outside their overlap are ignored. Masks differ if less
    than 0.9 of their union is in both, with a tolerance of one pixel, because two people never draw
    exactly the same edge.

    Args:
        match: How to align the strips.
        first_chw: Masks of the first strip, shape (C, H, W).
        second_chw: Masks of the second strip, as in train.csv.

    Returns:
        "class 3 differs: 1,204 pixels against 3,310, IoU 0.21", one for each such class.
    """
    second_chw = second_chw[FLIPS[match.flip]]
    pairs = zip(*cut_to_overlap(first_chw, second_chw, match.shift), strict=True)
    conflicts = []
    for channel, (one_hw, other_hw) in enumerate(pairs):
        union = np.count_nonzero(one_hw | other_hw)
        near_hw = (one_hw & _grow(other_hw)) | (other_hw & _grow(one_hw))
        if np.count_nonzero(near_hw) < SAME_MASK * union:
            one, other = (np.count_nonzero(m[channel]) for m in (first_chw, second_chw))
            iou = np.count_nonzero(one_hw & other_hw) / union
            conflicts.append(
                f"class {channel + 1} differs: {one:,} pixels against {other:,}, IoU {iou:.2f}"
            )
    return conflicts


def _grow(mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dilate a mask by one pixel."""
    grown = cv2.dilate(mask_hw.astype(np.uint8), np.ones((3, 3), np.uint8))
    return np.asarray(grown, dtype=np.bool_)


def cut_to_overlap(
    first: NDArray[Any], second: NDArray[Any], shift: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Crop two arrays (..., H, W) to their overlap.

    Args:
        first: Array of the first strip.
        second: Array of the second strip, already flipped.
        shift: As in a `Match`.
    """
    (down, right), (height, width) = shift, first.shape[-2:]
    return (
        first[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)],
        second[..., max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)],
    )


def _grey(image_hwc: Image) -> NDArray[np.float32]:
    """Convert an image to grayscale, shape (H, W), float32."""
    if image_hwc.shape[2] == 3:
        return np.asarray(cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY), dtype=np.float32)
    return image_hwc[..., 0].astype(np.float32)


def _grain(image_hwc: Image) -> Grain:
    """Return the structures of a few pixels (difference of Gaussians), in grey levels."""
    image_hw = _grey(image_hwc)
    fine, coarse = (cv2.GaussianBlur(image_hw, (0, 0), sigma) for sigma in (_FINE, _COARSE))
    return np.asarray(fine - coarse, dtype=np.float32)


def _grain_similarity(first_hw: Grain, second_hw: Grain) -> float:
    """Return the 25th percentile of the tiles' correlations; -1 if too few tiles have grain."""
    height, width = (side // _TILE * _TILE for side in first_hw.shape)
    first_hw, second_hw = (_without_lines(g[:height, :width]) for g in (first_hw, second_hw))
    first_power, second_power = _tile_means(first_hw**2), _tile_means(second_hw**2)
    # Grain on only one of the strips counts against a match.
    has_grain = np.maximum(first_power, second_power) >= _GRAIN**2
    if np.count_nonzero(has_grain) < _FEWEST_TILES:
        return -1.0
    power = np.sqrt(first_power * second_power)[has_grain]
    correlation = _tile_means(first_hw * second_hw)[has_grain] / np.maximum(power, 1e-6)
    return float(np.percentile(correlation, 25))


def _without_lines(grain_hw: Grain) -> Grain:
    """Subtract from each pixel the mean of its row and of its column within its tile."""
    height, width = grain_hw.shape
    for tile in ((1, _TILE), (_TILE, 1)):
        means = cv2.resize(
            _tile_means(grain_hw, tile), (width, height), interpolation=cv2.INTER_NEAREST
        )
        grain_hw = grain_hw - means
    return grain_hw


def _tile_means(image_hw: Grain, tile: tuple[int, int] = (_TILE, _TILE)) -> Grain:
    """Average an image over tiles of this height and width."""
    height, width = (side // part for side, part in zip(image_hw.shape, tile, strict=True))
    return np.asarray(cv2.resize(image_hw, (width, height), interpolation=cv2.INTER_AREA))
