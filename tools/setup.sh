#!/usr/bin/env bash
# Prepares an environment: tools/setup.sh [extras] [scatter], extras as in setup.cfg, comma-separated. Installs what is
# missing and replaces nothing that satisfies setup.cfg; a second call with nothing to do returns at once. With scatter,
# compiles the optional torch-scatter as well.
#
#   PYTHON   an interpreter whose environment to use as it is (default: make one in $VENV)
#   VENV     where to make the environment (default: .venv)
#   TORCH    what to install where there is no suitable PyTorch (default: torch==2.13.0)
#   SCATTER  0: leave torch-scatter out; retry: try again after a failure (default: try once)
set -euo pipefail
cd "$(dirname "$0")/.."

extras=${1:-}
venv=${VENV:-.venv}
state=.cache/setup
torch=${TORCH:-torch==2.13.0}
scatter=${2:-}
scatter_limit=1200  # seconds; the compilation takes about 180 on two cores

say() { printf '[setup] %s\n' "$*"; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

supported() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null && supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    die 'Python 3.11 or newer is needed and none was found; name one with PYTHON=/path/to/python'
}

if [ -n "${PYTHON:-}" ]; then
    supported "$PYTHON" || die "PYTHON=$PYTHON does not run, or is older than 3.11"
    python=$PYTHON
else
    python=$venv/bin/python
    if ! supported "$python"; then
        base=$(find_python)
        say "making an environment in $venv with $("$base" --version)"
        rm -rf "$state"
        "$base" -m venv --clear "$venv" || die "could not make $venv (on Debian and Ubuntu: apt install python3-venv)"
    fi
fi

# Nothing to do where this very request was met before, in this environment, for this setup.cfg and this script.
mkdir -p "$state"
request=$("$python" - "$extras" "$torch" setup.cfg tools/setup.sh <<'PY'
import hashlib, pathlib, sys
digest = hashlib.sha256(' '.join([sys.executable, sys.version, *sys.argv[1:3]]).encode())
for name in sys.argv[3:]:
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest()[:16])
PY
)
stamp=$state/$request
cores() { "$python" -c 'import os; print(len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count()))(0)))'; }
installed() { "$python" -c 'import importlib.util as u, sys; sys.exit(any(u.find_spec(n) is None for n in sys.argv[1:]))' "$@"; }

pip() { "$python" -m pip --disable-pip-version-check "$@"; }
quiet=-q
[ -t 1 ] && quiet=  # progress bars for people, silence for logs

if ! { [ -e "$stamp" ] && installed torch torch_geometric pyg_emu; }; then
    if ! "$python" -c '
import sys
from importlib.metadata import version
sys.exit(tuple(int(part) for part in version("torch").split("+")[0].split(".")[:2]) < (2, 11))' 2>/dev/null; then
        say "installing $torch (a few hundred megabytes)"
        # shellcheck disable=SC2086  # $torch may hold options beside the requirement
        pip install $quiet $torch
    fi
    say "installing pyg_emu${extras:+ with $extras}"
    "$python" -m pip --version >/dev/null 2>&1 || die "$python has no pip"
    pip install $quiet 'setuptools>=77' wheel
    # The torch that is there stays, whatever else asks for.
    version=$("$python" -c 'from importlib.metadata import version; print(version("torch"))')
    echo "torch==$version" >"$state/constraints.txt"
    pip install $quiet --no-build-isolation -c "$state/constraints.txt" -e ".${extras:+[$extras]}"
    touch "$stamp"
    [ "$scatter" = scatter ] || installed torch_scatter || say 'left out: torch-scatter, which is optional; make setup compiles it'
fi

# torch-scatter has no wheels for new versions of PyTorch. It is optional: PyG uses it where it is there.
failed=$state/scatter-failed
log=$state/torch-scatter.log

# Its setup.py turns ninja off, and would compile one file after another.
install_scatter() {
    local source=$state/torch-scatter limit=
    rm -rf "$source" && mkdir -p "$source"
    command -v timeout >/dev/null && limit="timeout $scatter_limit"
    pip install ninja \
        && pip download --no-deps --no-build-isolation --no-binary torch-scatter -d "$source" torch-scatter \
        && tar -xzf "$source"/*.tar.gz -C "$source" --strip-components 1 \
        && sed -i.original 's/use_ninja=False/use_ninja=True/' "$source/setup.py" \
        && PATH="$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH" MAX_JOBS=$(cores) \
            $limit "$python" -m pip --disable-pip-version-check install --no-build-isolation "./$source" \
        && "$python" -c 'import torch_scatter'
}

if [ "$scatter" != scatter ] || [ "${SCATTER:-1}" = 0 ] || installed torch_scatter \
    || { [ -e "$failed" ] && [ "${SCATTER:-}" != retry ]; }; then
    exit
fi
say "compiling torch-scatter, once (several minutes; SCATTER=0 leaves it out; log: $log)"
if install_scatter >"$log" 2>&1 </dev/null; then
    say 'torch-scatter is ready'
    rm -rf "$failed" "$state/torch-scatter"
else
    pip uninstall -q -y torch-scatter >/dev/null 2>&1 || true
    touch "$failed"
    say "torch-scatter could not be installed; going on without it, PyTorch's own kernels serve instead (see $log,"
    say 'mostly a missing C++ compiler; SCATTER=retry tries again)'
fi
