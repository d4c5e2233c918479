#!/usr/bin/env bash
# Make the precropped store, once: bash precrop_setup.sh
set -euo pipefail

exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/precrop_images.py" "$@"
