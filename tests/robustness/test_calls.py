r"""Wrong calls of the public API: each works, or raises an error of this package that names the argument.

A case is a public callable, one of its arguments, and a value that the argument is replaced by. The other arguments are
valid ones, made anew for each case.
"""
from __future__ import annotations

import re
import sqlite3
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.nn import kge

import pyg_emu
from pyg_emu import evaluation, losses, models, ops
from pyg_emu.core.errors import PygEmuError
from pyg_emu.core.interaction import Dot
from pyg_emu.data import Batch, EdgeOrder, FactIndex, KGData, RelationCandidates, TripletLoader, load_dataset
from pyg_emu.data import io as data_io
from pyg_emu.evaluation import Metrics, evaluate, predict
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.runs import run_recipe
from pyg_emu.negatives import DeMixNegatives, EMUNegatives, adversarial
from pyg_emu.negatives import mutation as mutations
from pyg_emu.negatives import sampling as samplers
from pyg_emu.training import (
    Constant,
    CosineDecay,
    CSVLogger,
    GraphedStep,
    LinearDecay,
    MLflowLogger,
    RowAdagrad,
    RowAdam,
    SwitchOptimizer,
    TensorBoardLogger,
    Trainer,
    WandbLogger,
    trackers,
)
from tests.robustness.cases import Cases

#: Modules whose public names the walk has to cover.
MODULES = ('pyg_emu', 'pyg_emu.losses', 'pyg_emu.negatives', 'pyg_emu.negatives.sampling', 'pyg_emu.negatives.mutation',
           'pyg_emu.negatives.adversarial', 'pyg_emu.models', 'pyg_emu.training', 'pyg_emu.ops', 'pyg_emu.data',
           'pyg_emu.data.io', 'pyg_emu.evaluation')
#: Protocols, types, and records that the package returns: nothing to call. Base classes without a use of their own.
NOT_CALLED = {'LearningPart', 'Negatives', 'Sampler', 'Scorer', '__version__', 'process_group', 'LinkPredictionLoss',
              'Regularizer', 'ScoredBatch', 'BaseSampler', 'MaskMutation', 'Mutation', 'MutationContext', 'Rate',
              'Logger', 'RunInfo', 'Schedule', 'TrainResult', 'TrainingInterrupted', 'EMULossResult', 'EMUScores',
              'BoundaryRows', 'EdgeOrders', 'MaskPlan', 'MixPlan', 'Plan', 'RankCounts', 'SharedIndex', 'SoftLabels',
              'dataset_names', 'draw_plan',
              'parts_of', 'from_pykeen', 'Interaction', 'ScorerMixin', 'Classification',
              'from_pykeen_model'}

V, R, D, B, N = 12, 3, 4, 6, 5


#: Arguments that are functions of the user, whose exceptions are the user's own, and values that can be called.
CALLBACKS = {'regularizer', 'transform', 'criterion', 'validate', 'rate', 'mutation_rate', 'model', 'make', 'act',
             'generator'}
CALLABLE = {'function', 'module', 'graph', 'triples', 'plain data'}


class Target(NamedTuple):
    r"""A public callable, and valid arguments for it."""
    call: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]
    #: Arguments that are booleans: everything else has to be refused.
    flags: tuple[str, ...] = ()
    #: Other words by which a message may name an argument.
    words: tuple[str, ...] = ()
    #: Arguments that are not varied.
    fixed: tuple[str, ...] = ()


class _Unknown:
    def __repr__(self) -> str:
        return 'an object'


class _Own(pyg_emu.ScorerMixin):
    r"""A scorer of one's own, whose tables are indexed: a negative id would be read from their end."""
    interaction = Dot()

    def __init__(self) -> None:
        self.entities, self.relations = torch.rand(V, D), torch.rand(R, D)
        self.num_nodes, self.num_relations = V, R

    def entity_table(self) -> torch.Tensor:
        return self.entities

    def _query(self, known: torch.Tensor, rel_type: torch.Tensor, side: Any) -> torch.Tensor:
        return self.entities[known] * self.relations[rel_type]


def _values() -> dict[str, Any]:
    r"""What an argument is replaced by."""
    return {
        'None': None, 'True': True, 'False': False, 'text': 'x', 'no text': '', 'bytes': b'x', '-1': -1, '0': 0,
        'much': 10**30, '1e12': 10**12, '-1e30': -1e30, 'nan': float('nan'), 'inf': float('inf'), '2.5': 2.5,
        'complex': 1 + 2j, 'numpy int': np.int64(2), 'numpy float': np.float64(0.5), 'numpy nan': np.float32('nan'),
        'numpy bool': np.bool_(True), 'array': np.arange(6), 'array of text': np.array(['x', 'y']), 'list': [1, 'x'],
        'nested list': [[0, 1], [2]], 'no list': [], 'tuple': (0.5, ), 'dictionary': {'x': 1}, 'set': {1},
        'object': _Unknown(), 'class': torch.nn.Linear, 'own class': models.DistMult, 'function': lambda: 0,
        'module': torch.nn.Linear(2, 2), 'path': Path('does/not/exist'), 'frame': pd.DataFrame({'x': [1]}),
        'generator': torch.Generator(), 'scalar tensor': torch.tensor(1), 'no tensor': torch.empty(0),
        'ids out of range': torch.tensor([0, 99, 1, 0, 1, 2]), 'negative ids': torch.tensor([0, -1, 1, 0, 1, 2]),
        'short ids': torch.tensor([0, 1]), 'int32': torch.zeros(B, dtype=torch.int32), 'floats': torch.rand(B),
        'booleans': torch.ones(B, dtype=torch.bool), 'wide ids': torch.full((B, N), 99), 'rows': torch.rand(B, D),
        'narrow rows': torch.rand(B, D - 1), 'nan rows': torch.full((B, D), float('nan')),
        'half rows': torch.rand(B, D).half(), 'doubles': torch.rand(B, D).double(), 'cube': torch.rand(2, 3, 4),
        'complex tensor': torch.rand(B).to(torch.complex64), 'sparse tensor': torch.eye(3).to_sparse(),
        'meta ids': torch.zeros(B, dtype=torch.int64, device='meta'), 'meta rows': torch.rand(B, D, device='meta'),
        'graph': graph(), 'triples': triples(), 'plain data': pyg_emu_data(),
    }


def pyg_emu_data() -> Any:
    from torch_geometric.data import Data
    return Data(x=torch.rand(3, 2))


def graph() -> KGData:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(V, (2, 30), generator=generator)
    types = torch.randint(R, (30, ), generator=generator)
    return KGData(edges[:, :20], types[:20], V, R, valid_edge_index=edges[:, 20:25], valid_edge_type=types[20:25],
                  test_edge_index=edges[:, 25:], test_edge_type=types[25:], entity_labels=[f'e{i}' for i in range(V)],
                  relation_labels=[f'r{i}' for i in range(R)])


def hetero() -> HeteroData:
    data = HeteroData()
    data['a'].num_nodes = V
    data['a', 'to', 'a'].edge_index = graph().edge_index
    return data


def inverse() -> KGData:
    return graph().with_inverse_relations()


def triples(**changes: Any) -> Batch:
    generator = torch.Generator().manual_seed(1)
    fields: dict[str, Any] = {
        'head_index': torch.randint(V, (B, ), generator=generator), 'rel_type': torch.randint(R, (B, )),
        'tail_index': torch.randint(V, (B, ), generator=generator), 'side': 'tail', 'num_nodes': V, 'num_relations': R,
        'neg_index': torch.randint(V, (B, N), generator=generator), 'source': graph()}
    return Batch(**{**fields, **changes})


def model(**options: Any) -> models.DistMult:
    return models.DistMult(V, R, D, **options)


def nbfnet() -> models.NBFNet:
    return models.NBFNet(R, D, num_layers=2)


def _facts() -> pd.DataFrame:
    return pd.DataFrame({'head': ['a', 'b', 'c', 'a'], 'relation': ['r', 'r', 's', 's'], 'tail': ['b', 'c', 'a', 'c']})


def _calibration() -> Any:
    return evaluation.Calibration('platt', [1.0], [0.0], 0.0, [None] * R, 'tail', 0.5)


def _write(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ('train', 'valid', 'test'):
        (folder / f'{name}.txt').write_text('a\tr\tb\nb\tr\tc\n')
    return folder


def _write_rdf(path: Path) -> Path:
    path.write_text('<x:a> <x:r> <x:b> .\n<x:b> <x:r> "c" .\n')
    return path


def _write_database(path: Path) -> Path:
    if not path.exists():
        connection = sqlite3.connect(path)
        _facts().to_sql('facts', connection, index=False)
        connection.close()
    return path


def _trainer(**options: Any) -> Trainer:
    given = model()
    return Trainer(**{'model': given, 'criterion': losses.EMULoss(),
                      'loader': TripletLoader(graph(), 8, transform=EMUNegatives(3)),
                      'optimizer': torch.optim.Adagrad(given.parameters(), lr=0.1), 'num_steps': 1, 'progress': False,
                      **options})


def _run(folder: Path) -> Path:
    if not folder.exists():
        run_recipe(load_recipe({'dataset': 'given', 'model': {'hidden_channels': D}, 'num_steps': 1, 'batch_size': 20}),
                   folder, data=graph(), progress=False, test=False, device='cpu')
    return folder


def _schedule(kind: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **options: _trainer(schedule=kind(**options)).fit()


def _masked(kind: Callable[..., Any]) -> Callable[..., Any]:
    r"""Makes a mutation and lets a loss use it."""
    return lambda **options: losses.EMULoss()(model(), triples(mutation=kind(**options)))


def _mixed(**options: Any) -> Any:
    r"""Makes a DeMix mutation, lets it learn and lets a loss use it."""
    mutation, given = mutations.DeMixMutation(**options), model()
    batch = triples(mutation=mutation)
    mutation.update(batch, given)
    return losses.DeMixLoss()(given, batch)


def _begun(sampler: Any) -> Any:
    sampler.begin(model())
    return sampler


def _drawn() -> Any:
    r"""A KBGAN sampler that has drawn the negatives of a batch, the same ones each time."""
    sampler = _begun(adversarial.KBGANSampler())
    sampler.sample(triples(rel_type=torch.zeros(B, dtype=torch.int64)), N, torch.Generator().manual_seed(0))
    return sampler


def _loss(kind: Callable[..., Any], make: Callable[[], Any] = model) -> Callable[..., Any]:
    return lambda **options: kind(**options)(make(), triples())


def _nbfnet_loss(kind: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **options: kind(**options)(nbfnet(), triples(source=inverse()))


def _rank(value: Any) -> Any:
    return {'tail': value, 'head': value}


def _ids() -> dict[str, Any]:
    return {'head_index': torch.tensor([0, 1]), 'rel_type': torch.tensor([0, 1]), 'tail_index': torch.tensor([2, 3])}


_SIZES = {'num_nodes': V, 'num_relations': R, 'hidden_channels': D, 'margin': 1.0, 'sparse': False}
_FIELDS = ('head_index', 'rel_type', 'tail_index', 'side', 'num_nodes', 'num_relations', 'neg_index', 'neg_mask',
           'neg_vectors', 'weight', 'step', 'source', 'generator', 'mutation')


def _fields() -> dict[str, Any]:
    batch = triples(source=inverse())
    return {name: getattr(batch, name) for name in _FIELDS}


def _as_if_installed(make: Callable[..., Any]) -> Callable[..., Any]:
    def call(**arguments: Any) -> Any:
        with patch.object(trackers, '_check_installed'):
            return make(**arguments)
    return call


def targets(folder: Path) -> dict[str, Target]:
    found: dict[str, Target] = {}

    def add(name: str, call: Callable[..., Any], make: Callable[[], dict[str, Any]], **options: Any) -> None:
        found[name] = Target(call, make, **options)

    def add_scorer(name: str, make: Callable[[], Any]) -> None:
        r"""Adds the methods that a loop of a user's own calls."""
        ids = torch.tensor([0, 1])

        def vectors() -> dict[str, Any]:
            scorer = make()
            return {'query': scorer.query(ids, ids, 'tail').detach(), 'candidates': scorer.entity_table()[:6].detach()
                    .view(2, 3, -1)}

        add(f'{name}.query', lambda **rest: make().query(**rest), lambda: {'known': ids, 'rel_type': ids,
                                                                           'side': 'tail'})
        add(f'{name}.candidates', lambda **rest: make().candidates(**rest), lambda: {'index': ids})
        add(f'{name}.score', lambda **rest: make().score(**rest), vectors)
        add(f'{name}.score_all', lambda **rest: make().score_all(**rest), lambda: {'query': vectors()['query']})

    # Models
    for name in ('DistMult', 'ComplEx', 'RotatE', 'TransE', 'HAKE', 'KGEScorer'):
        extra = {'TransE': {'p_norm': 1}, 'HAKE': {'modulus_weight': 1.0, 'phase_weight': 1.0},
                 'KGEScorer': {'node_width': 4, 'rel_width': 4}}.get(name, {})
        add(name, getattr(models, name), lambda extra=extra: {**_SIZES, **extra}, flags=('sparse', ))
        if name == 'KGEScorer':
            continue
        kind = getattr(models, name)
        add(f'{name}.forward', lambda kind=kind, **ids: kind(V, R, D)(**ids), _ids)
        add(f'{name}.loss', lambda kind=kind, **ids: kind(V, R, D).loss(**ids), _ids)
        add_scorer(name, lambda kind=kind: kind(V, R, D))
    add('Reciprocal', models.Reciprocal, lambda: {'model': models.DistMult(V, 2 * R, D)})
    add('Reciprocal.forward', lambda **ids: models.Reciprocal(models.DistMult(V, 2 * R, D))(**ids), _ids)
    add_scorer('Reciprocal', lambda: models.Reciprocal(models.DistMult(V, 2 * R, D)))
    for layer in (kge.DistMult, kge.TransE, kge.ComplEx, kge.RotatE):
        add_scorer(f'as_scorer({layer.__name__})', lambda layer=layer: pyg_emu.as_scorer(layer(V, R, D)))
    add_scorer('ScorerMixin', _Own)
    add('RGCN', models.RGCN, lambda: {
        'num_nodes': V, 'num_relations': R, 'hidden_channels': D, 'decoder': 'DistMult', 'num_layers': 2,
        'num_bases': 2, 'num_blocks': None, 'dropout': 0.1, 'max_edges': 10, 'visible': 0.5, 'margin': 1.0})
    add('RGCN.for_graph', lambda **rest: models.RGCN(V, R, D).for_graph(**rest), lambda: {'data': graph()})
    add('RGCN.forward', lambda **rest: models.RGCN(V, R, D)(**rest), lambda: {'data': graph(), **_ids()})
    add_scorer('RGCN.for_graph', lambda: models.RGCN(V, R, D).for_graph(graph()))
    embedding = torch.nn.Embedding(V, D)
    add('GNNEncoder', lambda **rest: pyg_emu.GNNEncoder(**rest).for_graph(graph()), lambda: {
        'encoder': embedding, 'num_nodes': V, 'num_relations': R, 'encode': lambda table, data: table.weight,
        'hidden_channels': D}, words=('model', ))
    add_scorer('GNNEncoder.for_graph', lambda: pyg_emu.GNNEncoder(
        embedding, V, R, lambda table, data: table.weight, D).for_graph(graph()))
    add('NBFNet', models.NBFNet, lambda: {
        'num_relations': R, 'hidden_channels': D, 'num_layers': 2, 'out_channels': D, 'message': 'product',
        'aggregate': 'sum', 'shortcut': True, 'layer_norm': True, 'dependent': True, 'concat_hidden': False,
        'num_mlp_layers': 2, 'remove_one_hop': True, 'act': 'relu', 'bf16': False},
        flags=('shortcut', 'layer_norm', 'dependent', 'concat_hidden', 'remove_one_hop', 'bf16'))
    add('NBFNet.score', lambda **rest: nbfnet().score(**rest), lambda: {
        'graph': inverse(), 'known': torch.tensor([0, 1]), 'rel_type': torch.tensor([0, 1]),
        'candidates': torch.tensor([[1, 2], [3, 4]]), 'side': 'tail'}, words=('data', 'batch', 'candidates'))
    add('NBFNet.as_ranker', lambda **rest: nbfnet().as_ranker(**rest), lambda: {'graph': inverse()}, words=('data', ))
    add('load_nbfnet_pyg_state_dict', models.load_nbfnet_pyg_state_dict,
        lambda: {'model': nbfnet(), 'state': nbfnet().state_dict()})
    add('as_scorer', pyg_emu.as_scorer, lambda: {'model': model()})
    add('shard_entities', models.shard_entities, lambda: {'model': model()})
    add('map_entities', models.map_entities, lambda: {'model': model(sparse=True), 'folder': folder / 'scratch'})
    # Losses, each used on a batch
    weights = {'alpha': 0.5, 'beta': 0.5, 'regularizer': None}
    add('EMULoss', _loss(losses.EMULoss), lambda: {**weights, 'divide_by_negatives': True, 'mutate_vectors': False},
        flags=('divide_by_negatives', 'mutate_vectors'))
    add('EMUBCELoss', _loss(losses.EMUBCELoss), lambda: {
        **weights, 'adversarial_temperature': 1.0, 'mutate_vectors': False}, flags=('mutate_vectors', ))
    add('CrossEntropyLoss', _loss(losses.CrossEntropyLoss), lambda: {
        'regularizer': None, 'label_smoothing': 0.1, 'confidence_penalty': 0.1, 'mutate': False}, flags=('mutate', ))
    add('BCELoss', _loss(losses.BCELoss), lambda: {'adversarial_temperature': 1.0, 'regularizer': None,
                                                   'mutate': False}, flags=('mutate', ))
    add('MarginLoss', _loss(losses.MarginLoss), lambda: {
        'margin': 1.0, 'regularizer': None, 'mutate': False, 'alpha': 0.0, 'adversarial_temperature': 1.0},
        flags=('mutate', ))
    add('SelfAdversarialLoss', _loss(losses.SelfAdversarialLoss), lambda: {
        'temperature': 1.0, 'margin': 0.0, 'regularizer': None, 'mutate': False, 'alpha': 0.0}, flags=('mutate', ))
    add('DeMixLoss', _loss(losses.DeMixLoss), lambda: {'temperature': 1.0, 'divide_by_negatives': False,
                                                       'regularizer': None}, flags=('divide_by_negatives', ))
    add('OneVsAllLoss', _loss(losses.OneVsAllLoss), lambda: {'label_smoothing': 0.1, 'regularizer': None,
                                                             'block_size': None})
    add('OneVsAllEMULoss', _loss(losses.OneVsAllEMULoss), lambda: {
        **weights, 'mutation': None, 'divide_by_negatives': True, 'block_size': None}, flags=('divide_by_negatives', ))
    add('NBFNetBCELoss', _nbfnet_loss(losses.NBFNetBCELoss), lambda: {'adversarial_temperature': 0.5})
    add('NBFNetEMULoss', _nbfnet_loss(losses.NBFNetEMULoss), lambda: {'alpha': 1.0, 'beta': 0.5,
                                                                      'adversarial_temperature': 0.5})
    for name in ('L3Regularizer', 'N3Regularizer', 'LpRegularizer'):
        kind, extra = getattr(losses, name), {'p': 3.0} if name == 'LpRegularizer' else {}
        add(name, lambda kind=kind, **rest: kind(**rest)(model(), triples()), lambda extra=extra: {'weight': 0.1,
                                                                                                    **extra})
        add(f'{name}.forward', lambda kind=kind, extra=extra, **rest: kind(weight=0.1, **extra)(**rest),
            lambda: {'scorer': model(), 'batch': triples()}, words=('model', ))
    for name in ('EMULoss', 'EMUBCELoss', 'CrossEntropyLoss', 'BCELoss', 'MarginLoss', 'SelfAdversarialLoss',
                 'DeMixLoss', 'OneVsAllLoss', 'OneVsAllEMULoss', 'NBFNetBCELoss'):
        kind = getattr(losses, name)
        make = nbfnet if name.startswith('NBF') else model
        add(f'{name}.forward', lambda kind=kind, **rest: kind()(**rest),
            lambda make=make: {'model': make(), 'batch': triples(source=inverse())})
        add(f'{name} of a batch', lambda kind=kind, make=make, **fields: kind()(make(), triples(**fields)), _fields,
            words=('batch', ))
    # Batches, data and loaders
    add('Batch.of', lambda **rest: Batch.of(**rest), lambda: {'data': triples()}, words=('batch', ))
    add('Batch', lambda **fields: Batch.of(Batch(**fields)),
        _fields, words=('batch', ))
    add('KGData', lambda **rest: KGData(**rest).validate(), lambda: {
        **{key: graph()[key] for key in ('edge_index', 'edge_type', 'num_nodes', 'num_relations', 'valid_edge_index',
                                         'valid_edge_type', 'entity_labels', 'relation_labels')},
        'edge_weight': torch.ones(20), 'valid_edge_weight': torch.ones(5),
        'has_inverse_relations': False}, flags=('has_inverse_relations', ))
    for method, arguments in (('facts', {'split': 'train'}), ('fact_index', {'split': 'train'}),
                              ('num_facts', {'split': 'train'}), ('weights', {'split': 'train'}),
                              ('edges_by', {'key': 'target'}),
                              ('entity_id', {'label': 'e1'}), ('relation_id', {'label': 'r1'}),
                              ('has_integer_labels', {'kind': 'entity'}),
                              ('subgraph', {'subset': torch.tensor([0, 1, 2])}),
                              ('edge_subgraph', {'subset': torch.tensor([0, 1, 2])}),
                              ('validate', {'raise_on_error': True}), ('sort', {'sort_by_row': True})):
        add(f'KGData.{method}', lambda method=method, **rest: getattr(graph(), method)(**rest),
            lambda arguments=arguments: dict(arguments), words=('entity', 'relation'),
            flags=('raise_on_error', 'sort_by_row'))
    add('FactIndex', lambda **rest: FactIndex(**rest), lambda: {'facts': graph().facts(), 'num_nodes': V,
                                                                'num_relations': R})
    add('EdgeOrder.build', lambda **rest: EdgeOrder.build(**rest), lambda: {
        'edge_index': graph().edge_index, 'edge_type': graph().edge_type, 'key': 'target', 'num_nodes': V,
        'num_edge_types': R}, fixed=('edge_index', 'edge_type', 'num_nodes', 'num_edge_types', 'key'))
    add('TripletLoader', lambda **rest: next(iter(TripletLoader(**rest))), lambda: {
        'data': graph(), 'batch_size': 8, 'shuffle': True, 'transform': None, 'corrupt': 'both', 'split': 'train',
        'drop_last': False, 'seed': 0}, flags=('shuffle', 'drop_last'))
    add('TripletLoader.load_state_dict', lambda **rest: TripletLoader(graph(), 8).load_state_dict(**rest),
        lambda: {'state': TripletLoader(graph(), 8).state_dict()})
    add('load_dataset', load_dataset, lambda: {'source': str(_write(folder / 'graph')), 'root': None,
                                               'require_splits': ('train', 'valid', 'test'), 'delimiter': None,
                                               'header': False, 'comment': None, 'head': None, 'vocabulary': None})
    columns = {'head': None, 'relation': None, 'tail': None, 'weights': None, 'vocabulary': None, 'entities': None}
    add('from_dataframe', data_io.from_dataframe, lambda: {'df': _facts(), 'fractions': (0.5, 0.25, 0.25), 'seed': 0,
                                                           'split': None, **columns},
        words=('column', 'table'))
    add('from_file', data_io.from_file, lambda: {
        'path': _write(folder / 'graph') / 'train.txt', 'fractions': (1.0, 0.0, 0.0), 'seed': 0, 'format': None,
        'delimiter': None, 'header': False, 'comment': None, 'split': None, **columns},
        words=('column', 'relations', 'table'))
    add('from_file of RDF', data_io.from_file, lambda: {
        'path': _write_rdf(folder / 'graph.nq'), 'fractions': (1.0, 0.0, 0.0), 'literals': 'keep',
        'blank_nodes': None, 'graphs': None, 'prefixes': {'x': 'x:'}, **columns}, words=('column', 'relations'))
    add('from_sql', data_io.from_sql, lambda: {
        'source': _write_database(folder / 'graph.db'), 'table': 'facts', 'query': None, 'fractions': (1.0, 0.0, 0.0),
        'seed': 0, 'split': None, **columns}, words=('column', 'relations', 'database'))
    add('from_folder', data_io.from_folder, lambda: {
        'folder': _write(folder / 'graph'), 'require_splits': ('train', ), 'extra_files': (), 'format': None,
        'part': None, 'delimiter': None, 'header': False, 'comment': None, 'literals': None, 'graphs': None,
        'prefixes': None, **columns},
        words=('column', 'relations', 'table'))
    add('from_hetero', data_io.from_hetero, lambda: {'source': hetero(), 'fractions': (0.8, 0.1, 0.1), 'seed': 0,
                                                     'weights': None},
        words=('HeteroData', ))
    add('from_pyg', data_io.from_pyg, lambda: {'source': graph(), 'fractions': None, 'seed': 0, 'weights': None,
                                               'keep': ()},
        words=('PyG', 'edge_index', 'graphs', 'splits', 'Data'))
    add('write_fact_store', data_io.write_fact_store, lambda: {
        'source': graph(), 'folder': tempfile.mkdtemp(dir=folder), 'head': None, 'relation': None, 'tail': None,
        'num_nodes': None, 'num_relations': None}, words=('Parquet', 'graph'))
    add('open_fact_store', data_io.open_fact_store, lambda: {
        'folder': data_io.write_fact_store(graph(), tempfile.mkdtemp(dir=folder)), 'labels': True, 'verify': False,
        'vocabulary': None, 'entities': None},
        flags=('labels', 'verify'))
    add('to_dataframe', data_io.to_dataframe, lambda: {'data': graph()})
    add('to_folder', data_io.to_folder, lambda: {'data': graph(), 'folder': folder / 'written'})
    # Negatives
    add('EMUNegatives', lambda **rest: EMUNegatives(**rest)(triples()), lambda: {
        'num_negatives': 3, 'mutation_rate': 0.3, 'mask': 'bernoulli', 'shared': True, 'tied': False, 'sampler': None,
        'mutation': None}, flags=('shared', 'tied'))
    demix = {'delta': 0.5, 'beta': 1.0, 'mu': 1, 'ramp_epochs': 2.0, 'alpha': 1.5, 'warmup': 0, 'refresh_every': 1,
             'include_target': False, 'mix': True}
    add('DeMixNegatives', lambda **rest: DeMixNegatives(**rest)(triples()), lambda: {
        'num_negatives': 3, 'sampler': None, **demix}, flags=('include_target', 'mix'))
    add('DeMixMutation', _mixed, lambda: dict(demix), flags=('include_target', 'mix'))
    add('DeMixMutation.update', lambda **rest: mutations.DeMixMutation().update(**rest),
        lambda: {'batch': triples(), 'scorer': model()}, words=('model', ))
    add('DeMixMutation.refresh', lambda **rest: mutations.DeMixMutation().refresh(**rest),
        lambda: {'data': graph(), 'scorer': model()}, words=('model', ))
    add('EMUNegatives.forward', lambda **rest: EMUNegatives(3)(**rest), lambda: {'data': triples()}, words=('batch', ))
    for name, extra in (('UniformSampler', {}), ('StratifiedSampler', {}),
                        ('SANSSampler', {'num_hops': 1, 'mode': 'walk', 'walks': 3, 'seed': 0}),
                        ('SharedNegativesSampler', {'chunk_size': 2, 'sampler': None}),
                        ('NSCachingSampler', {'cache_size': 3, 'num_candidates': 3, 'lazy_update': 0, 'seed': 0}),
                        ('CandidateSampler', {'candidates': [1, 2, 5]}),
                        ('PopularitySampler', {'power': 0.75, 'per_relation': True, 'uniform': 0.1}),
                        ('TypedSampler', {'types': torch.arange(V) % 3, 'uniform': 0.1}),
                        ('ESNSLikeSampler', {'context': 'fact', 'uniform': 0.1}),
                        ('CANSLikeSampler', {'num_types': 3, 'num_rounds': 5, 'uniform': 0.1, 'seed': 0}),
                        ('MCNSSampler', {'alpha': 0.75, 'burn_in': 3, 'seed': 0})):
        kind = getattr(samplers, name)
        add(name, lambda kind=kind, **rest: kind(**rest).sample(triples(), 2),
            lambda extra=extra: {**extra, 'filtered': True, 'split': 'train'}, flags=('filtered', 'per_relation'))
        add(f'{name}.sample', lambda kind=kind, **rest: kind(filtered=True).sample(**rest),
            lambda: {'batch': triples(), 'num_negatives': 2, 'generator': None})
        if name not in ('UniformSampler', 'StratifiedSampler', 'SharedNegativesSampler'):
            add(f'{name}.update', lambda kind=kind, **rest: kind().update(**rest),
                lambda: {'batch': triples(), 'scorer': model()}, words=('model', ))
    add('MCNSSampler.begin', lambda **rest: samplers.MCNSSampler().begin(**rest), lambda: {'scorer': model()},
        words=('model', ))
    for name, extra in (('DANSSampler', {
            'pathways': 'both', 'film': True, 'from_entity': 1, 'from_relation': 1, 'sampler': None, 'film_weight': 0.1,
            'noise': 0.01, 'generator_steps': 1, 'discriminator_steps': 1, 'generator_lr': 0.1, 'discriminator_lr': 0.1,
            'max_grad_norm': 1.0, 'bound': 1.0, 'inverse_floor': 0.01, 'seed': 0}), ('KBGANSampler', {
                'generator': 'DistMult', 'hidden_channels': D, 'num_candidates': 3, 'lr': 0.1, 'baseline_decay': 0.5,
                'max_grad_norm': 1.0, 'filtered': True, 'split': 'train', 'seed': 0})):
        kind = getattr(adversarial, name)
        add(name, lambda kind=kind, **rest: _begun(kind(**rest)).sample(triples(), 4), lambda extra=extra: dict(extra),
            flags=('film', 'filtered'), fixed=('generator_steps', 'discriminator_steps'))
        add(f'{name}.sample', lambda kind=kind, **rest: _begun(kind()).sample(**rest),
            lambda: {'batch': triples(), 'num_negatives': 4, 'generator': None})
        add(f'{name}.begin', lambda kind=kind, **rest: kind().begin(**rest), lambda: {'scorer': model()},
            words=('model', ))
    add('DANSSampler.numbers', lambda **rest: adversarial.DANSSampler().numbers(**rest), lambda: {'num_negatives': 4})
    add('KBGANSampler.observe', lambda **rest: _drawn().observe(**rest), lambda: {
        'batch': triples(neg_index=_drawn()._drawn.index),
        'scored': pyg_emu.core.contract.ScoredBatch(torch.rand(B), torch.rand(B, N), None, None)})
    for name in ('BernoulliMask', 'ExactMask', 'BlockMask'):
        add(name, _masked(getattr(mutations, name)), lambda: {'rate': 0.5, 'shared': True, 'tied': False,
                                                              'num_masks': 4}, flags=('shared', 'tied'))
    add('ImportanceMask', _masked(mutations.ImportanceMask), lambda: {'rate': 0.5, 'first': 'largest', 'tied': False},
        flags=('tied', ))
    add('LearnedMask', _masked(mutations.LearnedMask), lambda: {
        'width': D, 'rate': 0.5, 'adversarial': False, 'shared': True, 'tied': False, 'num_masks': 4},
        flags=('shared', 'tied', 'adversarial'))
    add('Mixup', _masked(mutations.Mixup), lambda: {'alpha': 2.0, 'beta': 1.5})
    add('LinearSchedule', lambda **rest: mutations.LinearSchedule(**rest)(2), lambda: {'start': 0.1, 'end': 0.5,
                                                                                       'steps': 3})
    # Evaluation
    add('RelationCandidates', RelationCandidates, lambda: {'data': graph(), 'tails': {'r1': ['e1']},
                                                                       'heads': {'r0': [1, 2]}})
    add('RelationCandidates.from_dict', RelationCandidates.from_dict, lambda: {
        'value': {'types': torch.arange(V) % 3, 'split': 'all'}, 'data': graph()}, words=('candidates', ))
    add('evaluate', evaluate, lambda: {
        'model': model(), 'data': graph(), 'split': 'test', 'batch_size': 4, 'tie': 'realistic',
        'sides': ('tail', 'head'), 'ks': (1, 3), 'filter_splits': 'all', 'known_facts': None, 'candidates': None,
        'by': 'relation', 'max_triples': None, 'seed': 0, 'progress': False}, flags=('progress', ))
    add('predict', predict, lambda: {
        'model': model(), 'data': graph(), 'heads': 'e1', 'relations': 'r1', 'tails': None, 'k': 3,
        'exclude_known': False, 'known_facts': None, 'candidates': None, 'batch_size': 2}, flags=('exclude_known', ),
        words=('heads', 'tails'))
    labelled = {'split': 'valid', 'facts': None, 'negatives': None, 'num_negatives': 2, 'known_facts': None, 'seed': 0}
    add('score', evaluation.score, lambda: {
        'model': model(), 'data': graph(), 'facts': graph().facts(), 'side': 'tail', 'calibration': None,
        'batch_size': 2})
    add('embeddings', evaluation.embeddings, lambda: {'model': model(), 'data': graph(), 'kind': 'entity'})
    add('neighbors', evaluation.neighbors, lambda: {
        'model': model(), 'data': graph(), 'entities': 'e1', 'k': 2, 'similarity': 'dot', 'candidates': None})
    asked = pd.DataFrame({'head': ['e1'], 'relation': ['r1'], 'tail': ['?']})
    add('answer', evaluation.answer, lambda: {'model': model(), 'data': graph(), 'questions': asked, 'k': 2})
    rows = pd.DataFrame([[0.5, 1.0]], index=['a'])
    add('write_vectors', data_io.write_vectors, lambda: {'vectors': rows, 'path': folder / 'a.txt', 'format': None})
    add('read_vectors', data_io.read_vectors, lambda: {
        'path': data_io.write_vectors(rows, folder / 'b.txt'), 'format': None})
    add('warm_start', pyg_emu.warm_start, lambda: {
        'model': model(), 'data': graph(), 'entities': pd.DataFrame([[0.5] * D], index=['e1']),
        'relations': pd.DataFrame([[0.5] * D], index=['r1'])})
    add('write_table', data_io.write_table, lambda: {'frame': rows, 'argument': 'path', 'path': folder / 'a.csv'},
        fixed=('argument', ))
    add('calibrate', evaluation.calibrate, lambda: {
        'model': model(), 'data': graph(), 'method': 'platt', 'side': 'tail', **labelled}, words=('facts', ))
    add('classify', evaluation.classify, lambda: {
        'model': model(), 'data': graph(), 'calibration': _calibration(), **labelled}, words=('facts', ))
    add('Calibration.check', lambda **rest: _calibration().check(**rest), lambda: {'data': graph(), 'side': 'tail'})
    add('Calibration.save', lambda **rest: _calibration().save(**rest), lambda: {'path': folder / 'calibration.json'})
    add('Metrics', Metrics, lambda: {'ranks': evaluate(model(), graph()).ranks, 'tie': 'realistic', 'ks': (1, 3),
                                     'kinds': None, 'num_negatives': None, 'info': None, 'facts': None,
                                     'by': None})
    add('explain', pyg_emu.explain, lambda: {
        'model': nbfnet(), 'graph': inverse(), 'head': 'e1', 'relation': 'r1', 'tail': 'e2',
        'num_paths': 3, 'beam_width': 3, 'side': 'tail'}, words=('data', ))
    with ops.use_backend('torch'):
        paths = pyg_emu.explain(nbfnet(), inverse(), 'e1', 'r1', 'e2', 2)
    add('draw_paths', pyg_emu.draw_paths, lambda: {'paths': paths, 'file': None})
    # Training
    add('Trainer', lambda **rest: Trainer(**rest).fit(), lambda: {
        **{key: getattr(trainer, key) for trainer in (_trainer(), ) for key in ('model', 'criterion', 'loader',
                                                                               'optimizer')},
        'num_steps': 1, 'schedule': None, 'validate': None, 'metric': 'mrr', 'mode': 'max', 'evaluate_every': 1,
        'patience': None, 'max_seconds': None, 'restore_best': True, 'run_dir': None, 'overwrite': False,
        'checkpoint_every': 1, 'max_grad_norm': 1.0, 'log_every': 1, 'graph': False, 'tensorboard': False,
        'loggers': None, 'progress': False, 'name': 'train', 'recipe_hash': None},
        flags=('restore_best', 'overwrite', 'graph', 'tensorboard', 'progress'), words=('loss', ),
        fixed=('run_dir', ))
    add('GraphedStep', lambda **rest: GraphedStep(**rest)(next(iter(TripletLoader(graph(), 8)))), lambda: {
        **{key: getattr(trainer, key) for trainer in (_trainer(), ) for key in ('model', 'criterion', 'optimizer')},
        'transform': EMUNegatives(3), 'max_grad_norm': 1.0, 'warmup': 3, 'capture': False}, flags=('capture', ))
    add('Trainer.fit', lambda **rest: _trainer().fit(**rest), lambda: {'resume': 'auto'})
    add('RowAdagrad', RowAdagrad, lambda: {
        'params': list(model().parameters()), 'lr': 0.1, 'lr_decay': 0.0, 'weight_decay': 0.0,
        'initial_accumulator_value': 0.0, 'eps': 1e-10, 'foreach': None, 'maximize': False}, flags=('maximize', ))
    add('RowAdam', RowAdam, lambda: {'params': list(model().parameters()), 'lr': 0.1, 'betas': (0.9, 0.99),
                                     'eps': 1e-8, 'maximize': False}, flags=('maximize', ))
    add('Constant', _schedule(Constant), dict)
    add('LinearDecay', _schedule(LinearDecay), lambda: {'end_factor': 0.1})
    add('CosineDecay', _schedule(CosineDecay), lambda: {'end_factor': 0.1})
    add('SwitchOptimizer', _schedule(SwitchOptimizer), lambda: {'at': 0.5, 'factor': 0.1, 'make': None,
                                                                'sparse': False}, flags=('sparse', ))
    add('extend', lambda **rest: pyg_emu.extend(run_dir=tempfile.mkdtemp(dir=folder), device='cpu', **rest), lambda: {
        'run': _run(folder / 'run'), 'data': graph(), 'recipe': None, 'which': 'best', 'optimizer_state': 'keep',
        'vectors': None, 'resume': 'auto', 'progress': False, 'test': False, 'overwrite': False},
        words=('source', 'data', 'entities'), flags=('progress', 'overwrite'))
    add('CSVLogger', CSVLogger, lambda: {'path': folder / 'rows.csv'})
    add('TensorBoardLogger', TensorBoardLogger, lambda: {'path': folder / 'events'})
    add('WandbLogger', _as_if_installed(WandbLogger), lambda: {'project': 'mine'})
    add('MLflowLogger', _as_if_installed(MLflowLogger), lambda: {'experiment': 'mine', 'tracking_uri': None,
                                                                 'run_id': None})
    # Operators
    add('emu_score', ops.emu_score, lambda: {
        'query': torch.rand(B, D), 'positive': torch.rand(B, D), 'table': torch.rand(V, D),
        'index': torch.randint(V, (B, N)), 'plan': None, 'interaction': Dot(), 'vanilla': True, 'sparse_grad': False,
        'backend': None}, flags=('vanilla', 'sparse_grad'))
    add('SharedIndex in emu_score', lambda **rest: ops.emu_score(torch.rand(B, D), torch.rand(B, D), torch.rand(V, D),
                                                                 ops.SharedIndex(**rest)),
        lambda: {'index': torch.randint(V, (3, N)), 'chunk_size': 2, 'size': B, 'skipped': 0})
    plan = ops.MixPlan(torch.rand(B, N))
    add('mutate', ops.mutate, lambda: {'positive': torch.rand(B, D), 'negative': torch.rand(B, N, D), 'plan': plan,
                                       'partner': None})
    add('MixPlan in emu_score', lambda **rest: ops.emu_score(torch.rand(B, D), torch.rand(B, D), torch.rand(V, D),
                                                             torch.randint(V, (B, N)), ops.MixPlan(**rest)),
        lambda: {'weight': torch.rand(B, N), 'partner': None, 'label': None}, words=('plan', ))
    add('MaskPlan in emu_score', lambda **rest: ops.emu_score(torch.rand(B, D), torch.rand(B, D), torch.rand(V, D),
                                                              torch.randint(V, (B, N)), ops.MaskPlan(**rest)),
        lambda: {'bank': torch.rand(B, D) < 0.5, 'index': torch.arange(B), 'label': None}, words=('plan', ))
    add('emu_loss', ops.emu_loss, lambda: {
        'query': torch.rand(B, D), 'positive': torch.rand(B, D), 'table': torch.rand(V, D),
        'index': torch.randint(V, (B, N)), 'plan': None, 'labels': ops.SoftLabels(), 'vanilla_labels': ops.SoftLabels(),
        'interaction': Dot(), 'offset': 0.0, 'mask': None, 'sparse_grad': False, 'backend': None},
        flags=('sparse_grad', ))
    add('SoftLabels in emu_loss', lambda **rest: ops.emu_loss(torch.rand(B, D), torch.rand(B, D), torch.rand(V, D),
                                                              torch.randint(V, (B, N)), labels=ops.SoftLabels(**rest)),
        lambda: {'weight': 1.0, 'positive': 1.0, 'negative': 0.5}, words=('labels', ))
    add('all_entities_cross_entropy', ops.all_entities_cross_entropy, lambda: {
        'query': torch.rand(B, D), 'table': torch.rand(V, D), 'target': torch.randint(V, (B, )),
        'labels': [(1.0, 0.0)], 'positive': None, 'plan': None, 'interaction': Dot(), 'block_size': None,
        'weight': torch.ones(B)})
    ranked = {'filter_ptr': None, 'filter_index': None, 'row': None, 'backend': None}
    add('rank_counts', ops.rank_counts, lambda: {
        'query': torch.rand(B, D), 'table': torch.rand(V, D), 'target': torch.randint(V, (B, )), 'interaction': Dot(),
        'block_size': None, **ranked}, words=('target', 'query'))
    add('rank_from_scores', ops.rank_from_scores, lambda: {'scores': torch.rand(B, V),
                                                           'target': torch.randint(V, (B, )), **ranked},
        words=('target', 'query'))
    add('score_entities', ops.score_entities, lambda: {'query': torch.rand(B, D), 'table': torch.rand(V, D),
                                                       'interaction': Dot(), 'backend': None})
    edges = graph().edges_by
    add('relational_conv', ops.relational_conv, lambda: {
        'x': torch.rand(V, 2, D), 'relation': torch.rand(R, D),
        'edges': ops.EdgeOrders(edges('target'), edges('source'), edges('relation')), 'message': 'product',
        'aggregate': 'sum', 'boundary': None, 'edge_weight': None, 'edge_mask': None, 'backend': None})
    add('basis_sum', ops.basis_sum, lambda: {
        'x': torch.rand(V, D), 'coefficient': torch.rand(R, 2),
        'edges': ops.EdgeOrders(edges('target'), edges('source'), edges('relation')), 'edge_weight': None,
        'backend': None})
    add('block_sum', ops.block_sum, lambda: {
        'x': torch.rand(V, D), 'weight': torch.rand(R, 2, D // 2, 3),
        'edges': ops.EdgeOrders(edges('target'), edges('source'), edges('relation')), 'edge_weight': None})
    add('last_backend', ops.last_backend, lambda: {'operator': 'emu_score'})

    def use(name: Any) -> None:
        with ops.use_backend(name):
            pass

    add('use_backend', use, lambda: {'name': None}, words=('backend', ))
    return found


def failure(target: Target, argument: str, value: Any) -> Optional[str]:
    r"""What is wrong with the outcome of a call, or :obj:`None`."""
    arguments = dict(target.arguments())
    given, arguments[argument] = arguments[argument], value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            target.call(**arguments)
    except PygEmuError as error:
        text = str(error)
        named = any(re.search(rf'(^|\W|_){re.escape(word)}(\W|_|$)', text) for word in (argument, *target.words))
        named = named or isinstance(value, (str, Path)) and str(value) in text  # as the message about a file does
        return None if named else f'does not name the argument: {text}'
    except Exception as error:
        return f'{type(error).__name__}: {" ".join(str(error).split())}'
    if argument in target.flags and not isinstance(value, (bool, np.bool_)) and value is not given:
        return 'a flag that is no boolean passes'
    return None


def test_walk_covers_all_public_names(tmp_path: Path) -> None:
    public = {name for module in MODULES for name in import_module(module).__all__}
    called = {name.partition('.')[0] for name in targets(tmp_path)}
    assert public - called - NOT_CALLED == set()
    assert NOT_CALLED <= public


def test_wrong_calls(cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = targets(tmp_path)
    values = _values()
    calls = [(name, argument, kind) for name, target in found.items() for argument in target.arguments()
             for kind in values if argument not in target.fixed
             and not (argument in CALLBACKS and kind in CALLABLE) and (argument, kind) != ('num_steps', '1e12')]
    assert len(calls) > 3000
    with ops.use_backend('torch'):
        for target in found.values():
            target.call(**target.arguments())  # what is varied works
        for name, argument, kind in cases.chosen(calls, 300):
            with cases.attempt(f'{name}({argument}={kind})'):
                wrong = failure(found[name], argument, _values()[kind])
                assert wrong is None, wrong
