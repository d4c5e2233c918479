import json
import shutil

import numpy as np
import pytest
import torch

from steelseg.api import bundle
from steelseg.errors import CheckpointError
from steelseg.inference.cascade import Cascade
from steelseg.inference.forward import ForwardPlan
from steelseg.inference.members import Screener
from steelseg.inference.model_source import resolve_model
from steelseg.inference.predictor import Predictor
from steelseg.models.checkpoint import read_header
from steelseg.prediction.predict import predict_folder
from steelseg.run.cascade_json import Cascade as Choice
from steelseg.run.cascade_json import write_cascade
from steelseg.run.run_folder import RunFolder
from steelseg.scoring.postprocess import to_uint8
from steelseg.scoring.screening import defect_score


class Levels:
    """A network whose probability is the first pixel of the strip; it keeps what it was shown."""

    def __init__(self):
        self.shown = []

    def predict(self, batches, plan):
        for *strip, _presence_c in self.predict_ungated(batches, plan):
            yield tuple(strip)

    def predict_ungated(self, batches, plan):
        for image_ids, images_nhwc in batches:
            self.shown.append((plan.tta, image_ids))
            for image_id, image_hwc in zip(image_ids, images_nhwc, strict=True):
                level = image_hwc[0, 0, 0] / 255
                shape = 2, *image_hwc.shape[:2]
                presence_c = np.full(2, level / 100, np.float32)
                yield image_id, image_hwc, np.full(shape, level, np.float32), presence_c


@pytest.fixture
def looks():
    """Give a cascade whose both looks are `Levels`, cutting at a half."""
    return Cascade(
        Levels(), Levels(), first_plan=ForwardPlan(), cut=0.5, batch_size=2, num_classes=2
    )


OUTS = ("plain_out", "run_out", "bundle_out", "all_out")


def test_a_classifier_looks_by_its_presence():
    """Which is not rounded: 0.0009 and 0.0011 are the same level of a pixel."""
    looks = Cascade(
        Levels(),
        Levels(),
        first_plan=ForwardPlan(),
        cut=0.001,
        batch_size=2,
        num_classes=2,
        by_presence=True,
    )

    predicted = list(looks.predict(strips([23, 28]), ForwardPlan()))

    assert [bool(p[2].any()) for p in predicted] == [False, True]


def strips(levels, width=16):
    return [
        ((f"{place}.png",), np.full((1, 16, width, 1), level, np.uint8))
        for place, level in enumerate(levels)
    ]


def test_only_suspicious_strips_get_a_second_look_and_order_stays(looks):
    predicted = list(looks.predict(strips([0, 255, 10, 200, 20, 130]), ForwardPlan()))

    assert [p[0] for p in predicted] == [f"{place}.png" for place in range(6)]
    assert [shown for _, shown in looks._second.shown] == [("1.png", "3.png"), ("5.png",)]
    assert [float(p[2].max()) for p in predicted] == pytest.approx(
        [0, 1, 0, 200 / 255, 0, 130 / 255]
    )
    assert all(p[2].shape == (2, 16, 16) and p[2].dtype == np.float32 for p in predicted)


def test_each_look_has_its_own_plan(looks):
    list(looks.predict(strips([255]), ForwardPlan(tta="both")))

    assert (looks._first.shown, looks._second.shown) == (
        [("none", ("0.png",))],
        [("both", ("0.png",))],
    )


def test_strips_of_two_sizes_are_not_stacked(looks):
    both = strips([255]) + strips([254], width=24) + strips([253])
    predicted = list(looks.predict(both, ForwardPlan()))

    assert [p[1].shape[1] for p in predicted] == [16, 24, 16]


def test_a_long_run_of_clean_strips_does_not_pile_up(looks):
    """The first of many clean strips comes out long before the last goes in."""
    drawn = []

    def draw():
        for batch in strips([0] * 500):
            drawn.append(batch)
            yield batch

    next(looks.predict(draw(), ForwardPlan()))

    # The group that comes out, and those that either look has ahead of it.
    assert len(drawn) <= 5 * 32


@pytest.fixture
def runs(trained_run, tmp_path):
    """Give two copies of a trained run; the second looks first for the first."""
    for name in ("run", "first"):
        shutil.copytree(trained_run, tmp_path / name)
    return RunFolder(tmp_path / "run"), RunFolder(tmp_path / "first")


def choose(run, first, cut, sha256=None):
    digest = sha256 or read_header(first.best_model(0))[1]
    write_cascade(run.cascade_json, Choice(f"../{first.path.name}", 0, digest, cut), {})


def test_predict_skips_what_lies_below_the_cut_and_nothing_else(runs, tmp_path):
    """The rest has the masks that it has without a first look."""
    run, first = runs
    root = run.load_config().data.root
    image_ids = sorted(path.name for path in (root / "test_images").iterdir())
    looker = Predictor(first.best_model(0), device=torch.device("cpu"))
    seen = {i: defect_score(to_uint8(looker.probs(root / "test_images" / i))) for i in image_ids}
    cut = sorted(seen.values())[len(seen) // 2]
    assert min(seen.values()) < cut
    plain = Predictor(run.path)
    choose(run, first, cut)

    for image_id in image_ids:
        probs = Predictor(run.path).probs(root / "test_images" / image_id)
        if seen[image_id] < cut:
            assert not probs.any()
        else:
            np.testing.assert_array_equal(probs, plain.probs(root / "test_images" / image_id))


def test_the_setting_looks_at_every_strip(runs, tmp_path):
    run, first = runs
    predict_folder(Predictor(run.path), tmp_path / "plain")
    choose(run, first, 1.0)

    predict_folder(Predictor(run.path), tmp_path / "cascade")
    predict_folder(Predictor(run.path, ["inference.cascade=false"]), tmp_path / "off")

    rows = (tmp_path / "cascade" / "submission.csv").read_text().splitlines()[1:]
    assert all(row.endswith(",") for row in rows)
    plain = (tmp_path / "plain" / "submission.csv").read_bytes()
    assert (tmp_path / "off" / "submission.csv").read_bytes() == plain


def test_another_or_a_missing_first_network_is_refused(runs):
    run, first = runs
    choose(run, first, 0.5, sha256="0" * 64)
    with pytest.raises(CheckpointError, match=r"made for a different .*inference.cascade=false"):
        Predictor(run.path)

    choose(run, first, 0.5)
    first.best_model(0).unlink()
    with pytest.raises(CheckpointError, match=r"no such checkpoint.*inference.cascade=false"):
        Predictor(run.path)
    assert json.loads(run.cascade_json.read_text())["cut"] == 0.5


def test_the_first_look_is_a_member_with_settings_of_its_own(runs):
    """Its flips and crops are those its defect scores were measured with."""
    run, first = runs
    choose(run, first, 0.25)

    found = resolve_model(run.path, ["inference.tta=both"]).screener

    assert isinstance(found, Screener)
    assert (found.cut, found.config.inference.tta) == (0.25, first.load_config().inference.tta)


def test_a_bundle_holds_the_first_look(runs, tmp_path):
    """It predicts as the run does, where neither run is."""
    run, first = runs
    images = run.load_config().data.root / "test_images"
    # A bundle does not contain the data set's sample_submission.csv, so none is used here.
    no_sample = f"data.root={tmp_path}"
    predict_folder(Predictor(run.path, [no_sample]), tmp_path / "plain_out", images=images)
    choose(run, first, 1.0)
    predict_folder(Predictor(run.path, [no_sample]), tmp_path / "run_out", images=images)
    path = bundle(run.path, out=tmp_path / "bundle")
    first.best_model(0).unlink()

    predict_folder(Predictor(path), tmp_path / "bundle_out", images=images)
    predict_folder(
        Predictor(path, ["inference.cascade=false"]), tmp_path / "all_out", images=images
    )

    rows = {n: (tmp_path / n / "submission.csv").read_bytes() for n in OUTS}
    assert rows["bundle_out"] == rows["run_out"]
    assert rows["all_out"] == rows["plain_out"]
    assert all(row.endswith(b",") for row in rows["bundle_out"].splitlines()[1:])
