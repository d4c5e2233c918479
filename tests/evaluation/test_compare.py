import numpy as np
import pytest

from steelseg.errors import CheckpointError, DataError
from steelseg.evaluation.compare import compare_runs, describe
from steelseg.run.run_folder import RunFolder
from steelseg.run.scores_csv import ScoreTable, read_scores, write_scores


def write_run(path, dices, *, first=0, truth=50):
    """A run of one class whose strips have these Dice; prediction is as large as the truth."""
    path.mkdir()
    counts = np.array([[[round(d * truth), truth, truth]] for d in dices], dtype=np.int64)
    fold_of = {f"{number}.jpg": 0 for number in range(first, first + len(dices))}
    write_scores(path / "scores.csv", ScoreTable(fold_of, counts))
    return RunFolder(path)


def test_scores_read_back_to_the_same_counts(tmp_path):
    """The rest follows from them."""
    counts = np.random.default_rng(0).integers(0, 99, (5, 3, 3))
    table = ScoreTable({f"a,{k}.jpg": k % 2 for k in range(5)}, counts)

    write_scores(tmp_path / "scores.csv", table)

    again = read_scores(tmp_path / "scores.csv")
    assert again.fold_of == table.fold_of
    np.testing.assert_array_equal(again.counts_nc3, counts)


def test_a_steady_gain_is_called_one_though_strips_differ_widely(tmp_path):
    """Paired by strip: 0.04 on every strip shows through a spread of 0.3."""
    dices = np.random.default_rng(0).uniform(0.1, 0.9, 40).round(2)
    a = write_run(tmp_path / "a", dices)
    b = write_run(tmp_path / "b", dices + 0.04)

    found = compare_runs(a, b)

    low, high = found.differences[0].bounds
    assert 0.03 < low <= 0.04 <= high < 0.05
    assert found.sentence.startswith("B is better by 0.04")
    assert compare_runs(b, a).sentence.startswith("A is better by 0.04")


def test_chance_is_called_chance(tmp_path):
    """Half of the strips better, half worse."""
    random = np.random.default_rng(0)
    a = write_run(tmp_path / "a", random.uniform(0, 1, 30))
    b = write_run(tmp_path / "b", random.uniform(0, 1, 30))

    assert compare_runs(a, b).sentence.startswith("No significant difference")


def test_a_run_does_not_differ_from_itself(tmp_path):
    """Not in one draw."""
    a = write_run(tmp_path / "a", [0.2, 0.9, 0.5])

    found = compare_runs(a, a)

    assert found.differences[0].bounds == (0, 0)
    assert not any(difference.is_real for difference in found.differences)


def test_only_common_strips_are_compared(tmp_path):
    """And the table says how many are left out."""
    a = write_run(tmp_path / "a", [0.5, 0.5, 0.5])
    b = write_run(tmp_path / "b", [0.5, 0.5], first=2)

    found = compare_runs(a, b)

    assert (found.strips, found.left_out) == (1, 3)
    assert "3 strips that only one run predicted are left out." in describe(found, ["dent"])
    with pytest.raises(DataError, match="have no strip in common"):
        compare_runs(a, write_run(tmp_path / "c", [0.1], first=9))


def test_runs_with_other_truths_are_not_compared(tmp_path):
    """One of them was scored against masks that have changed since."""
    a = write_run(tmp_path / "a", [0.5])
    b = write_run(tmp_path / "b", [0.5], truth=60)

    with pytest.raises(DataError, match="were scored with different ground truth"):
        compare_runs(a, b)


def test_the_table_lists_every_class(tmp_path):
    """A figure that is not defined is a dash."""
    text = describe(compare_runs(*[write_run(tmp_path / "a", [0.5, 1.0])] * 2), ["dent"])

    assert [line.split()[0] for line in text.splitlines() if "dice  " in line] == ["all", "dent"]
    assert "false_alarm_rate         -       -         -" in text


def test_missing_and_damaged_scores_are_refused(tmp_path):
    """By the command that makes them."""
    a = write_run(tmp_path / "a", [0.5])
    with pytest.raises(CheckpointError, match="Create it with: steelseg evaluate"):
        compare_runs(a, RunFolder(tmp_path / "none"))
    for text in ("", "image_id\n", a.scores_csv.read_text() + "x,1\n"):
        a.scores_csv.write_text(text)
        with pytest.raises(DataError, match=r"is damaged. Recreate it with"):
            compare_runs(a, a)
