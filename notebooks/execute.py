r"""Executes the notebooks and stores their outputs without execution times and local paths.

.. code-block:: console

    python notebooks/execute.py                 # all notebooks
    python notebooks/execute.py 01_quickstart
"""
from __future__ import annotations

import argparse
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent


def execute(path: Path) -> None:
    r"""Executes a notebook in a separate kernel and writes it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails. The file is then unchanged.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1200, kernel_name='python3', record_timing=False).execute()
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == 'code':
            # Progress bars and warnings contain local paths.
            cell.outputs = [output for output in cell.outputs if output.get('name') != 'stderr']
    notebook.metadata = {'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
                         'language_info': {'name': 'python'}}
    partial = path.with_name(f'.{path.name}')
    nbformat.write(notebook, partial)
    partial.replace(path)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Execute the notebooks and store their outputs.')
    parser.add_argument('names', nargs='*', help='such as 01_quickstart (default: all)')
    known = {path.stem: path for path in sorted(FOLDER.glob('*.ipynb'))}
    for name in parser.parse_args().names or known:
        if name not in known:
            parser.error(f'names: expected one of {", ".join(known)}, got {name}')
        execute(known[name])
        print(f'{name}: executed')
