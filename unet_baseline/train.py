"""Train: python train.py --fold 0, --all_folds, or --fold 0 --checkpoint FILE."""

import sys
from pathlib import Path

from steelseg.cli.unet_baseline import train_main

if __name__ == "__main__":
    sys.exit(train_main(Path(__file__).with_name("config.py")))
