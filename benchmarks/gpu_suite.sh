#!/usr/bin/env bash
# Runs all tests and benchmarks on a GPU, unattended, in pieces of less than nine minutes.
#
#   benchmarks/gpu_suite.sh list             lists all pieces
#   benchmarks/gpu_suite.sh run PIECE...     runs the given pieces and skips recorded ones (--again: repeats them)
#   benchmarks/gpu_suite.sh all              runs all pieces, even if some of them fail
#   benchmarks/gpu_suite.sh --smoke          runs all pieces with tiny sizes on the CPU and records nothing
#
# nbfnet-train-emu and nbfnet-train-bce take hours. Each call runs a piece that continues from the last one. To continue
# on another machine, copy $OUT/state to runs/gpu/state.
#
#   PYTHON          the interpreter (default: .venv/bin/python, or else python3)
#   PYG_EMU_DATA    the folder that contains FB15k-237, for accuracy and nbfnet-train (and WN18RR, for nbfnet-steps)
#   OUT             the folder of the results and of the nbfnet-train state (default: benchmarks/results/h200)
#   PYG_EMU_COMMIT  the measured commit, for a copy of the working tree without a history
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
limit=540  # The time limit of a piece in seconds.
export PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-$PWD/.cache/numba}

suite() { "$python" -m benchmarks.gpu_suite "$@"; }

run() {
    local again=() failed=()
    if [ "${1:-}" = --again ]; then
        again=(--again)
        shift
    fi
    for piece in "$@"; do
        timeout --signal=INT --kill-after=20 "$limit" "$python" -m benchmarks.gpu_suite ${again[@]+"${again[@]}"} "$piece" ||
            failed+=("$piece")
    done
    if [ ${#failed[@]} -gt 0 ]; then
        printf 'gpu_suite: failed: %s\n' "${failed[*]}" >&2
        return 1
    fi
}

case "${1:-}" in
    list) suite --list ;;
    run) shift; run "$@" ;;
    all) shift; mapfile -t pieces < <(suite --list); run "$@" "${pieces[@]}" ;;
    --smoke) suite --smoke ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; [ "${1:-}" = --help ] ;;
esac
