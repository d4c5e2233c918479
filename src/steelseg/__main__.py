"""The `steelseg` command, also as `python -m steelseg`."""

import sys

from steelseg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
