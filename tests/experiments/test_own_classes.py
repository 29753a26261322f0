r"""Classes of the user's own in recipes, from training to the run folder and back."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch

from pyg_emu.core.errors import RecipeError
from pyg_emu.evaluation.prediction import predict
from pyg_emu.evaluation.ranking import evaluate
from pyg_emu.experiments.cli.main import main
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.runs import open_run, run_recipe
from pyg_emu.training.checkpoint import load_checkpoint

MODULE = """
import torch

from pyg_emu.core.contract import ScorerMixin
from pyg_emu.negatives.contract import Negatives
from pyg_emu.core.interaction import Dot, Interaction
from pyg_emu.losses import LinkPredictionLoss
from pyg_emu.models import DistMult
from pyg_emu.models.adapters import as_scorer
from pyg_emu.ops.plan import MixPlan
from pyg_emu.training import RowAdagrad, Schedule


class Shifted(DistMult):
    def __init__(self, *args, shift=0.5, dtype=torch.float32, **kwargs):
        super().__init__(*args, **kwargs)
        self.shift = shift

    def _query(self, known, rel_type, side):
        return super()._query(known, rel_type, side) + self.shift


class Plain(ScorerMixin, torch.nn.Module):
    interaction = Dot()

    def __init__(self, num_nodes, num_relations, width=6):
        super().__init__()
        self.num_nodes, self.num_relations = num_nodes, num_relations
        self.entity = torch.nn.Parameter(torch.randn(num_nodes, width))
        self.relation = torch.nn.Parameter(torch.randn(num_relations, width))
        if float(self.entity.sum()) != float(self.entity.sum()):
            raise ValueError('values are looked at')

    def entity_table(self):
        return self.entity

    def _query(self, known, rel_type, side):
        return self.entity[known] * self.relation[rel_type]

    def embedding_weights(self):
        yield self.entity
        yield self.relation


class Cubic(Interaction):
    def __call__(self, query, candidates):
        return -torch.linalg.vector_norm(query - candidates, ord=3, dim=-1)


class Apart(Plain):
    interaction = Cubic()

    def _query(self, known, rel_type, side):
        return self.entity[known] + (1 if side == 'tail' else -1) * self.relation[rel_type]


class Nearby:
    def __init__(self, distance: int = 2):
        if distance < 1:
            raise KeyError('distance')
        self.distance = distance

    def sample(self, batch, num_negatives, generator=None):
        shape = (batch.head_index.numel(), num_negatives)
        step = torch.randint(1, self.distance + 1, shape, generator=generator)
        return Negatives((batch.target_index.unsqueeze(1) + step) % batch.num_nodes)

    def update(self, batch, scorer):
        pass


class HalfMixup:
    def __init__(self, weight: float = 0.5, rate=1.0):
        self.weight, self.rate = weight, rate

    def plan(self, context):
        return MixPlan(context.query.new_full((context.query.size(0), context.num_negatives), self.weight))


class Steps:
    def __init__(self, every: int):
        self.every = every

    def __call__(self, step):
        return min(0.1 * (step // self.every), 1.0)


class Hinge(LinkPredictionLoss):
    def __init__(self, gap: float = 1.0, regularizer=None):
        super().__init__(mutate=True, regularizer=regularizer)
        self.gap = gap

    def loss(self, scored):
        return (self.gap - scored.positive.unsqueeze(1) + scored.hardest).relu().mean()


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Linear(1, 1)
        self.register_buffer('first', self.scale.weight.detach().clone())

    def forward(self, model, batch):
        scorer = as_scorer(model)
        scores = scorer.score_all(scorer.query(batch.known_index, batch.rel_type, batch.side))
        scores = self.scale(scores.unsqueeze(-1)).squeeze(-1)
        return torch.nn.functional.cross_entropy(scores, batch.target_index)


class Own(Scaled):
    def make_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Spread:
    def __init__(self, weight: float):
        self.weight = weight

    def __call__(self, scorer, batch=None):
        return self.weight * scorer.entity_table().var()


class Signed(RowAdagrad):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr=lr)


class Halving(Schedule):
    every_step = True
    follows_num_steps = False

    def __init__(self, after: int = 2):
        self.after, self.done = after, 0

    def step(self):
        self.done += 1
        if self.done == self.after:
            for group in self.optimizer.param_groups:
                group['lr'] *= 0.5

    def state_dict(self):
        return {'done': self.done}

    def load_state_dict(self, state):
        self.done = state['done']


class Eager(torch.nn.Module):
    pass


def function():
    pass
"""

#: Every kind at once.
OWN = {
    'model': {'name': 'own_parts.shelf:Shifted', 'hidden_channels': 4, 'shift': 0.25},
    'negatives': {'num_negatives': 3, 'sampler': {'name': 'own_parts.shelf:Nearby', 'distance': 3},
                  'mutation': {'name': 'own_parts.shelf:HalfMixup',
                               'rate': {'name': 'own_parts.shelf:Steps', 'every': 2}}},
    'loss': {'name': 'own_parts.shelf:Hinge', 'regularizer': {'name': 'own_parts.shelf:Spread', 'weight': 1e-3}},
    'optimizer': {'name': 'own_parts.shelf:Signed', 'lr': 0.05},
    'schedule': 'own_parts.shelf:Halving',
    'batch_size': 40, 'num_steps': 6, 'evaluate_every': 3,
}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph_folder: Path) -> Iterator[Path]:
    r"""A working directory with a graph and a module of the user's own, which is importable."""
    (tmp_path / 'own_parts').mkdir()
    (tmp_path / 'own_parts' / '__init__.py').write_text('')
    (tmp_path / 'own_parts' / 'shelf.py').write_text(MODULE)
    (tmp_path / 'own_parts' / 'broken.py').write_text('import no_such_package\n')
    (tmp_path / 'own_parts' / 'wrong.py').write_text('x = (\n')
    (tmp_path / 'own_parts' / 'exits.py').write_text('raise SystemExit("leaving")\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition('.')[0] == 'own_parts']:
        del sys.modules[name]


def recipe(**settings: Any) -> Recipe:
    return load_recipe({'dataset': 'graph', **OWN, **settings})


def test_own_classes_of_every_kind_train_resume_evaluate_and_predict(shelf: Path) -> None:
    whole = run_recipe(recipe(), shelf / 'whole', progress=False)
    assert type(whole.model).__name__ == 'Shifted' and whole.model.shift == 0.25
    assert whole.train.steps == 6 and whole.train.history['loss'].notna().all()

    run_recipe(recipe(num_steps=3), shelf / 'cut', progress=False)
    longer = run_recipe(recipe(), shelf / 'cut', progress=False)
    assert all(torch.equal(value, longer.model.state_dict()[name]) for name, value in whole.model.state_dict().items())

    recorded = load_recipe(shelf / 'whole' / 'recipe.yaml')
    assert recorded == recipe() and recorded.hash() == recipe().hash()
    assert recorded.model['name'] == 'own_parts.shelf:Shifted' and 'dtype' not in recorded.model
    assert recorded.negatives['mutation']['rate'] == {'name': 'own_parts.shelf:Steps', 'every': 2}
    model, data, _ = open_run(shelf / 'whole')
    assert evaluate(model, data, split='test')['mrr'] == whole.test['mrr']
    assert len(predict(model, data, heads='e1', relations='r0', k=3)) == 3


@pytest.mark.parametrize('name', ['Scaled', 'Own'])
def test_own_loss_learns(shelf: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    moved = []
    to = torch.nn.Module.to
    monkeypatch.setattr(torch.nn.Module, 'to', lambda self, *to_what: moved.append((type(self).__name__, *to_what))
                        or to(self, *to_what))
    made = recipe(loss=f'own_parts.shelf:{name}', negatives={'num_negatives': 3}, optimizer={'name': 'sgd', 'lr': 1e-3})
    run_recipe(made, shelf / 'run', progress=False, device='cpu')
    torch.rand(5)  # The parameters of the loss depend on the seed of the recipe alone.
    run_recipe(made, shelf / 'again', progress=False, device='cpu')
    assert (name, 'cpu') in moved
    one, other = (load_checkpoint(shelf / run / 'last.pt')['parts']['criterion'] for run in ('run', 'again'))
    assert not torch.equal(one['scale.weight'], one['first'])
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize('loss', ['emu', 'one_vs_all_emu'])
def test_own_interaction_trains_ranks_and_predicts_by_its_own_formula(shelf: Path, loss: str) -> None:
    settings = {'dataset': 'graph', 'model': 'own_parts.shelf:Apart', 'negatives': {'num_negatives': 3}, 'loss': loss,
                'batch_size': 40, 'num_steps': 30, 'evaluate_every': 10}
    result = run_recipe(load_recipe(settings), shelf / 'run', progress=False)
    assert result.train.history['loss'].iloc[-1] < result.train.history['loss'].iloc[0]

    model, data, _ = open_run(shelf / 'run')
    triples = data.facts('test')
    entity, relation = model.entity.detach(), model.relation.detach()
    known = {tuple(fact) for fact in data.facts('all').tolist()}
    reciprocal = []
    for head, kind, tail in triples.tolist():
        scores = -(entity[head] + relation[kind] - entity).abs().pow(3).sum(dim=1).pow(1 / 3)
        rivals = [e for e in range(data.num_nodes) if e == tail or (head, kind, e) not in known]
        reciprocal.append(1.0 / (1 + sum(bool(scores[e] > scores[tail]) for e in rivals)))
    assert evaluate(model, data, split='test')['tail.mrr'] == pytest.approx(sum(reciprocal) / len(reciprocal))
    answers = predict(model, data, heads='e1', relations='r0', k=3)
    scores = -(entity[data.entity_id('e1')] + relation[data.relation_id('r0')] - entity).abs().pow(3).sum(1).pow(1 / 3)
    assert answers['score'].tolist() == pytest.approx(scores.sort(descending=True).values[:3].tolist(), rel=1e-5)


@pytest.mark.parametrize('settings', [
    {'model': 'own_parts.shelf:Plain'},
    {'model': {'name': 'own_parts.shelf:Plain', 'reciprocal': True}},
    {'model': {'name': 'torch_geometric.nn:TransE', 'hidden_channels': 4}},
    {'model': {'name': 'own_parts.shelf:Shifted', 'hidden_channels': 4, 'sparse': True}},
    {'negatives': {'num_negatives': 3, 'mutation_rate': {'name': 'own_parts.shelf:Steps', 'every': 1}}},
    {'optimizer': 'torch.optim:NAdam'},
], ids=str)
def test_own_classes_among_those_of_the_package(shelf: Path, settings: dict[str, Any]) -> None:
    small = {'dataset': 'graph', 'model': {'hidden_channels': 4}, 'negatives': {'num_negatives': 3}, 'batch_size': 40,
             'num_steps': 4, 'evaluate_every': 2}
    result = run_recipe(load_recipe({**small, **settings}), progress=False)
    assert result.test is not None and 0.0 < result.test['mrr'] <= 1.0


def test_settings_over_a_base(shelf: Path) -> None:
    (shelf / 'own.yaml').write_text('base: distmult-fb15k237-uniform\nmodel: own_parts.shelf:Plain\n')
    found = load_recipe('own.yaml')
    assert found.model == {'name': 'own_parts.shelf:Plain', 'width': 6, 'reciprocal': False}
    assert found.loss['regularizer']['name'] == 'l3', 'a loss whose name does not change'


@pytest.mark.parametrize('text, facts', [
    ('model: own_parts.absent:Plain\n', ['own_parts.absent']),
    ('model: own_parts.broken:Plain\n', ['own_parts.broken', 'no_such_package']),
    ('model: own_parts.wrong:Plain\n', ['own_parts.wrong', 'SyntaxError']),
    ('model: own_parts.exits:Plain\n', ['own_parts.exits', 'leaving']),
    ('model: own_parts.shelf:Plane\n', ['Plane', "'Plain'", 'shelf.py']),
    ('model: own_parts.shelf:function\n', ['own_parts.shelf:function', 'function']),
    ('model: own_parts.shelf:Eager\n', ['own_parts.shelf:Eager', 'query', 'entity_table']),
    ('model: {name: own_parts.shelf:Plain, width: -1}\n', ['own_parts.shelf:Plain']),
    ('model: {name: own_parts.shelf:Plain, wide: 1}\n', ['model.wide', 'model.width']),
    ('negatives: {sampler: own_parts.shelf:HalfMixup}\n', ['own_parts.shelf:HalfMixup', 'sample']),
    ('negatives: {sampler: {name: own_parts.shelf:Nearby, distance: 0}}\n', ['own_parts.shelf:Nearby', 'KeyError']),
    ('negatives: {sampler: {name: own_parts.shelf:Nearby, distance: 0.5}}\n', ['distance', 'integer', '0.5']),
    ('negatives: {mutation: own_parts.shelf:Nearby}\n', ['own_parts.shelf:Nearby', 'plan']),
    ('negatives: {mutation_rate: {name: own_parts.shelf:Steps}}\n', ['negatives.mutation_rate.every']),
    ('loss: own_parts.shelf:Shifted\n', ['own_parts.shelf:Shifted', 'model, batch']),
    ('loss: {regularizer: own_parts.shelf:Nearby}\n', ['own_parts.shelf:Nearby', 'scorer, batch']),
    ('optimizer: own_parts.shelf:Plain\n', ['own_parts.shelf:Plain', 'Optimizer']),
    ('schedule: own_parts.shelf:Steps\n', ['own_parts.shelf:Steps', 'Schedule']),
    ('schedule: {name: own_parts.shelf:Halving, after: x}\n', ['schedule.after', 'integer']),
])
def test_bad_classes_are_named_by_line(shelf: Path, text: str, facts: list[str]) -> None:
    (shelf / 'bad.yaml').write_text(f'dataset: graph\n{text}')
    with pytest.raises(RecipeError) as caught:
        load_recipe('bad.yaml')
    message = str(caught.value)
    assert message.startswith('bad.yaml:2: ') and all(fact in message for fact in facts) and '\n' not in message


def test_on_the_command_line(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ['--data', 'graph', '--run-dir', 'run', '--batch-size', '40', '--steps', '4', '--evaluate-every', '2',
             '--quiet', '--device', 'cpu', '--negatives', '3']
    # A process of its own: only the working directory leads to the module.
    path = os.pathsep.join(entry for entry in sys.path if entry and Path(entry).resolve() != shelf.resolve())
    script = 'import sys; sys.path.remove(""); from pyg_emu.experiments.cli.main import main; sys.exit(main())'
    done = subprocess.run([sys.executable, '-c', script, 'train', '--model', 'own_parts.shelf:Plain', *flags],
                          capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': path})
    assert done.returncode == 0, done.stderr
    recorded = json.loads(Path('run/metrics.json').read_text())
    assert main(['evaluate', 'run', '--quiet', '--json', '--device', 'cpu']) == 0
    assert json.loads(capsys.readouterr().out) == recorded['test']
    assert main(['predict', 'run', '--head', 'e1', '--relation', 'r0', '--csv', '--device', 'cpu']) == 0
    capsys.readouterr()
    (shelf / 'own_parts' / 'shelf.py').rename(shelf / 'own_parts' / 'moved.py')
    for name in [name for name in sys.modules if name.partition('.')[0] == 'own_parts']:
        del sys.modules[name]
    assert main(['evaluate', 'run', '--quiet']) == 2
    error = capsys.readouterr().err
    assert 'own_parts.shelf' in error and 'recipe.yaml:' in error and error.count('\n') == 1


def test_tuning(shelf: Path) -> None:
    optuna = pytest.importorskip('optuna')
    from pyg_emu.experiments.tuning import default_space, load_space, tune

    space = load_space({'loss.gap': {'low': 0.5, 'high': 2.0}, 'negatives.sampler.distance': {'low': 1, 'high': 3}})
    found = tune(recipe(), shelf / 'study', space, trials=2, progress=False, device='cpu')
    assert found.recipe.loss['name'] == 'own_parts.shelf:Hinge' and 0.5 <= found.recipe.loss['gap'] <= 2.0
    assert load_recipe(shelf / 'study' / 'best.yaml') == found.recipe and optuna is not None
    with pytest.raises(RecipeError) as caught:
        default_space(recipe())
    assert 'own_parts.shelf:Hinge' in str(caught.value)
