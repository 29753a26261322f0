#!/usr/bin/env bash
# Installs the oldest versions that setup.cfg allows into an environment of their own, and runs a quick part of the tests
# there: tools/lower_bounds.sh [PYTEST ARGUMENTS].
#
#   PYTHON   the interpreter (default: python3.11, the oldest that is supported)
#   TORCH    options of uv that choose the build of PyTorch (default: --torch-backend cpu)
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3.11}
env=.cache/lower-bounds
torch=${TORCH:---torch-backend cpu}
tests=(tests/test_architecture.py tests/test_public_api.py tests/test_pyg_loop.py tests/core tests/data
       tests/evaluation/test_metrics.py tests/evaluation/test_ranking.py tests/negatives/test_transform.py
       tests/losses/test_losses.py tests/models/test_adapters.py tests/training/test_trainer.py)

"$python" -m venv --clear "$env"
"$env/bin/python" -m pip install --quiet uv
# Direct dependencies at their lower bounds; theirs as new as these allow.
# shellcheck disable=SC2086  # $torch holds several words
VIRTUAL_ENV=$PWD/$env "$env/bin/python" -m uv pip install --resolution lowest-direct $torch -e '.[calibration,pykeen,test]'
"$env/bin/python" -m pip list --format=freeze | grep -iE '^(torch|torch.geometric|numba|numpy|pandas|pyyaml|tqdm)=='
[ $# -gt 0 ] || set -- "${tests[@]}"
"$env/bin/python" -m pytest -q "$@"
