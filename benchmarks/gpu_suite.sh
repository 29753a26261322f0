#!/usr/bin/env bash
# Runs all tests and benchmarks on a GPU, unattended, in pieces of less than four minutes, those of most worth first.
#
#   benchmarks/gpu_suite.sh list                     lists all pieces with the seconds they are expected to take
#   benchmarks/gpu_suite.sh run [OPTIONS] PIECE...   runs the given pieces and skips recorded ones
#   benchmarks/gpu_suite.sh all [OPTIONS]            runs all pieces, even if some of them fail
#   benchmarks/gpu_suite.sh --smoke [PIECE...]       runs pieces with tiny sizes on the CPU and records nothing
#
# The beginning of a name stands for all pieces that begin with it: "run tests precision speed".
#
#   --budget TIME   ends after this time, such as 14m or 2h: starts no piece that is expected to take longer than what
#                   is left, and runs unfinished pieces again
#   --again         repeats recorded pieces; the run of nbfnet-train continues nevertheless
#
# A piece that has used its time is unfinished: what it measured is recorded, and its next call continues. The pieces of
# nbfnet-train belong to runs of hours. To continue those on another machine, copy $OUT/state to runs/gpu/state.
#
# The exit code is 0 if all pieces are recorded, 1 if some failed, or else 75 if some are unfinished or not started.
#
#   PYTHON          the interpreter (default: .venv/bin/python, or else python3)
#   PYG_EMU_DATA    the folder that contains FB15k-237, for accuracy and nbfnet-train (and WN18RR, for nbfnet-steps)
#   OUT             the folder of the results and of the nbfnet-train state (default: benchmarks/results/h200)
#   PYG_EMU_COMMIT  the measured commit, for a copy of the working tree without a history
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
limit=240  # The time limit of a piece in seconds.
again_code=75  # The exit code of a piece that is to be run again.
export PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-$PWD/.cache/numba}

suite() { "$python" -m benchmarks.gpu_suite "$@"; }

complain() { printf 'gpu_suite: %s\n' "$*" >&2; }

# Prints the seconds of a time such as 90, 90s, 14m or 2h.
seconds_of() {
    [[ $1 =~ ^([1-9][0-9]*)([smh]?)$ ]] || return
    case "${BASH_REMATCH[2]}" in
        m) echo $((60 * BASH_REMATCH[1])) ;;
        h) echo $((3600 * BASH_REMATCH[1])) ;;
        *) echo "${BASH_REMATCH[1]}" ;;
    esac
}

run() {
    local again='' budget='' rest code interrupted='' usage='expected run [--budget TIME] [--again] PIECE...'
    local listed name expected names=() failed=() unfinished=() left=()
    local -A seconds
    while [[ ${1:-} == -* ]]; do
        case "$1" in
            --again) again=--again; shift ;;
            --budget)
                budget=$(seconds_of "${2:-}") || { complain '--budget: expected a time such as 14m'; return 2; }
                shift 2
                ;;
            *) complain "$usage"; return 2 ;;
        esac
    done
    [ $# -gt 0 ] || { complain "$usage"; return 2; }
    [ "$1" != all ] || shift
    listed=$(suite --list "$@") || return 2
    while read -r name expected _; do
        names+=("$name")
        seconds[$name]=$expected
    done <<<"$listed"

    trap 'interrupted=yes' INT TERM
    while [ ${#names[@]} -gt 0 ]; do
        unfinished=()
        for name in "${names[@]}"; do
            [ -z "$interrupted" ] || break
            rest=$limit
            if [ -n "$budget" ]; then
                rest=$((budget - SECONDS < limit ? budget - SECONDS : limit))
                if [ "$rest" -lt "${seconds[$name]}" ]; then
                    left+=("$name")
                    continue
                fi
            fi
            code=0
            suite --limit "$rest" ${again:+"$again"} "$name" </dev/null || code=$?
            case $code in
                0) ;;
                "$again_code") unfinished+=("$name") ;;
                *) [ -n "$interrupted" ] || failed+=("$name") ;;
            esac
        done
        # A second call of a piece continues, also if the first one repeated it.
        again=''
        [ -n "$budget" ] && [ -z "$interrupted" ] || break
        names=(${unfinished[@]+"${unfinished[@]}"})
    done
    trap - INT TERM

    [ ${#failed[@]} -eq 0 ] || complain "failed: ${failed[*]}"
    [ ${#unfinished[@]} -eq 0 ] || complain "unfinished: ${unfinished[*]}"
    [ ${#left[@]} -eq 0 ] || complain "no time left for: ${left[*]}"
    [ -z "$interrupted" ] || return 130
    [ ${#failed[@]} -eq 0 ] || return 1
    [ ${#unfinished[@]} -eq 0 ] && [ ${#left[@]} -eq 0 ] || return "$again_code"
}

case "${1:-}" in
    list) shift; suite --list "$@" ;;
    run) shift; run "$@" ;;
    all) shift; run "$@" all ;;
    --smoke) shift; suite --smoke "$@" ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; [ "${1:-}" = --help ] ;;
esac
