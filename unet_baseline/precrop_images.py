"""Make the precropped store: python precrop_images.py."""

import sys
from pathlib import Path

from steelseg.cli.unet_baseline import precrop_main

if __name__ == "__main__":
    sys.exit(precrop_main(Path(__file__).with_name("config.py")))
