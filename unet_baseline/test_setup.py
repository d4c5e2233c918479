"""Try data, model, data loading and losses: python test_setup.py."""

import sys
from pathlib import Path

from checks import check_main

if __name__ == "__main__":
    sys.exit(check_main("setup", Path(__file__).with_name("config.py")))
