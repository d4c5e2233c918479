"""Predict: python inference.py --checkpoints FILE [FILE ...] --output_dir DIR."""

import sys
from pathlib import Path

from steelseg.cli.unet_baseline import inference_main

if __name__ == "__main__":
    sys.exit(inference_main(Path(__file__).with_name("config.py")))
