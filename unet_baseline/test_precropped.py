"""Hold the precropped store against the image files: python test_precropped.py."""

import sys
from pathlib import Path

from checks import check_main

if __name__ == "__main__":
    sys.exit(check_main("precropped", Path(__file__).with_name("config.py")))
