#!/usr/bin/env bash
# Predict with the mean of checkpoints: bash inference.sh OUT_DIR A [B ...]
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: inference.sh OUT_DIR CHECKPOINT [CHECKPOINT ...]" >&2
  exit 2
fi
out_dir=$1
shift
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/inference.py" \
  --output_dir "$out_dir" --checkpoints "$@"
