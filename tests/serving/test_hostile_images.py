"""Damaged and hostile images: refused with the reason, or read as usual."""

import re

import cv2
import numpy as np
import pytest

from torture import hostile_kinds as kinds

# Only the settings of a data set refuse this; the server reads any size.
READ = (kinds.wrong_size,)


@pytest.mark.parametrize(
    "kind", [k for k in kinds.FILES if k not in READ], ids=lambda kind: kind.__name__
)
def test_each_kind_has_its_documented_outcome(app, kind):
    """Images that `steelseg check` refuses are a 4xx with the same words; no others are."""
    chance = np.random.default_rng(7)
    content, due = kind(chance, kinds.make_strip(chance))
    reply = app.ask("/v1/predict", content)

    if isinstance(due, str):
        assert reply.status in (413, 415, 422)
        assert re.search(due, reply.json["error"], re.IGNORECASE)
    elif not isinstance(due, bytes):
        assert reply.status == 200
    else:
        # A flipped bit is found or not; that it is found is for other tests.
        assert reply.status in (200, 415, 422)


def test_a_bomb_is_refused_by_its_header(app):
    """30,000 x 30,000 pixels in 109 KB; its reason says what is read."""
    content, _ = kinds.png_bomb()
    reply = app.ask("/v1/predict", content)

    assert reply.status == 413
    assert reply.json["error"] == "The image has 30000x30000 pixels; at most 8000000 are read."


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (300, 1), (33, 97)])
def test_any_size_within_the_limit_is_read(app, size):
    """Also those that no network was trained on."""
    strip = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    reply = app.ask("/v1/predict", cv2.imencode(".png", strip)[1].tobytes())

    assert reply.status == 200
    assert (reply.json["height"], reply.json["width"]) == size
