"""`python -m torture [ROW ...] [--count N]`: run rows, print their table, exit 1 if one fails."""

import argparse
import sys

from torture.outcome import to_markdown
from torture.rows import find_rows


def main() -> int:
    """Run the rows that the command line names, or all of them."""
    rows = find_rows()
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(rows)}")
    parser.add_argument("--count", type=int, metavar="N", help="tries; default each row's own")
    args = parser.parse_args()
    if unknown := set(args.rows) - set(rows):
        parser.error(f"no such row: {min(unknown)}; there are {', '.join(rows)}")
    outcomes = {}
    for module in args.rows or rows:
        row = rows[module]
        if missing := getattr(row, "MISSING", ""):
            parser.error(f"{module}: {missing}")
        _say(f"{module}: {row.NAME} ...")
        outcomes[module, row.NAME] = found = row.run(args.count or row.COUNT)
        _say(f"{module}: {'' if found.is_kept else 'FAILED: '}{found}")
    print(to_markdown(outcomes))
    return 0 if all(found.is_kept for found in outcomes.values()) else 1


def _say(line: str) -> None:
    """Tell on stderr how far the rows are."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
