import numpy as np
import pytest

from steelseg.config.config import DataConfig
from steelseg.data.checks.check import load_labels
from steelseg.data.samples.dataset import list_samples
from steelseg.errors import CheckpointError
from steelseg.run.oof_store import new_store
from steelseg.run.run_folder import RunFolder, create_run
from steelseg.training.sampling import (
    balanced,
    positives,
    sample_chances,
    with_negatives,
)

# Four clean samples, two of class 1, one of class 2, one of both.
SHOWN = np.array([[0, 0]] * 4 + [[1, 0]] * 2 + [[0, 1], [1, 1]], bool)


@pytest.fixture
def labels(tmp_path, make_strips):
    """Give the labels of twelve strips."""
    make_strips(tmp_path / "input", num_train=12)
    root = tmp_path / "input"
    return load_labels(DataConfig(root=root, num_classes=2, img_height=None, img_width=None))


def chances_of(labels, samples, sampling="all", hard_negatives=None):
    return sample_chances(
        labels,
        samples,
        sampling=sampling,
        hard_negatives=hard_negatives,
    )


def test_balanced_draws_every_class_as_often_as_clean_samples():
    """Each of clean, class 1 and class 2 gets a third; both classes count for the rarer."""
    np.testing.assert_allclose(balanced(SHOWN), [1 / 12] * 4 + [1 / 6] * 2 + [1 / 6] * 2)


def test_a_class_that_nothing_shows_changes_nothing():
    """A fold may hold out every strip of a class."""
    with_none = balanced(np.column_stack([SHOWN, np.zeros(len(SHOWN), bool)]))

    np.testing.assert_allclose(with_none, balanced(SHOWN))


def test_all_takes_each_sample_once(labels):
    """The order of an epoch is a permutation then, as it always was."""
    samples = list_samples(labels, list(labels.sizes), crop=(32, 32, 32))

    assert chances_of(labels, samples) is None
    chances = chances_of(labels, samples, "balanced")
    shown = np.array([labels.draw(*sample).any(axis=(1, 2)) for sample in samples])
    np.testing.assert_array_equal(chances, balanced(shown))


@pytest.fixture
def earlier(labels, tmp_path, make_config):
    """Give a run that was sure of a defect at the right end of every strip."""
    run = create_run(tmp_path / "earlier", make_config(tmp_path / "input"))
    run.fold(0).mkdir()
    image_ids = list(labels.sizes)
    sizes = list(labels.sizes.values())
    with new_store(
        run.oof(0), image_ids=image_ids, sizes=sizes, num_classes=2, model_sha256="ab"
    ) as array:
        array[:, 0, :, 64:] = 255
    return run.path


def test_clean_crops_that_a_run_was_mistaken_about_come_more_often(labels, earlier):
    """Of weight 3, four times as often as other clean ones; those with a defect stay."""
    samples = list_samples(labels, list(labels.sizes), crop=(32, 32, 32))

    chances = chances_of(labels, samples, "all", earlier)

    is_clean = np.array([not labels.draw(*sample).any() for sample in samples])
    is_mistaken = is_clean & np.array([box.left == 64 for _, box in samples])
    assert is_mistaken.any()
    np.testing.assert_allclose(
        chances * (len(samples) + 3 * is_mistaken.sum()), 1 + 3 * is_mistaken
    )


def test_positives_draws_defects_and_the_clean_crops_that_a_run_was_mistaken_about(labels, earlier):
    """A network behind a gate sees no other clean strip; a false positive counts three times."""
    samples = list_samples(labels, list(labels.sizes), crop=(32, 32, 32))
    is_clean = np.array([not labels.draw(*sample).any() for sample in samples])
    is_mistaken = is_clean & np.array([box.left == 64 for _, box in samples])

    alone = chances_of(labels, samples, "positives")
    with_mistakes = chances_of(labels, samples, "positives", earlier)

    np.testing.assert_allclose(alone * (~is_clean).sum(), ~is_clean)
    expected = np.where(is_clean, 3 * is_mistaken, 1)
    np.testing.assert_allclose(with_mistakes, expected / expected.sum())


def test_positives_without_a_defect_draw_all():
    """A data set that has none to show must not divide by zero."""
    np.testing.assert_allclose(positives(np.zeros((4, 2), bool)), [1 / 4] * 4)


def test_other_predictions_are_other_data(earlier):
    """A training that is resumed must draw what it would have drawn."""
    before = with_negatives("data", earlier)
    run = RunFolder(earlier)
    kept = {"image_ids": ["a"], "sizes": [(1, 1)], "num_classes": 1, "model_sha256": "cd"}
    seen = {before}
    for plan in ("", "inference.tta=none, no crops", "inference.tta=both, no crops"):
        with new_store(run.oof(0), **kept, plan=plan):
            pass
        seen.add(with_negatives("data", earlier))

    assert with_negatives("data", None) == "data"
    assert len(seen) == 4


def test_a_run_without_predictions_is_refused(labels, tmp_path, make_config):
    """With the command that makes them."""
    path = create_run(tmp_path / "bare", make_config(tmp_path / "input")).path

    with pytest.raises(CheckpointError, match=r"train\.hard_negatives=.*steelseg oof"):
        chances_of(labels, list_samples(labels, list(labels.sizes), crop=None), "all", path)
