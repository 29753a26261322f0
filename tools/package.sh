#!/usr/bin/env bash
# Builds wheel and sdist, installs the wheel into an environment without this checkout, and runs the quickstart from an
# empty folder: tools/package.sh PYTHON. Dependencies are those of PYTHON's environment; nothing is downloaded.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '[package] %s\n' "$*"; }

say 'building the source distribution, and the wheel from it'
"$python" -m build --no-isolation --outdir "$work/dist" . >"$work/build.log" 2>&1 || { tail -30 "$work/build.log" >&2; exit 1; }

say 'installing the wheel'
"$python" -m venv "$work/env"
"$work/env/bin/python" - "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" <<'PY'
import pathlib, sys, sysconfig
# A folder that a .pth file names is searched after the environment's own, and its .pth files (of this checkout) are not read.
pathlib.Path(sysconfig.get_path('purelib'), 'dependencies.pth').write_text(sys.argv[1] + '\n')
PY
"$work/env/bin/python" -m pip install --quiet --no-deps --no-index "$work"/dist/*.whl

say 'running the quickstart from there'
cp examples/quickstart.py "$work"
cd "$work"
env/bin/python -c "
import pathlib, pyg_emu
place = pathlib.Path(pyg_emu.__file__).resolve()
assert pathlib.Path('env').resolve() in place.parents, f'{place} is not the installed package'
assert (place.parent / 'py.typed').exists()"
env/bin/pyg-emu recipes list >recipes.txt
grep -q distmult-umls-emu recipes.txt
env/bin/python quickstart.py --epochs 3 2>/dev/null | grep -i mrr
say "$(cd dist && ls | tr '\n' ' ')work from an environment of their own"
