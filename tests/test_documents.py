r"""What the documents say can be done: snippets run, commands are understood, links lead somewhere."""
from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple

import pandas as pd
import pytest
import torch
import torch_geometric.loader
import torch_geometric.typing
import yaml
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import k_hop_subgraph

import pyg_emu
from pyg_emu.core.errors import DataWarning
from pyg_emu.data import io as data_io
from pyg_emu.experiments.cli.main import _parser
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import run_recipe

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*sorted(ROOT.glob('*.md')), ROOT / 'benchmarks' / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
SOURCES = sorted((ROOT / 'pyg_emu').rglob('*.py'))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', path.read_text(encoding='utf-8'), re.DOTALL | re.MULTILINE)


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


class Page(NamedTuple):
    r"""What the snippets of a page need to run in a test."""
    #: Parts of the snippets and what they are replaced by, for less training.
    changes: Mapping[str, str] = {}
    #: Words in lines that are left out, because these lines download something.
    without: tuple[str, ...] = ()
    #: Names that the text of the page introduces instead of the snippets, such as those of another page's loop.
    given: tuple[str, ...] = ()
    #: Parts of warnings that the snippets show on purpose.
    warns: tuple[str, ...] = ()
    #: Packages that may be missing.
    requires: tuple[str, ...] = ()
    #: Run folders that the snippets read.
    runs: tuple[str, ...] = ()
    #: What holds afterwards, in the names of the snippets.
    holds: str = 'True'


STEPS = 'num_steps=2, progress=False'
QUIET = "max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator='cpu'"
#: Pages that are not listed run as they are. A page has only those names that it imports, defines or is given.
PAGES = {
    'README.md': Page({'range(50)': 'range(1)', 'num_steps=500': STEPS, "'path/to/folder'": "'graph'"}, ('FB15k', ),
                      given=('frame', ), warns=('not among the candidates', ),
                      holds='len(batch.neg_index) == 5216 % 500'),  # the loop over PyG's loader came to its end
    'docs/answers.md': Page(given=('data', 'model'), warns=('not among the candidates', )),
    'docs/command-line.md': Page({'num_steps=10_000': STEPS, ', 200, ': ', 8, '}),
    'docs/dans.md': Page({'range(20)': 'range(1)', 'num_steps=200': STEPS, 'batch_size=500': 'batch_size=2000'},
                         holds='batch.neg_vectors.shape[1:] == (10, 100) and sampler.model is not None'),
    'docs/data.md': Page({'num_steps=100': STEPS, 'num_steps=200': STEPS}, requires=('pyoxigraph', 'sqlalchemy'),
                         warns=('hold a literal', "not read: 'trust'", 'training facts in reverse'),
                         holds='data.num_nodes == 155'),
    'docs/demix.md': Page({'range(100)': 'range(2)', 'num_steps=1000': STEPS, 'warmup=8': 'warmup=1'},
                          holds='negatives.mutation.active'),
    'docs/gpu.md': Page({'num_steps=500': STEPS}),
    'docs/large-graphs.md': Page({'num_steps=10_000': STEPS, ', 200, ': ', 8, '},
                                 holds='len([*model.parameters()]) == 2'),
    'docs/lightning.md': Page({'max_epochs=50, check_val_every_n_epoch=10': QUIET},
                              requires=('lightning', ), holds="float(trainer.callback_metrics['test_mrr']) > 0.05"),
    'docs/loggers.md': Page({'num_steps=500': STEPS, 'evaluate_every=100': 'evaluate_every=1'},
                            requires=('wandb.sdk', 'mlflow.tracking')),
    'docs/metrics.md': Page({'num_steps=200, progress=False': STEPS}, warns=('not among the candidates', )),
    'docs/nbfnet.md': Page({'num_steps=100': STEPS, '_relations, 16, 3)': '_relations, 4, 2)'},
                           warns=('training facts in reverse', )),
    'docs/own-model.md': Page({'num_steps=500': STEPS, 'range(20)': 'range(1)'}),
    'docs/pyg-loaders.md': Page({'range(20)': 'range(2)'}, holds='0 < len(part.n_id) <= 34 == train.num_nodes'),
    'docs/report.md': Page(requires=('plotly', 'jinja2', 'sklearn'), runs=('runs/umls', 'runs/umls-uniform'),
                           holds="report.path.name == 'comparison.html'"),
    'docs/reproducing.md': Page({'num_steps=100, progress=False': STEPS}),
    'docs/rgcn.md': Page({'num_steps=300': STEPS, ', 100, ': ', 8, '}),
    'docs/saving.md': Page({'num_steps=500': STEPS, "'num_steps': 200": "'num_steps': 2"},
                           holds='data.num_facts() == 5216 and labels.num_facts() == 0'),
}


@pytest.fixture(scope='module')
def trained() -> dict[str, Any]:
    r"""What snippets may be given: a model of UMLS, its data, and a table of facts."""
    pytest.importorskip('pykeen', reason='UMLS comes with PyKEEN')
    data = pyg_emu.load_dataset('UMLS')
    torch.manual_seed(0)
    model = pyg_emu.DistMult(data.num_nodes, data.num_relations, 8)
    facts = data_io.to_dataframe(data)
    return {'data': data, 'model': model, 'frame': facts[['head', 'relation', 'tail']].sample(1000, random_state=0)}


def write_files(names: Mapping[str, Any]) -> None:
    r"""The files that snippets name, in the working directory."""
    frame = names['frame']
    frame.to_csv('more_facts.tsv', sep='\t', index=False)
    frame.head(20).assign(tail='?').to_csv('questions.tsv', sep='\t', index=False)
    labelled = names['data'].facts('valid').tolist()
    entities, relations = names['data'].entity_labels, names['data'].relation_labels
    pd.DataFrame([(entities[0], relations[relation], entities[tail]) for _, relation, tail in labelled],
                 columns=['head', 'relation', 'tail']).drop_duplicates().to_csv('negatives.tsv', sep='\t', index=False)


class Neighbourhoods:
    r"""PyG's LinkNeighborLoader without its compiled sampler: whole neighbourhoods of the links, as many hops."""
    def __init__(self, data: Data, num_neighbors: list[int], edge_label_index: Tensor, batch_size: int,
                 shuffle: bool) -> None:
        self.data, self.hops, self.links, self.batch_size = data, len(num_neighbors), edge_label_index, batch_size

    def __iter__(self) -> Iterator[Data]:
        for chosen in torch.randperm(self.links.size(1)).split(self.batch_size):
            nodes, edges, place, _ = k_hop_subgraph(self.links[:, chosen].flatten(), self.hops, self.data.edge_index,
                                                    relabel_nodes=True, num_nodes=self.data.num_nodes)
            yield Data(x=self.data.x[nodes], edge_index=edges, n_id=nodes, input_id=chosen,
                       edge_label_index=place.view(2, -1))


@pytest.mark.parametrize('path', [path for path in DOCUMENTS if blocks(path, 'python')], ids=label)
def test_snippets_run(path: Path, trained: dict[str, Any], graph_folder: Path, tmp_path: Path,
                      monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGES.get(label(path), Page())
    prose = re.sub(r'^```.*?^```', '', path.read_text(encoding='utf-8'), flags=re.DOTALL | re.MULTILINE)
    assert [name for name in page.given if f'`{name}`' not in prose] == [], 'the text does not introduce the name'
    for package in page.requires:
        pytest.importorskip(package)
    if not (torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE):
        monkeypatch.setattr(torch_geometric.loader, 'LinkNeighborLoader', Neighbourhoods)
    monkeypatch.chdir(tmp_path)
    for variable in ('WANDB_MODE', 'MLFLOW_TRACKING_URI'):
        monkeypatch.delenv(variable, raising=False)
    write_files(trained)
    for run in page.runs:
        run_recipe(load_recipe({'base': 'distmult-umls-emu', 'num_steps': 2, 'model': {'hidden_channels': 4}}), run,
                   progress=False, device='cpu')
    code = '\n'.join(blocks(path, 'python'))
    for old, new in page.changes.items():
        assert old in code, f'{old!r} is not in the snippets any more'
        code = code.replace(old, new)
    for word in page.without:
        assert word in code, f'{word!r} is not in the snippets any more'
        code = '\n'.join(line for line in code.splitlines() if word not in line)
    names = {'__name__': '__main__', **{name: trained[name] for name in page.given}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        exec(compile(code, label(path), 'exec'), names)
    told = [str(warning.message) for warning in caught if issubclass(warning.category, DataWarning)]
    assert [text for text in told if not any(part in text for part in page.warns)] == []
    assert [part for part in page.warns if not any(part in text for text in told)] == []
    assert eval(page.holds, names)


#: Modules that recipes in the documents name.
OWN_MODULES = {
    'my_models': """
        from pyg_emu import DistMult
        class Shifted(DistMult):
            def __init__(self, num_nodes: int, num_relations: int, hidden_channels: int, shift: float = 0.0) -> None:
                super().__init__(num_nodes, num_relations, hidden_channels)
    """,
    'my_losses': """
        from pyg_emu.losses import LinkPredictionLoss, Regularizer
        class Hinge(LinkPredictionLoss):
            def __init__(self, gap: float = 1.0, regularizer=None) -> None:
                super().__init__(regularizer=regularizer)
        class Spread(Regularizer):
            def __init__(self, weight: float) -> None:
                self.weight = weight
            def __call__(self, scorer, batch):
                return self.weight * sum(table.square().mean() for table in scorer.embedding_weights())
    """,
}


@pytest.mark.parametrize('path', [path for path in DOCUMENTS if blocks(path, 'yaml')], ids=label)
def test_settings_are_understood(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in OWN_MODULES.items():
        (tmp_path / f'{name}.py').write_text(textwrap.dedent(text))
    try:
        for text in blocks(path, 'yaml'):
            # Pieces of recipes change uniform negatives.
            whole = text if 'dataset' in yaml.safe_load(text) else f'base: distmult-umls-uniform\n{text}'
            (tmp_path / 'recipe.yaml').write_text(whole)
            assert load_recipe(tmp_path / 'recipe.yaml').model['name']
    finally:
        for name in OWN_MODULES:
            sys.modules.pop(name, None)


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
