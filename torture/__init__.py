"""The promises of docs/reliability.md, put to the test in full counts.

One module is one row of the table. It has

    NAME                    what is promised, in a few words
    COUNT                   how often the full run tries it
    QUICK                   how often `make test` does
    run(count) -> Outcome   tries it so often
    MISSING                 what this machine lacks for it; "" or absent when nothing

`python -m torture` runs all rows, `python -m torture csv_texts --count 500` one of them.
"""
