r"""Settings of Sphinx. The source folder is the root of the repository, so that relative links lead to the same files
here and on GitHub:

.. code-block:: console

    python -m sphinx -W -c docs . build/docs
"""
from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'docs' / '_extensions')]
os.environ.setdefault('TQDM_DISABLE', '1')

import pyg_emu  # noqa: E402

project = 'pyg_emu'
author = 'The pyg_emu authors'
version = release = pyg_emu.__version__

extensions = ['sphinx.ext.autodoc', 'sphinx.ext.autosummary', 'sphinx.ext.napoleon', 'myst_nb', 'public_names']
root_doc = 'docs/index'
include_patterns = ['*.md', 'docs/*', 'docs/api/*', 'notebooks/*', 'benchmarks/*.md']
exclude_patterns = ['.*', 'build', 'dist', 'demo', 'examples', 'pyg_emu', 'runs', 'tests', 'tools', '*.egg-info',
                    'benchmarks/results', 'benchmarks/recipes', 'docs/_*', '**/__pycache__', '**/.ipynb_checkpoints']

# Docstrings
autodoc_default_options = {'members': True, 'special-members': '__call__'}
autodoc_inherit_docstrings = False  # or else every forward() shows the documentation of torch.nn.Module
autodoc_member_order = 'bysource'
autosummary_generate = False
napoleon_numpy_docstring = False

# Pages and notebooks
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 4
nb_execution_mode = 'off'  # notebooks hold their outputs
nb_merge_streams = True

# Pages in HTML
html_theme = 'furo'
html_title = f'pyg_emu {release}'
html_extra_path = ['_extra']
html_copy_source = False
html_show_copyright = False
