r"""Reciprocal relations in recipes: made, trained, continued, opened, ranked and asked."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pyg_emu import KGData, predict
from pyg_emu.core.errors import RecipeError
from pyg_emu.evaluation.ranking import evaluate
from pyg_emu.experiments.build import build
from pyg_emu.experiments.names import class_names
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.runs import make_model, open_run, run_recipe
from pyg_emu.experiments.sections import reads_graph
from pyg_emu.models import ComplEx, DistMult, Reciprocal, TransE
from pyg_emu.training.checkpoint import model_fingerprint

SHALLOW = [name for name in class_names('model') if not reads_graph('model', name)]


@pytest.fixture
def data() -> KGData:
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randint(high, (140, ), generator=generator) for high in (12, 3, 12)]
    facts = torch.unique(torch.stack(columns, 1), dim=0)
    facts = facts[torch.randperm(len(facts), generator=generator)]
    train, valid, test = facts[:90], facts[90:105], facts[105:]
    return KGData(train[:, ::2].t().contiguous(), train[:, 1].contiguous(), 12, 3,
                  valid_edge_index=valid[:, ::2].t().contiguous(), valid_edge_type=valid[:, 1].contiguous(),
                  test_edge_index=test[:, ::2].t().contiguous(), test_edge_type=test[:, 1].contiguous(),
                  entity_labels=[f'e{number}' for number in range(12)], relation_labels=['r0', 'r1', 'r2'])


def recipe(**settings: Any) -> Recipe:
    return load_recipe({'dataset': 'unused', 'model': {'name': 'ComplEx', 'hidden_channels': 4, 'reciprocal': True},
                        'negatives': {'num_negatives': 3}, 'batch_size': 40, 'num_steps': 6, 'evaluate_every': 3,
                        **settings})


@pytest.mark.parametrize('name', SHALLOW)
def test_every_model_with_a_table_has_them(name: str, data: KGData) -> None:
    model = make_model(recipe(model={'name': name, 'hidden_channels': 4, 'reciprocal': True}), data)
    assert isinstance(model, Reciprocal) and type(model.model).__name__ == name
    assert model.num_relations == 3 and model.model.num_relations == 6
    inner = getattr(model.model, 'decoder', model.model)  # of an encoder
    assert inner.rel_emb.weight.size(0) == 6


@pytest.mark.parametrize('sparse', [False, True])
@pytest.mark.parametrize('loss', ['emu', 'one_vs_all_emu', 'bce'])
def test_trains_and_opens(loss: str, sparse: bool, data: KGData, tmp_path: Path) -> None:
    settings = {'model': {'name': 'ComplEx', 'hidden_channels': 4, 'reciprocal': True, 'sparse': sparse},
                'loss': {'name': loss, 'regularizer': {'name': 'n3', 'weight': 0.01}}}
    torch.manual_seed(0)
    before = make_model(recipe(**settings), data).state_dict()['model.rel_emb.weight']
    result = run_recipe(recipe(**settings), tmp_path, data=data, progress=False)
    assert result.test is not None
    # Both directions have been learnt: every row of the table of relations has moved.
    after = result.model.state_dict()['model.rel_emb.weight']
    assert bool(torch.any(after != before, dim=1).all())
    model, opened, found = open_run(tmp_path, data=data)
    assert isinstance(model, Reciprocal) and found == recipe(**settings)
    assert evaluate(model, opened, split='test')['mrr'] == result.test['mrr']


def test_heads_are_predicted_with_the_inverse(data: KGData, tmp_path: Path) -> None:
    model: Any = run_recipe(recipe(), tmp_path, data=data, progress=False).model
    known, relation = torch.tensor([3, 4]), torch.tensor([1, 2])
    heads = model.score_all(model.query(known, relation, 'head'))
    torch.testing.assert_close(heads, model.model.score_all(model.model.query(known, relation + 3, 'tail')))
    answers = predict(model, data, tails='e3', relations='r1', k=12)
    assert answers['head'].tolist() == [f'e{number}' for number in heads[0].argsort(descending=True).tolist()]


def test_goes_on_bit_for_bit(data: KGData, tmp_path: Path) -> None:
    whole = run_recipe(recipe(), tmp_path / 'whole', data=data, progress=False)
    run_recipe(recipe(num_steps=3), tmp_path / 'parts', data=data, progress=False)
    parts = run_recipe(recipe(), tmp_path / 'parts', data=data, progress=False)
    others = parts.model.state_dict()
    assert parts.train.steps == 6
    assert all(torch.equal(value, others[name]) for name, value in whole.model.state_dict().items())


def test_belongs_to_the_settings(data: KGData, tmp_path: Path) -> None:
    run_recipe(recipe(), tmp_path, data=data, progress=False)
    plain = recipe(model={'name': 'ComplEx', 'hidden_channels': 4})
    with pytest.raises(RecipeError, match='model.reciprocal: False.* True'):
        run_recipe(plain, tmp_path, data=data, progress=False)
    # Where nothing is said of it, recipes are what they were before there was such a setting.
    assert 'reciprocal' not in plain.decisive()['model'] and plain.model['reciprocal'] is False


def test_a_checkpoint_says_what_is_wrapped() -> None:
    kinds = [model_fingerprint(Reciprocal(kind(5, 4, 2)))['model'] for kind in (DistMult, TransE)]
    assert kinds == ['Reciprocal(DistMult)', 'Reciprocal(TransE)']
    assert model_fingerprint(ComplEx(5, 4, 2))['model'] == 'ComplEx'


def test_nothing_else_takes_it() -> None:
    with pytest.raises(RecipeError, match='reciprocal'):
        load_recipe({'dataset': 'unused', 'model': {'name': 'NBFNet', 'reciprocal': True},
                     'loss': {'name': 'nbfnet_emu'}})
    with pytest.raises(RecipeError, match='model.reciprocal: .*true.*false'):
        recipe(model={'name': 'ComplEx', 'hidden_channels': 4, 'reciprocal': 'yes'})
    assert not isinstance(build('model', {'name': 'DistMult', 'hidden_channels': 2, 'reciprocal': False}, num_nodes=2,
                                num_relations=1), Reciprocal)
