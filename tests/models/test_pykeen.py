from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import KGData
from pyg_emu.models.pykeen import from_pykeen_model
from pyg_emu.models.reciprocal import Reciprocal

pytest.importorskip('pykeen')
LABELS, VERBS = ['ann', 'bob', 'cat', 'dan'], ['knows', 'likes']
FACTS = np.array([('ann', 'knows', 'bob'), ('cat', 'likes', 'dan'), ('bob', 'knows', 'cat')])


def make(name: str, inverse: bool = False, **options: Any) -> tuple[Any, Any]:
    from pykeen import models
    from pykeen.triples import TriplesFactory
    factory = TriplesFactory.from_labeled_triples(FACTS, create_inverse_triples=inverse)
    return getattr(models, name)(triples_factory=factory, embedding_dim=5, random_seed=0, **options), factory


@pytest.mark.parametrize('name, options', [
    ('DistMult', {}), ('ComplEx', {}), ('TransE', {'scoring_fct_norm': 1}), ('TransE', {'scoring_fct_norm': 2}),
    ('RotatE', {}),
])
def test_scores_are_those_of_pykeen(name: str, options: dict[str, Any]) -> None:
    theirs, factory = make(name, **options)
    triples = torch.cartesian_prod(torch.arange(4), torch.arange(2), torch.arange(4))
    expected = theirs.score_hrt(triples).squeeze(1).detach()
    torch.testing.assert_close(from_pykeen_model(theirs)(*triples.t()).detach(), expected)
    # Rows go to the ids that labels have in the graph.
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), entity_labels=LABELS[::-1], relation_labels=VERBS[::-1])
    ours = from_pykeen_model(theirs, data, factory)
    head, relation, tail = triples.t()
    torch.testing.assert_close(ours(3 - head, 1 - relation, 3 - tail).detach(), expected)


@pytest.mark.parametrize('name', ['DistMult', 'ComplEx', 'TransE'])
def test_inverse_relations_predict_heads(name: str) -> None:
    theirs, factory = make(name, inverse=True)
    theirs.eval()
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), entity_labels=LABELS[::-1], relation_labels=VERBS[::-1])
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(2))
    for ours, flip in ((from_pykeen_model(theirs), False), (from_pykeen_model(theirs, data, factory), True)):
        assert isinstance(ours, Reciprocal) and (ours.num_nodes, ours.num_relations) == (4, 2)
        known, relation = (3 - pairs[:, 0], 1 - pairs[:, 1]) if flip else pairs.unbind(1)
        for side, scores in (('tail', theirs.predict_t(pairs)), ('head', theirs.predict_h(pairs.flip(1)))):
            found = ours.offset + ours.score_all(ours.query(known, relation, side))
            torch.testing.assert_close((found.flip(1) if flip else found).detach(), scores.detach())


def test_what_cannot_be_taken() -> None:
    theirs, factory = make('DistMult')
    strangers = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), entity_labels=['ann', 'eve'],
                       relation_labels=['knows'])
    with pytest.raises(DataError, match="1 of the 2 entity labels.*'eve'"):
        from_pykeen_model(theirs, strangers, factory)
    with pytest.raises(ArgumentError, match='factory'):
        from_pykeen_model(theirs, strangers)
    with pytest.raises(ArgumentError, match='data'):
        from_pykeen_model(theirs, factory=factory)
    with pytest.raises(ArgumentError, match='RotatE.*p=1.*p=2'):
        from_pykeen_model(make('RotatE', inverse=True)[0])
    for model in (make('ERMLP')[0], torch.nn.Linear(2, 2), None):
        with pytest.raises(ArgumentError, match=type(model).__name__):
            from_pykeen_model(model)
