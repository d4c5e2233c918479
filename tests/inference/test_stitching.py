import pytest
import torch

from steelseg.inference.forward import predict_crops


@pytest.mark.parametrize(
    ("size", "crop"),
    [
        ((256, 1600), (256, 512, 256)),
        ((8, 20), (8, 8, 8)),
        ((8, 21), (5, 8, 3)),
        ((4, 6), (8, 8, 8)),
        ((9, 9), (4, 4, 1)),
    ],
)
def test_cutting_and_stitching_changes_nothing(size, crop):
    """Averaging identical overlaps gives a strip back as it was."""
    strips_nchw = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))

    found = predict_crops(lambda crops: crops, strips_nchw, crop=crop)

    torch.testing.assert_close(found, strips_nchw)


def test_where_crops_overlap_their_mean_counts():
    """Crops of four columns at stride 2 on six columns: the middle is seen by both."""
    answers = iter([1.0, 3.0])

    found = predict_crops(
        lambda crops: torch.full_like(crops, next(answers)), torch.zeros(1, 1, 1, 6), crop=(1, 4, 2)
    )

    assert found.flatten().tolist() == [1, 1, 2, 2, 3, 3]


def test_there_may_be_more_classes_than_channels():
    """Grey goes in, a probability of each class comes out."""
    grey = torch.rand(2, 1, 4, 9)

    found = predict_crops(lambda crops: crops.repeat(1, 5, 1, 1), grey, crop=(4, 4, 3))

    torch.testing.assert_close(found, grey.expand(-1, 5, -1, -1))
