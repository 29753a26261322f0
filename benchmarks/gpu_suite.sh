#!/usr/bin/env bash
# All GPU work, unattended, in pieces of under nine minutes.
#
#   benchmarks/gpu_suite.sh list             names all pieces
#   benchmarks/gpu_suite.sh run PIECE...     runs some, and skips those that are recorded (--again: does not)
#   benchmarks/gpu_suite.sh all              runs all; a piece that fails does not keep the others from running
#   benchmarks/gpu_suite.sh --smoke          runs every piece, tiny, on the CPU, and keeps nothing
#
# nbfnet-train-emu and nbfnet-train-bce are hours long: each call is a piece that goes on where the last one stopped, on
# another machine too if $OUT/state is put into runs/gpu/state.
#
#   PYTHON          the interpreter (default: .venv's, or else python3)
#   PYG_EMU_DATA    the folder that holds FB15k-237, for the accuracy and nbfnet-train pieces (and WN18RR, for nbfnet-steps)
#   OUT             where results go (default: benchmarks/results/h200), and what nbfnet-train needs to go on elsewhere
#   PYG_EMU_COMMIT  the commit that is measured, where the copy of the tree has no history
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
limit=540  # seconds a piece may take
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
