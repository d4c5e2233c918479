from pathlib import Path

import pytest

from torture.outcome import Outcome, to_markdown
from torture.rows import find_rows

ROWS = find_rows()


@pytest.mark.parametrize("module", ROWS)
def test_every_promise_holds_in_a_quick_sample(module):
    """The full counts are `make torture`'s; the code is the same."""
    row = ROWS[module]
    if missing := getattr(row, "MISSING", ""):
        pytest.skip(missing)

    found = row.run(row.QUICK)

    assert found.is_kept, f"{row.NAME}: {found}"


@pytest.mark.parametrize("module", ROWS)
def test_every_promise_is_written_down(module):
    """With the command that tries it."""
    page = Path(__file__).parents[2] / "docs" / "reliability.md"

    assert f"`python -m torture {module}`" in page.read_text(encoding="utf-8")


def test_a_promise_that_was_never_tried_is_not_kept():
    """A row that found nothing to do must not look like one that passed."""
    assert Outcome(3, 3, seconds=1).is_kept
    assert not Outcome(2, 3, seconds=1).is_kept
    assert not Outcome(0, 0, seconds=1).is_kept


def test_the_table_names_the_command_of_each_row():
    """So that a reader can run one row again."""
    table = to_markdown({("csv_texts", "no bad row passes"): Outcome(1234, 1234, 5.4, "all well")})

    assert table.splitlines()[-1] == (
        "| no bad row passes | 1,234 / 1,234 | 5 | `python -m torture csv_texts` | all well |"
    )
