"""Cut strips into crops and stitch them again: python test_crops.py."""

import sys
from pathlib import Path

from checks import check_main

if __name__ == "__main__":
    sys.exit(check_main("crops", Path(__file__).with_name("config.py")))
