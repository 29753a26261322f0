r"""Executes the notebooks and keeps their outputs, without times and names that say where that was.

.. code-block:: console

    python notebooks/execute.py                 # all of them
    python notebooks/execute.py 01_quickstart
"""
from __future__ import annotations

import argparse
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent


def execute(path: Path) -> None:
    r"""Executes a notebook in a kernel of its own, and writes it with what came out.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails; the file stays as it is.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name='python3', record_timing=False).execute()
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == 'code':
            # Progress and warnings, which name files of the machine.
            cell.outputs = [output for output in cell.outputs if output.get('name') != 'stderr']
    notebook.metadata = {'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
                         'language_info': {'name': 'python'}}
    partial = path.with_name(f'.{path.name}')
    nbformat.write(notebook, partial)
    partial.replace(path)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Execute the notebooks and keep their outputs.')
    parser.add_argument('names', nargs='*', help='such as 01_quickstart (default: all)')
    known = {path.stem: path for path in sorted(FOLDER.glob('*.ipynb'))}
    for name in parser.parse_args().names or known:
        if name not in known:
            parser.error(f'{name}: no such notebook; there are {", ".join(known)}')
        execute(known[name])
        print(f'{name}: executed')
