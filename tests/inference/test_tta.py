import pytest
import torch

from steelseg.inference.forward import VIEWS, average_views


@pytest.mark.parametrize("tta", VIEWS)
def test_views_of_a_symmetric_predictor_are_one(tta):
    """What treats every pixel alike answers alike on every view, turned back."""
    images = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(0))

    found = average_views(lambda view: view**2, images, tta=tta)

    torch.testing.assert_close(found, images**2)


@pytest.mark.parametrize(
    ("tta", "expected"),
    [
        ("none", [[1, 0], [0, 0]]),
        ("hflip", [[0.5, 0.5], [0, 0]]),
        ("vflip", [[0.5, 0], [0.5, 0]]),
        ("both", [[0.25, 0.25], [0.25, 0.25]]),
    ],
)
def test_a_predictor_that_always_says_top_left_is_spread_over_the_views(tta, expected):
    """Each view is turned back before the mean; both has four."""
    answer = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 1, 2, 2)

    found = average_views(lambda _view: answer, torch.zeros(1, 1, 2, 2), tta=tta)

    assert found[0, 0].tolist() == expected
