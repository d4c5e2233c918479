"""Predicting crops and putting them back together."""

from collections.abc import Callable

from torch import Tensor

from steelseg.data.crops import crop_boxes


def predict_crops(
    predict: Callable[[Tensor], Tensor], images_nchw: Tensor, *, crop: tuple[int, int, int]
) -> Tensor:
    """Predict overlapping crops and average where they overlap.

    Args:
        predict: From crops to probabilities, same height and width.
        images_nchw: Pixels, shape (N, channels, H, W).
        crop: Height, width and stride of the crops, in pixels.

    Returns:
        Probabilities, shape (N, C, H, W).
    """
    height, width = images_nchw.shape[-2:]
    boxes = crop_boxes(height, width, crop_height=crop[0], crop_width=crop[1], crop_stride=crop[2])
    total = hits = None
    for top, left, high, wide in boxes:
        window = (..., slice(top, top + high), slice(left, left + wide))
        probs = predict(images_nchw[window])
        if total is None or hits is None:
            total = probs.new_zeros(*probs.shape[:2], height, width)
            hits = probs.new_zeros(1, 1, height, width)
        total[window] += probs
        hits[window] += 1
    assert total is not None
    assert hits is not None
    return total / hits
