#!/usr/bin/env bash
# Train one fold: bash train_single_fold.sh 0
set -euo pipefail

if [ $# -lt 1 ]; then
  echo "usage: train_single_fold.sh FOLD [--checkpoint FILE]" >&2
  exit 2
fi
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/train.py" --fold "$@"
