r"""What the documents say can be done: snippets run, commands are understood, links lead somewhere."""
from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import pyg_emu
from pyg_emu.experiments.cli.main import _parser
from pyg_emu.experiments.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*sorted(ROOT.glob('*.md')), ROOT / 'benchmarks' / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
SOURCES = sorted((ROOT / 'pyg_emu').rglob('*.py'))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', path.read_text(encoding='utf-8'), re.DOTALL | re.MULTILINE)


def shorter(code: str, old: str, new: str) -> str:
    assert code.count(old) == 1, f'{old!r} is not in the snippet any more'
    return code.replace(old, new)


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')
def test_snippets_run(graph_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('pykeen', reason='UMLS and Nations come with PyKEEN')
    loop, own_loop, trainer, own_facts = blocks(ROOT / 'README.md', 'python')
    names: dict[str, Any] = {}
    for code in (shorter(loop, 'range(50)', 'range(1)'), own_loop,
                 shorter(trainer, 'num_steps=500', 'num_steps=2, progress=False')):
        exec(code, names)
    assert len(names['batch'].neg_index) == 5216 % 500  # the loop over PyG's loader came to its end
    assert 'mrr' in capsys.readouterr().out

    offline = [line for line in own_facts.splitlines() if 'FB15k' not in line]
    assert len(offline) == len(own_facts.splitlines()) - 2  # what is left out downloads
    frame = pd.DataFrame([('a', 'r', 'b')] * 10, columns=['head', 'relation', 'tail'])
    exec(shorter('\n'.join(offline), 'path/to/folder', str(graph_folder)),
         {'load_dataset': pyg_emu.load_dataset, 'frame': frame})

    nbfnet, = blocks(ROOT / 'docs' / 'nbfnet.md', 'python')
    exec(shorter(nbfnet, 'NBFNet(data.num_relations)', 'NBFNet(data.num_relations, 4, 2)'), {})


@pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')
def test_snippets_of_rgcn_run(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('pykeen', reason='UMLS comes with PyKEEN')
    snippet, = blocks(ROOT / 'docs' / 'rgcn.md', 'python')
    exec(shorter(shorter(snippet, 'num_steps=300', 'num_steps=2, progress=False'), ', 100, ', ', 8, '), {})
    assert 'mrr' in capsys.readouterr().out


@pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')
def test_snippets_of_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('pyoxigraph')
    pytest.importorskip('sqlalchemy')
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    rdf, database, _ = blocks(ROOT / 'docs' / 'data.md', 'python')
    exec(rdf, names)
    exec(database, names)
    assert names['data'].entity_labels == ['ann', 'bob']
    settings, = blocks(ROOT / 'docs' / 'data.md', 'yaml')
    recipe = load_recipe(yaml.safe_load(settings))
    assert isinstance(recipe.inference, dict) and recipe.inference['part'] == 'inference'


def test_snippets_of_demix_run() -> None:
    pytest.importorskip('pykeen', reason='UMLS comes with PyKEEN')
    names: dict[str, Any] = {}
    loop, trainer = blocks(ROOT / 'docs' / 'demix.md', 'python')
    exec(shorter(shorter(loop, 'range(100)', 'range(2)'), 'warmup=8', 'warmup=1'), names)
    assert names['negatives'].mutation.active
    exec(shorter(shorter(trainer, 'num_steps=1000', 'num_steps=12, progress=False'), 'warmup=8', 'warmup=1'), names)
    settings, = blocks(ROOT / 'docs' / 'demix.md', 'yaml')
    assert load_recipe(yaml.safe_load(settings)).negatives['mutation']['name'] == 'demix'


def test_snippets_of_dans_run() -> None:
    pytest.importorskip('pykeen', reason='UMLS comes with PyKEEN')
    names: dict[str, Any] = {}
    loop, trainer, kbgan = blocks(ROOT / 'docs' / 'dans.md', 'python')
    exec(shorter(shorter(loop, 'range(20)', 'range(1)'), 'batch_size=500', 'batch_size=2000'), names)
    assert names['batch'].neg_vectors.shape[1:] == (10, 100) and len(names['sampler'].terms) == 6
    for code in (trainer, kbgan):
        exec(shorter(shorter(code, 'num_steps=200', 'num_steps=2, progress=False'), 'batch_size=500', 'batch_size=50'),
             names)
    assert names['sampler'].model is not None
    settings, = blocks(ROOT / 'docs' / 'dans.md', 'yaml')
    assert load_recipe(yaml.safe_load(settings)).negatives['sampler']['sampler']['filtered'] is True


def commands() -> list[tuple[str, str]]:
    lines = [(label(path), line) for path in DOCUMENTS for block in blocks(path, 'console') + blocks(path, 'bash')
             for line in block.splitlines()]
    overview = [(label(path), line) for path in (ROOT / 'pyg_emu' / 'experiments' / 'cli').glob('*.py')
                for line in path.read_text(encoding='utf-8').splitlines()]
    return [(place, line.strip()) for place, line in lines + overview
            if re.match(r' *(torchrun .* -m pyg_emu|pyg-emu) ', line)]


@pytest.mark.parametrize(('place', 'line'), commands())
def test_commands_are_understood(place: str, line: str) -> None:
    words = shlex.split(re.sub(r'^torchrun .* -m pyg_emu|^pyg-emu', '', line), comments=True)
    options = _parser().parse_args(words)
    recipe = getattr(options, 'recipe', None)
    if recipe is not None and not recipe.endswith('.yaml'):
        load_recipe(recipe)


def test_modules_that_are_run_are_there() -> None:
    found = {name for path in DOCUMENTS for name in re.findall(r'python -m ([\w.]+)', path.read_text(encoding='utf-8'))}
    assert {'pyg_emu', 'benchmarks.reproduce', 'examples.demo'} <= found
    assert [name for name in found if importlib.util.find_spec(name) is None] == []


def anchors(path: Path) -> set[str]:
    headings = re.findall(r'^#+ (.+)$', path.read_text(encoding='utf-8'), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('path', DOCUMENTS, ids=label)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r'\]\((?!https?:)([^)\s]+)\)', path.read_text(encoding='utf-8')):
        name, _, anchor = link.partition('#')
        target = path.parent / name if name else path
        assert target.exists(), f'{label(path)}: {link}'
        assert not anchor or anchor in anchors(target), f'{label(path)}: {link}'


def test_reference_lists_every_public_name() -> None:
    listed = (ROOT / 'docs' / 'reference.md').read_text(encoding='utf-8')
    assert sorted(name for name in pyg_emu.__all__ if f'`{name}`' not in listed) == ['__version__']


def test_examples_in_docstrings_are_python() -> None:
    found = 0
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                continue
            text = ast.get_docstring(node) or ''
            for code in re.findall(r'code-block:: python\n\n((?: .*\n?|\n)+)', text):
                ast.parse(textwrap.dedent(code), f'{label(path)}, {getattr(node, "name", "module")}')
                found += 1
    assert found > 15


def test_addresses_in_docstrings_are_whole() -> None:
    texts = {label(path): path.read_text(encoding='utf-8') for path in SOURCES}
    broken = [name for name, text in texts.items() if re.search(r'<https?://[^>]*\s[^>]*>', text)]
    assert not broken, 'a line was filled in the middle of an address'
