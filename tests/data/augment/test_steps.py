import pickle
import random

import numpy as np
import pytest

from steelseg.data.augment.steps import find_augmentation, flip, light
from steelseg.errors import ConfigError

MINE = '''
import random
import numpy as np


def roll(image, mask):
    """Draws from both global generators, as libraries do."""
    shift = int(np.random.randint(1, 5)) + random.randint(0, 3)
    return {"image": np.roll(image, shift, 1), "mask": np.roll(mask, shift, 1)}


def drop_axis(image, mask):
    return {"image": image[..., 0], "mask": mask}


def to_float(image, mask):
    return {"image": image / 255.0, "mask": mask}


def nothing(image, mask):
    pass


def broken(image, mask):
    return 1 / 0


def no_mask(image):
    return {"image": image}


def a_tuple(image, mask):
    return image, mask


def other_size(image, mask):
    return {"image": image[:-1], "mask": mask}


def colour(image, mask):
    return {"image": np.repeat(image, 3, 2), "mask": mask}


def one_class(image, mask):
    return {"image": image, "mask": mask[..., 0]}


def flat(image, mask):
    return {"image": image.ravel(), "mask": mask.ravel()}


class Composed:
    def __call__(self, image, mask):
        return {"image": image[::-1], "mask": mask[::-1]}


composed = Composed()
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Put a user's module where Python finds it; give its name."""
    name = f"augmentation_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def make_strip(height=6, width=8):
    """An image and a mask that is its own bright pixels, so that both must move together."""
    image_chw = np.random.default_rng(0).integers(0, 256, (1, height, width), dtype=np.uint8)
    return image_chw, np.concatenate([image_chw > 128, image_chw < 50]).astype(np.uint8)


def draw(augmentation, seed):
    return augmentation(*make_strip(), np.random.default_rng(seed))


def test_none_changes_nothing():
    """For validation, and to see what an augmentation brings."""
    image_chw, mask_chw = draw(find_augmentation("none"), 0)

    expected_image, expected_mask = make_strip()
    np.testing.assert_array_equal(image_chw, expected_image)
    np.testing.assert_array_equal(mask_chw, expected_mask)


def test_flips_move_image_and_mask_together():
    """And never only one of them."""
    for seed in range(20):
        image_chw, mask_chw = draw(flip, seed)
        np.testing.assert_array_equal(mask_chw[:1], image_chw > 128)


def test_each_of_the_four_flips_is_drawn_equally_often():
    """Each axis with probability one half, on its own."""
    image_chw, _ = make_strip()
    views = [np.flip(image_chw, axes).tobytes() for axes in ((), (1,), (2,), (1, 2))]

    drawn = [views.index(draw(flip, seed)[0].tobytes()) for seed in range(400)]

    assert np.bincount(drawn, minlength=4).min() > 70


def test_light_keeps_the_mask():
    """It flips like flips; brightness and contrast are the image's alone."""
    for seed in range(20):
        _, flipped_mask = draw(flip, seed)
        image_chw, mask_chw = draw(light, seed)
        np.testing.assert_array_equal(mask_chw, flipped_mask)
        assert image_chw.dtype == np.uint8


def test_light_scales_contrast_and_shifts_brightness():
    """Within a fifth and a tenth of full scale, the same for every pixel of a strip."""
    grey = np.arange(256, dtype=np.uint8).reshape(1, 1, 256)
    mask = np.zeros((1, 1, 256), dtype=np.uint8)
    slopes, shifts = [], []
    for seed in range(50):
        image, _ = light(grey.copy(), mask, np.random.default_rng(seed))
        line = np.sort(image.ravel()).astype(float)
        slopes.append((line[178] - line[78]) / 100)
        shifts.append(line[128] - 128)

    assert 0.78 < min(slopes) < 0.85
    assert 1.15 < max(slopes) < 1.22
    assert -27 < min(shifts) < -18
    assert 18 < max(shifts) < 27


@pytest.mark.parametrize("name", ["flips", "light"])
def test_the_generator_decides_all(name):
    """The same draw gives the same sample, and the global generators are left alone."""
    augmentation = find_augmentation(name)
    random.seed(0)
    before = random.getstate()

    first, second = draw(augmentation, 7), draw(augmentation, 7)

    np.testing.assert_array_equal(first[0], second[0])
    assert random.getstate() == before


def test_a_callable_of_ones_own_is_seeded(mine):
    """It draws from the global generators, yet a worker more or less changes nothing."""
    augmentation = find_augmentation(f"{mine}:roll")

    first = draw(augmentation, 7)
    np.random.random(5)  # noqa: NPY002
    second, other = draw(augmentation, 7), draw(augmentation, 8)

    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(first[1][:1], first[0] > 128)
    assert first[1].dtype == np.uint8
    assert not np.array_equal(first[0], other[0])


def test_a_composed_object_is_a_callable_too(mine):
    """As albumentations.Compose is; it travels to worker processes."""
    augmentation = pickle.loads(pickle.dumps(find_augmentation(f"{mine}:composed")))

    image_chw, mask_chw = draw(augmentation, 0)

    expected_image, expected_mask = make_strip()
    np.testing.assert_array_equal(image_chw, expected_image[:, ::-1])
    np.testing.assert_array_equal(mask_chw, expected_mask[:, ::-1])


@pytest.mark.parametrize(
    "step",
    [
        "flips",
        "light",
        "brightness",
        "gamma",
        "noise",
        "blur",
        "jpeg",
        "shift_scale",
        "conveyor_shift",
        "black_ends",
    ],
)
def test_every_step_may_follow_a_users_own(mine, step):
    """Which often returns a view of its input, turned or of interleaved colours."""
    _, mask_chw = make_strip(32, 48)
    image_chw = np.random.default_rng(0).integers(0, 256, (3, 32, 48), dtype=np.uint8)
    moved = image_chw[:, ::-1].copy(), mask_chw[:, ::-1].copy()
    seen = np.random.default_rng(1)
    # The seed of the user's own is drawn before.
    seen.integers(2**32)

    found = find_augmentation([f"{mine}:composed", step])(
        image_chw, mask_chw, np.random.default_rng(1)
    )

    expected = find_augmentation([step])(*moved, seen)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_lost_channel_axis_is_put_back(mine):
    """OpenCV drops the axis of one channel."""
    image_chw, _ = draw(find_augmentation(f"{mine}:drop_axis"), 0)

    np.testing.assert_array_equal(image_chw, make_strip()[0])


@pytest.mark.parametrize(
    ("attribute", "returned"),
    [
        ("to_float", r"an image of float64 \(6, 8, 1\)"),
        ("other_size", r"of uint8 \(5, 8, 1\)"),
        ("nothing", "a NoneType; expected a dict with image and mask"),
        ("a_tuple", "a tuple; expected a dict"),
        ("broken", r"failed: ZeroDivisionError: .*\.py, line \d+\)"),
        ("no_mask", "failed: TypeError: .*unexpected keyword argument 'mask'"),
        ("colour", r"of uint8 \(6, 8, 3\)"),
        ("one_class", r"of uint8 \(6, 8, 1\) and a mask of \(6, 8\)"),
        ("flat", r"of uint8 \(48,\)"),
    ],
)
def test_what_is_no_image_is_refused(mine, attribute, returned):
    """Floats would be normalised twice; another size shifts the mask."""
    with pytest.raises(ConfigError, match=f"train.augmentation={mine}:{attribute} .*{returned}"):
        draw(find_augmentation(f"{mine}:{attribute}"), 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("flip", "expected none, flips, light, brightness, .*defect_paste or module:callable"),
        ("often jpeg", "often before jpeg is not a fraction"),
        ("1.5 jpeg", "1.5 before jpeg is not a fraction"),
        ("no_such_module:f", "cannot be imported: No module named 'no_such_module'"),
        ("math:no_such_function", "cannot be imported"),
        ("math:pi", "is a float, not a callable"),
    ],
)
def test_an_unknown_augmentation_is_refused(name, reason):
    """Before anything is trained."""
    with pytest.raises(ConfigError, match=f"train.augmentation={name}.*{reason}"):
        find_augmentation(name)


@pytest.mark.parametrize("share", [0.25, 1])
def test_a_step_is_for_its_share_of_the_samples(share):
    """Of many samples about so many are flipped; all without a share."""
    augmentation = find_augmentation([f"{share} brightness", "none"])

    changed = [not np.array_equal(draw(augmentation, k)[0], make_strip()[0]) for k in range(200)]

    assert abs(np.mean(changed) - share) < 0.1


def test_steps_are_done_in_their_order(mine):
    """The second sees what the first made; a step of one's own needs processes."""
    augmentation = find_augmentation([f"{mine}:composed", f"{mine}:other_size"])

    with pytest.raises(ConfigError, match=r"other_size returned an image of uint8 \(5, 8, 1\)"):
        draw(augmentation, 0)
    assert pickle.loads(pickle.dumps(augmentation)).needs_processes
    assert not find_augmentation(["flips", "jpeg"]).needs_processes


def test_one_step_in_a_list_is_that_step():
    """So flips in a list train to the same bits as flips."""
    for seed in range(5):
        in_list, alone = (draw(find_augmentation(x), seed) for x in (["flips"], "flips"))
        np.testing.assert_array_equal(in_list[0], alone[0])
        np.testing.assert_array_equal(in_list[1], alone[1])
