import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.scoring.blending.blend import (
    blend,
    errors,
    multiply,
    relative_error,
    stack_products,
)
from steelseg.scoring.blending.weights import (
    BAG,
    build_weigh,
    cross_fitted_errors,
    cross_fitted_weights,
    select_greedily,
)


def draw_strips(seed, *, count, strips=4, classes=2):
    """Some strips of random truth, and predictions that know it more or less."""
    random = np.random.default_rng(seed)
    for _ in range(strips):
        truth_chw = random.random((classes, 6, 8)) < 0.3
        skill_k = random.random(count)[:, None, None, None]
        noise_kchw = random.random((count, *truth_chw.shape))
        probs_kchw = skill_k * truth_chw + (1 - skill_k) * noise_kchw
        yield (255 * probs_kchw).round().astype(np.uint8), truth_chw


def draw_products(seed, **options):
    return stack_products([multiply(*strip) for strip in draw_strips(seed, **options)])


def quadratic(seed, count):
    """A quadratic function of as many weights, as predictions give one."""
    products = draw_products(seed, count=count, classes=1).summed()
    return products.own_nckk[0, 0] / 255**2, products.truth_nck[0, 0] / 255**2


def value(own_kk, truth_k, weights_k):
    return weights_k @ own_kk @ weights_k - 2 * weights_k @ truth_k


def test_errors_are_those_of_the_pixels():
    """Products alone give the same error as a pass over every pixel."""
    strips = list(draw_strips(0, count=3))
    products = stack_products([multiply(*strip) for strip in strips])
    weights_kc = np.array([[0.5, 0.2], [0.5, 0.0], [0.0, 0.8]])

    found_nc = errors(products, weights_kc)

    for found_c, (probs_kchw, truth_chw) in zip(found_nc, strips, strict=True):
        mean_chw = np.einsum("kchw,kc->chw", probs_kchw / 255, weights_kc)
        np.testing.assert_allclose(found_c, ((mean_chw - truth_chw) ** 2).sum(axis=(1, 2)))


def test_empty_masks_are_the_unit_of_the_error():
    """And a class that no strip shows has none."""
    truth_chw = np.zeros((2, 4, 4), bool)
    truth_chw[0, :2] = True
    nothing, half = (np.full((1, 2, 4, 4), level, np.uint8) for level in (0, 51))
    products = stack_products([multiply(np.concatenate([nothing, half]), truth_chw)])

    found = [
        relative_error(errors(products, np.eye(2)[k][:, None].repeat(2, 1)), products.pixels_nc)
        for k in (0, 1)
    ]

    assert found[0] == 1
    assert found[1] == pytest.approx(0.8**2 + 0.2**2)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 7))
def test_greedy_weights_are_not_worse_than_the_best_single_prediction(seed, count):
    own_kk, truth_k = quadratic(seed, count)

    weights_k = select_greedily(own_kk, truth_k)

    assert (weights_k >= 0).all()
    assert weights_k.sum() == pytest.approx(1)
    single = min(value(own_kk, truth_k, only_k) for only_k in np.eye(count))
    assert value(own_kk, truth_k, weights_k) <= single + 1e-9


@given(seed=st.integers(0, 10_000))
def test_of_two_a_greedy_bag_is_the_best_of_all_bags(seed):
    """On a line no step of the way leads astray."""
    own_kk, truth_k = quadratic(seed, 2)

    found = select_greedily(own_kk, truth_k)

    bags = (np.array([n, size - n]) / size for size in range(1, BAG + 1) for n in range(size + 1))
    lowest = min(value(own_kk, truth_k, weights_k) for weights_k in bags)
    assert value(own_kk, truth_k, found) == pytest.approx(lowest, abs=1e-9)


@pytest.mark.parametrize("mode", ["equal", "greedy"])
@pytest.mark.parametrize("per_class", [False, True])
def test_weights_sum_to_one_for_every_class(mode, per_class):
    weights_kc = build_weigh(mode, per_class=per_class)(draw_products(3, count=4, classes=3))

    assert weights_kc.shape == (4, 3)
    np.testing.assert_allclose(weights_kc.sum(axis=0), 1)
    if mode == "equal":
        assert (weights_kc == 0.25).all()
    if not per_class:
        np.testing.assert_array_equal(weights_kc, weights_kc[:, :1].repeat(3, 1))


@pytest.mark.parametrize("per_class", [False, True])
def test_a_class_that_no_strip_has_does_not_count(per_class):
    """Its products cannot tell which prediction is better."""
    strips = [(probs, truth & [[[True]], [[False]]]) for probs, truth in draw_strips(5, count=2)]
    one_class = [(probs[:, :1], truth[:1]) for probs, truth in strips]
    both, one = (stack_products([multiply(*s) for s in group]) for group in (strips, one_class))
    weigh = build_weigh("greedy", per_class=per_class)

    found_kc = weigh(both)

    np.testing.assert_allclose(found_kc[:, 0], weigh(one)[:, 0])
    np.testing.assert_allclose(found_kc[:, 1], 0.5 if per_class else found_kc[:, 0])


def test_a_mean_is_rounded_half_up():
    """Of any number of predictions: a sixth has no end in binary."""
    levels = np.array([1, 2, 2, 1, 2, 1], np.uint8).reshape(6, 1, 1, 1)

    assert blend(levels, np.full((6, 1), 1 / 6)).item() == 2
    assert blend(levels[:3], np.full((3, 1), 1 / 3)).item() == 2
    assert blend(np.full((6, 1, 1, 1), 255, np.uint8), np.full((6, 1), 1 / 6)).item() == 255


def test_weights_of_an_inner_fold_depend_on_the_others_alone():
    """A prediction that is perfect on one inner fold gets no weight for it there."""
    strips = [
        (np.stack([np.where(truth, 255, 0), np.where(truth, 180, 20)]).astype(np.uint8), truth)
        if place == 0
        else (np.stack([255 - 200 * truth, np.where(truth, 180, 20)]).astype(np.uint8), truth)
        for place, (_, truth) in enumerate(draw_strips(2, count=1))
    ]
    products = stack_products([multiply(*strip) for strip in strips])
    fold_n = np.array([0, 1, 1, 2])
    weigh = build_weigh("greedy", per_class=False)

    weights = cross_fitted_weights(products, fold_n, weigh)

    np.testing.assert_allclose(weights[0][:, 0], [0, 1], atol=1e-9)
    np.testing.assert_array_equal(weights[1], weigh(products.of(fold_n != 1)))
    judged_nc = cross_fitted_errors(products, fold_n, weights)
    np.testing.assert_array_equal(judged_nc[:1], errors(products.of(fold_n == 0), weights[0]))
