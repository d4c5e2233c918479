"""The page computes the same as Python."""

import cv2
import numpy as np
import pytest

from steelseg.data.formats import rle
from steelseg.scoring.postprocess import binarize, level_of
from steelseg.writers.exchange import components, to_png
from steelseg.writers.overlays import PALETTE

pytestmark = pytest.mark.slow

SHAPES = [(1, 1), (1, 9), (9, 1), (7, 12), (24, 31)]


@pytest.fixture
def ask(open_page):
    """Give a function that runs JavaScript with a module of the page."""
    page = open_page()

    def run(module, expression, argument=None):
        imported = f"const its = await import('/page/{module}')"
        code = f"async (given) => {{ {imported}; return {expression}; }}"
        return page.evaluate(code, argument)

    return run


def random_levels(seed, shape):
    """Levels that make large and small components, with holes, at every threshold."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, shape, dtype=np.uint8)
    return cv2.blur(noise, (1 + seed % 3, 1 + seed % 2)) if seed % 4 else noise


@pytest.mark.parametrize("shape", SHAPES)
def test_runs_are_drawn_as_python_draws_them(ask, shape):
    """The server sends runs; a pixel off by one would be another defect."""
    masks = [random_levels(seed, shape) > 120 for seed in range(12)]
    expression = "given.map(([text, height, width]) => Array.from(its.decode(text, height, width)))"

    drawn = ask("rle.js", expression, [[rle.encode(mask), *shape] for mask in masks])

    assert drawn == [mask.astype(int).ravel().tolist() for mask in masks]


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_of_levels_are_those_of_python(ask, shape):
    """What a moving slider shows follows every rule of `binarize` on the same levels."""
    random = np.random.default_rng(len(shape))
    cases = []
    for seed in range(40):
        settings = {
            "threshold": round(float(random.uniform(0, 1)), 3),
            "min_size": int(random.integers(0, 12)),
            "min_area": int(random.integers(0, 40)),
            "top_threshold": round(float(random.uniform(0, 1)), 3),
        }
        cases.append((random_levels(seed, shape), settings))
    expression = """given.map(([levels, height, width, settings]) => {
      const { mask, defects } = its.binarize(Uint8Array.from(levels), height, width, settings);
      return { mask: Array.from(mask), defects };
    })"""

    found = ask("masks.js", expression, [[q.ravel().tolist(), *shape, s] for q, s in cases])

    for (levels, settings), result in zip(cases, found, strict=True):
        per_class = {name: (value,) for name, value in settings.items()}
        (mask,) = binarize(levels[None], **per_class)
        assert result["mask"] == mask.astype(int).ravel().tolist(), settings
        assert sorted(map(as_row, result["defects"])) == sorted(
            (list(part.bbox), part.area, pytest.approx(part.score, abs=1e-6))
            for part in components(mask, levels)
        )


def as_row(defect):
    """Order the fields of a defect."""
    return defect["box"], defect["area"], defect["score"]


def test_thresholds_are_the_same_levels(ask):
    """0.6 is level 153 on both sides, whatever floating point makes of it."""
    thresholds = [*np.linspace(0, 1, 1001).tolist(), *((q / 255) for q in range(256))]

    levels = ask("masks.js", "given.map(its.levelOf)", thresholds)

    assert levels == [level_of(t, np.dtype(np.uint8)) for t in thresholds]


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_enclose_exactly_the_mask(ask, shape):
    """A path that is filled gives back the mask: no pixel is lost at holes, corners and edges."""
    masks = [random_levels(seed, shape) > 120 for seed in range(12)]
    expression = """given.masks.map((mask) => {
      const [height, width] = given.shape;
      const canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext("2d");
      context.fill(its.toPath(its.trace(Uint8Array.from(mask), height, width)), "evenodd");
      const { data } = context.getImageData(0, 0, width, height);
      return Array.from({ length: height * width }, (_, i) => data[4 * i + 3] / 255);
    })"""
    flat = [mask.astype(int).ravel().tolist() for mask in masks]

    filled = ask("outlines.js", expression, {"masks": flat, "shape": list(shape)})

    assert filled == flat


def test_colours_are_those_of_overlays(ask):
    """A class has one colour wherever it is shown."""
    colours = ask("colors.js", "given.map((k) => its.rgbOf(k))", list(range(len(PALETTE) + 1)))

    assert [tuple(colour) for colour in colours] == [*PALETTE, PALETTE[0]]


def test_a_picture_is_shown_as_it_is_stored(ask):
    """Browsers turn a photograph that was taken upright; its masks lie on the stored pixels."""
    pixels = np.zeros((8, 24, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    # One entry: orientation 6, a quarter turn.
    tiff = (
        b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
        + b"\0" * 4
    )
    exif = b"Exif\x00\x00" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    expression = """await Promise.all(given.map(async (bytes) => {
      const { width, height } = await its.decodePixels(Uint8Array.from(bytes).buffer);
      return [height, width];
    }))"""

    sizes = ask("pixels.js", expression, [list(turned), list(jpeg), list(to_png(pixels))])

    assert sizes == [[8, 24]] * 3
