import base64

import cv2
import numpy as np
import pytest

from steelseg.errors import CheckpointError
from steelseg.evaluation.evaluate import evaluate_run
from steelseg.reporting.gallery import choose, draw_cases
from steelseg.run.held_out import held_out_masks, open_held_out
from steelseg.run.scores_csv import ScoreTable, read_scores

CLEAN = (0, 0, 0)


def table(*strips):
    """A score table: for each strip (intersection, predicted, truth) of each class."""
    image_ids = [f"{number}.jpg" for number in range(len(strips))]
    return ScoreTable(dict.fromkeys(image_ids, 0), np.array(strips, dtype=np.int64))


def chosen(scores, **options):
    """What was chosen: image_id and channel by kind."""
    return {
        group.kind: [(case.image_id, case.channel) for case in group.cases]
        for group in choose(scores, **options)
    }


def test_each_kind_shows_its_worst_first():
    """The largest miss, the largest false alarm, the lowest Dice."""
    scores = table(
        [(0, 0, 10)], [(0, 0, 90)], [(0, 5, 0)], [(0, 70, 0)], [(9, 10, 10)], [(1, 10, 10)], [CLEAN]
    )

    assert chosen(scores) == {
        "misses": [("1.jpg", 0), ("0.jpg", 0)],
        "false alarms": [("3.jpg", 0), ("2.jpg", 0)],
        "lowest Dice": [("5.jpg", 0), ("4.jpg", 0)],
    }


def test_classes_take_turns():
    """A frequent class with large defects does not crowd out the others."""
    misses = [[(0, 0, size), CLEAN] for size in (90, 80, 70, 60)] + [[CLEAN, (0, 0, 5)]]

    assert chosen(table(*misses), each=3) == {"misses": [("0.jpg", 0), ("4.jpg", 1), ("1.jpg", 0)]}


def test_no_strip_is_shown_twice():
    """Strip 0 misses one class, invents another and outlines the third badly."""
    scores = table([(0, 0, 9), (0, 9, 0), (1, 9, 9)], [CLEAN, (0, 3, 0), CLEAN])

    assert chosen(scores) == {"misses": [("0.jpg", 0)], "false alarms": [("1.jpg", 1)]}


def test_a_group_knows_how_many_there_are():
    """Four of forty misses are not all of them."""
    (group,) = choose(table(*[[(0, 0, 9)]] * 40), each=4)

    assert (len(group.cases), group.total) == (4, 40)
    assert group.cases[0].dice == 0


def test_clean_strips_without_a_mask_are_not_shown():
    """There is nothing wrong with them."""
    assert choose(table([CLEAN], [CLEAN])) == ()


def pictures(config, run, scores):
    """Draw the gallery of a run."""
    held_out = open_held_out(config.data, run)
    return draw_cases(
        choose(scores),
        held_out,
        held_out_masks(config, run, held_out, None),
        scores,
        folder=config.data.root / "train_images",
        channels=1,
        class_names=config.data.names,
        command="steelseg evaluate RUN",
    )


def test_every_strip_that_was_chosen_is_drawn(predicted_run):
    """As a JPEG inside the page: the strip twice, with legends."""
    config, run = predicted_run()
    evaluate_run(config, run)
    scores = read_scores(run.scores_csv)

    drawn = pictures(config, run, scores)

    cases = [case for group in choose(scores) for case in group.cases]
    assert drawn.keys() == {case.image_id for case in cases}
    for picture in drawn.values():
        head, _, content = picture.uri.partition(",")
        assert head == "data:image/jpeg;base64"
        jpeg = np.frombuffer(base64.b64decode(content), np.uint8)
        height, width, _ = cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape
        assert (height, width) == (picture.height, picture.width)
        assert width == 96
        assert height > 2 * 32


def test_masks_that_were_not_scored_are_not_shown(predicted_run):
    """A picture beside another mask's Dice would be a lie."""
    config, run = predicted_run()
    evaluate_run(config, run)
    scores = read_scores(run.scores_csv)
    scores.counts_nc3[:, 0, 1] += 1

    with pytest.raises(CheckpointError, match=r"Score them again: steelseg evaluate RUN"):
        pictures(config, run, scores)
