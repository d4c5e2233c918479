"""The promises of docs/reliability.md, tested with full counts.

Each module is one row of the table. It has

    NAME                    the promise, in a few words
    COUNT                   number of trials in a full run
    QUICK                   number of trials in `make test`
    run(count) -> Outcome   run this many trials
    MISSING                 what this machine lacks to run it; "" or absent if nothing

`python -m torture` runs all rows, `python -m torture csv_texts --count 500` one row.
"""
