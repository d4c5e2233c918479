#!/usr/bin/env bash
# Train every fold, one after the other: bash train_all_folds.sh
set -euo pipefail

exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/train.py" --all_folds "$@"
