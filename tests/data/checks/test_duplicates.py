import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.data.checks.check import inspect
from steelseg.data.checks.duplicates import (
    FLIPS,
    GRAIN_SIMILARITY,
    Match,
    compare_grain,
    cut_to_overlap,
    describe_conflicts,
    find_matches,
    group_matches,
    make_thumbnail,
)
from steelseg.data.formats.images import read_image
from steelseg.data.synthetic.dataset import make_dataset

CHANGES = {
    "recompressed": lambda image: recompress(image, 50),
    "brighter": lambda image: lighten(image, 1.02),
    "darker": lambda image: lighten(image, 0.98),
    "moved right": lambda image: move(image, 0, 1),
    "moved up": lambda image: move(image, -1, 0),
    "flipped left-right": lambda image: image[:, ::-1],
    "flipped top-bottom": lambda image: image[::-1],
    "turned": lambda image: image[::-1, ::-1],
    "flipped and recompressed": lambda image: recompress(image[:, ::-1], 50),
    "flipped and moved": lambda image: move(image[::-1], 0, -1),
    "moved and recompressed": lambda image: recompress(move(image, 1, 0), 50),
    "moved and darker": lambda image: lighten(move(image, 0, 1), 0.98),
}


def recompress(image, quality):
    _, content = cv2.imencode(".jpg", np.ascontiguousarray(image), [1, quality])
    return cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)[..., None]


def lighten(image, factor):
    return np.clip(image * factor + 0.5, 0, 255).astype(np.uint8)


def move(image, down, right):
    """Move an image; the line that comes in repeats the one beside it."""
    height, width, _ = image.shape
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return padded[1 - down : 1 - down + height, 1 - right : 1 - right + width]


def steel(seed, height=64, width=192):
    """Draw light that changes slowly and grain of two pixels, shape (H, W, 1)."""
    rng = np.random.default_rng(seed)
    light = cv2.resize(rng.normal(100, 8, (6, 14)), (width, height), interpolation=cv2.INTER_CUBIC)
    grain = cv2.GaussianBlur(rng.normal(0, 12, (height, width)), (0, 0), 1.2)
    return np.clip(light + grain, 0, 255).astype(np.uint8)[..., None]


def checkered(seed, height=128, width=400):
    """Draw plate with stamped lines that lie on the same pixels of every plate."""
    image = np.random.default_rng(seed).normal(90, 10, (height, width))
    image = cv2.GaussianBlur(image, (0, 0), 1.2)
    for left in range(-100, width, 100):
        for bottom in (0, height):
            cv2.line(image, (left, bottom), (left + height // 2, height - bottom), 150, 3)
    return np.clip(image, 0, 255).astype(np.uint8)[..., None]


def matches_of(images):
    """Find what looks alike in {image_id: image}."""
    return find_matches(
        {image_id: make_thumbnail(image) for image_id, image in images.items()},
        {image_id: image.shape[:2] for image_id, image in images.items()},
        images.__getitem__,
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Give 150 synthetic strips with two copies of each kind planted among them.

    Returns:
        The folder, and the original of each copy.
    """
    root = tmp_path_factory.mktemp("planted") / "input"
    make_dataset(root, num_train=150, num_test=1, height=128, width=400, seed=3)
    folder, origins = root / "train_images", {}
    names = sorted(path.name for path in folder.iterdir())
    for number, (how, change) in enumerate([*CHANGES.items()] * 2):
        copy = f"{number:02d} {how}.png"
        changed = change(read_image(folder / names[5 * number], channels=1))
        assert cv2.imwrite(str(folder / copy), changed)
        origins[copy] = names[5 * number]
    return root, origins


def test_planted_copies_are_found_and_nothing_else(planted):
    """benchmarks/duplicates.py does the same with 2,000 strips."""
    root, origins = planted

    groups = inspect(root, num_classes=4, img_height=128, img_width=400, channels=1).groups

    assert groups == {name: min(pair) for pair in origins.items() for name in pair}


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_copy_is_found(how):
    """Each kind of change, and the word for its flip."""
    image = steel(0)

    matches = matches_of({"a.png": image, "b.png": CHANGES[how](image), "c.png": steel(1)})

    assert [(m.first, m.second) for m in matches] == [("a.png", "b.png")]
    assert str(matches[0]).startswith("a.png and b.png look alike")


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -1), (-2, 2)])
def test_a_match_tells_flip_and_shift(flip, shift):
    """So that masks can be laid on each other: turned first, then moved."""
    whole = steel(2, 80, 208)
    moved = whole[8 + shift[0] : 72 + shift[0], 8 + shift[1] : 200 + shift[1]]
    second = np.moveaxis(np.moveaxis(moved, -1, 0)[FLIPS[flip]], 0, -1)

    matches = matches_of({"a": whole[8:72, 8:200], "b": second})

    assert matches == [Match("a", "b", flip, shift)]


@given(seed=st.integers(0, 1000), flip=st.sampled_from(list(FLIPS)))
def test_a_flip_of_the_strip_flips_its_thumbnail(seed, flip):
    """Otherwise flipped copies were no candidates."""
    image_hwc = steel(seed)
    turned_hwc = image_hwc[..., 0][FLIPS[flip]][..., None]

    np.testing.assert_allclose(
        make_thumbnail(turned_hwc), make_thumbnail(image_hwc)[FLIPS[flip]], atol=1e-4
    )


@given(
    seed=st.integers(0, 1000), first=st.sampled_from(list(FLIPS)), flip=st.sampled_from(list(FLIPS))
)
def test_turning_both_strips_changes_no_verdict(seed, first, flip):
    """Whichever way up the strips were photographed."""
    one, other = steel(seed), recompress(move(steel(seed), 0, 1), 70)
    turned = [image[..., 0][FLIPS[first]][..., None] for image in (one, other)]
    different = steel(seed + 1)[..., 0][FLIPS[first]][..., None]

    assert compare_grain(turned[0], turned[1], "none")[1] > 0.5
    assert compare_grain(turned[0], different, flip)[1] < 0


def test_strips_without_grain_never_match():
    """Black strips are equal to the bit and still not the same steel."""
    black = np.zeros((64, 192, 1), np.uint8)
    ramp = np.repeat(np.arange(192, dtype=np.uint8)[None, :, None], 64, axis=0)
    ended = ramp.copy()
    ended[:, 100:] = 0

    assert matches_of(dict.fromkeys("ab", black) | dict.fromkeys("cd", ramp)) == []
    assert matches_of(dict.fromkeys("ab", ended)) == []
    assert compare_grain(black, black, "none")[1] == -1


def test_black_ends_in_the_same_place_are_no_match():
    """The edge is the strongest thing on both strips, and says nothing."""
    images = {f"{seed}": steel(seed) for seed in range(6)}
    for image in images.values():
        image[:, 70:] = 2

    assert matches_of(images) == []
    assert len(matches_of(images | {"copy": recompress(images["3"], 80)})) == 1


def test_a_stamped_pattern_in_the_same_place_is_no_match():
    """Severstal has checkered plate; two of them differ in the grain between the lines."""
    one, other = checkered(0), checkered(1)

    assert float((make_thumbnail(one) * make_thumbnail(other)).sum()) > 0.6
    assert compare_grain(one, other, "none")[1] < GRAIN_SIMILARITY
    assert len(matches_of({"a": one, "b": other, "c": recompress(one, 60)})) == 1


def test_a_strip_with_a_small_defect_drawn_on_it_is_a_match():
    """Most of the steel is the same."""
    scratched = steel(0)
    scratched[20:40, 60:66] = 220

    assert len(matches_of({"a": steel(0), "b": scratched})) == 1


def test_images_of_other_sizes_and_tiny_ones_do_not_match():
    """A flip or a shift keeps the size; a few pixels prove nothing."""
    image = steel(0)

    assert matches_of({"a": image, "b": image[:, :-1]}) == []
    for side in (1, 3, 8, 16, 17):
        assert matches_of(dict.fromkeys("ab", image[:side, :side])) == []


def test_colour_files_of_one_strip_match():
    """data.channels=3 reads the same steel."""
    rgb = np.repeat(steel(0), 3, axis=2)

    assert len(matches_of({"a": rgb, "b": recompress(rgb, 90)[..., [0, 0, 0]]})) == 1


def test_groups_join_through_a_common_member():
    """Each of three copies need not be compared with both others."""
    matches = [Match(*pair, "none", (0, 0)) for pair in ("cd", "ad", "xy")]

    assert group_matches(matches) == {"a": "a", "c": "a", "d": "a", "x": "x", "y": "x"}
    assert group_matches([]) == {}


def test_many_copies_of_one_strip_cost_one_comparison_each():
    """A set that was augmented on disk holds thousands of pairs."""
    read = []
    copies = {f"{number:02d}": steel(0) for number in range(30)}
    thumbnails = {image_id: make_thumbnail(image) for image_id, image in copies.items()}

    matches = find_matches(
        thumbnails,
        {image_id: image.shape[:2] for image_id, image in copies.items()},
        lambda image_id: read.append(image_id) or copies[image_id],
    )

    assert len(matches) == 29
    assert len(read) == 58
    assert set(group_matches(matches).values()) == {"00"}


@given(down=st.integers(-2, 2), right=st.integers(-2, 2))
def test_the_overlap_holds_the_same_pixels(down, right):
    """First at (y + down, x + right) lies on second at (y, x)."""
    whole = np.arange(9 * 12).reshape(9, 12)
    first, second = whole[2:7, 2:10], whole[2 + down : 7 + down, 2 + right : 10 + right]

    one, other = cut_to_overlap(first, second, (down, right))

    np.testing.assert_array_equal(one, other)
    assert one.shape == (5 - abs(down), 8 - abs(right))


def test_masks_are_compared_as_the_strips_lie():
    """Flipped and moved with its strip, a mask is the same; what has left the picture is none."""
    first_chw = np.zeros((2, 20, 40), dtype=bool)
    first_chw[0, 4:9, 10:30] = True
    first_chw[1, 5, 39] = True
    second_chw = np.zeros_like(first_chw)
    second_chw[0, 4:9, 9:29] = True
    turned_chw = second_chw[..., ::-1]

    assert describe_conflicts(Match("a", "b", "hflip", (0, 1)), first_chw, turned_chw) == [
        "class 2 differs: 1 pixels against 0, IoU 0.00"
    ]
    first_chw[1] = False
    assert describe_conflicts(Match("a", "b", "hflip", (0, 1)), first_chw, turned_chw) == []


def test_masks_that_differ_are_told_with_their_size():
    """A class on one strip alone has an IoU of 0."""
    first_chw = np.zeros((3, 64, 64), dtype=bool)
    second_chw = first_chw.copy()
    first_chw[0, :40], second_chw[0, 20:] = True, True
    first_chw[1, :60], second_chw[1, :61] = True, True
    second_chw[2, :20] = True

    assert describe_conflicts(Match("a", "b", "none", (0, 0)), first_chw, second_chw) == [
        "class 1 differs: 2,560 pixels against 2,816, IoU 0.31",
        "class 3 differs: 0 pixels against 1,280, IoU 0.00",
    ]


@pytest.mark.parametrize(("pixels", "conflicts"), [(0, 0), (1, 0), (2, 1)])
def test_a_thin_mask_drawn_a_pixel_aside_is_the_same(pixels, conflicts):
    """Its IoU is 0, but two people never draw the same edge."""
    first_chw = np.zeros((1, 64, 64), dtype=bool)
    first_chw[0, 10:40, 30] = True

    found = describe_conflicts(
        Match("a", "b", "none", (0, 0)), first_chw, np.roll(first_chw, pixels, axis=-1)
    )

    assert len(found) == conflicts


SEEN_TWICE = {("Pa_101", "Pa_105"), ("In_188", "In_210"), ("In_235", "In_245")}


@pytest.mark.parametrize(("name", "pairs"), [("severstal", set()), ("sd900", SEEN_TWICE)])
def test_the_real_sets_hold_these_pairs(shared_data, name, pairs):
    """StripScores by eye: sd900 has a copied file, and two places that were photographed twice."""
    folder = shared_data / name / "train_images"
    images = {path.name: read_image(path, channels=1) for path in folder.iterdir()}

    matches = matches_of(images)

    assert {(m.first.split(".")[0], m.second.split(".")[0]) for m in matches} == pairs
