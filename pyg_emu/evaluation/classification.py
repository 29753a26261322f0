r"""Telling true facts from false ones: calibrated on one split, measured on another."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Literal, Mapping, NamedTuple, Optional

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.arguments import instance, one_of, positive_integer, random_seed, without_effect
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.core.memory import memory_reported
from pyg_emu.core.shared_index import expanded
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.io.frames import require
from pyg_emu.data.io.given import FactSource, false_facts_of, given_facts, known_facts_of
from pyg_emu.evaluation.calibration import METHODS, Calibration, Method, fit
from pyg_emu.evaluation.ranking import check_graph
from pyg_emu.evaluation.scoring import SCORED_SIDES, ScoredSide, fact_frame, fact_scores


def calibrate(
    model: Any,
    data: KGData,
    split: Optional[Literal['train', 'valid', 'test']] = None,
    *,
    method: Method = 'platt',
    facts: Optional[FactSource] = None,
    negatives: Optional[FactSource] = None,
    num_negatives: Optional[int] = None,
    known_facts: Optional[FactSource] = None,
    side: ScoredSide = 'tail',
    seed: Optional[int] = None,
) -> Calibration:
    r"""Fits probabilities, and a threshold for each relation, to scores of labelled facts.

    A threshold maximises the accuracy on the facts of its relation, as in the `"Reasoning With Neural Tensor Networks
    for Knowledge Base Completion" <https://papers.nips.cc/paper/5028>`_ paper. Probabilities assume the share of true
    facts that they were fitted on, which for drawn negatives is :math:`1 / (1 + n)`.

    .. code-block:: python

        calibration = calibrate(model, data)                                   # drawn negatives
        calibration = calibrate(model, data, negatives='valid_negatives.tsv')  # your own
        print(classify(model, data, calibration, negatives='test_negatives.tsv'))

    Args:
        model (Scorer or torch.nn.Module or callable): As in :func:`~pyg_emu.evaluate`.
        data (KGData): The facts, on the device of the model.
        split (str, optional): The true facts. (default: :obj:`"valid"`)
        method (str, optional): :obj:`"platt"` (a logistic curve) or :obj:`"isotonic"` (any rising steps; needs more
            facts). (default: :obj:`"platt"`)
        facts (torch.Tensor or pandas.DataFrame or str, optional): Labelled facts instead of those of :obj:`split` and
            of drawn ones: a table or file with a column :obj:`label`. (default: :obj:`None`)
        negatives (torch.Tensor or pandas.DataFrame or str, optional): The false facts. (default: :obj:`None`, drawn)
        num_negatives (int, optional): The number of false facts that are drawn for each true one. Half of them replace
            the tail and half the head, by a uniformly drawn entity such that the fact is in no split. (default:
            :obj:`1`)
        known_facts (torch.Tensor or pandas.DataFrame or str, optional): Further facts that are not drawn as false ones,
            see :func:`~pyg_emu.evaluate`. (default: :obj:`None`)
        side (str, optional): Which end is predicted, see :func:`~pyg_emu.evaluation.score`. (default: :obj:`"tail"`)
        seed (int, optional): The seed of the draws. (default: :obj:`0`)

    Raises:
        ArgumentError: If an argument is outside its domain or has no effect beside :obj:`facts` or :obj:`negatives`, or
            scikit-learn is not installed.
        DataError: If there are no true or no false facts.
    """
    check_graph(data)
    one_of('method', method, METHODS)
    one_of('side', side, SCORED_SIDES)
    given, truth = _labelled(data, facts, negatives, split, num_negatives, known_facts, seed, _Drawn('valid', 0))
    return fit(fact_scores(model, data, given, side), truth, given[:, 1], data.num_relations, method, side)


@dataclass(frozen=True)
class Classification(Mapping[str, Any]):
    r"""The result of :func:`classify`: a mapping from names to values that prints as a table.

    * :obj:`"accuracy"`, :obj:`"precision"`, :obj:`"recall"`, :obj:`"f1"`: of the decisions;
    * :obj:`"roc_auc"`, :obj:`"average_precision"`: of the scores over all relations, without thresholds;
    * :obj:`"brier"`: the mean squared difference of probability and truth;
    * :obj:`"positives"`, :obj:`"count"`: the numbers of true facts and of all.

    Args:
        metrics (dict): The metrics over all facts.
        relations (pandas.DataFrame): The same for each relation, the most frequent first.
        facts (pandas.DataFrame): The facts: :obj:`head`, :obj:`relation`, :obj:`tail`, :obj:`label`, :obj:`score`,
            :obj:`probability` and :obj:`predicted`.
    """
    metrics: dict[str, Any]
    relations: pd.DataFrame
    facts: pd.DataFrame

    def __getitem__(self, name: str) -> Any:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def to_dict(self) -> dict[str, Any]:
        r"""Returns plain values for JSON; NaN becomes :obj:`None`."""
        rows = self.relations.astype(object).where(self.relations.notna(), None).to_dict('index')
        plain = {name: None if isinstance(value, float) and np.isnan(value) else value
                 for name, value in self.metrics.items()}
        return {**plain, 'relations': {str(name): values for name, values in rows.items()}}

    def __str__(self) -> str:
        return self._frame().to_string(float_format=lambda value: f'{value:.4f}')

    __repr__ = __str__

    def _repr_html_(self) -> str:
        r"""The HTML representation for notebooks."""
        return str(self._frame().to_html(float_format=lambda value: f'{value:.4f}'))

    def _frame(self) -> pd.DataFrame:
        return pd.concat([pd.DataFrame(self.metrics, index=['all relations']), self.relations])


def classify(
    model: Any,
    data: KGData,
    calibration: Optional[Calibration] = None,
    split: Optional[Literal['train', 'valid', 'test']] = None,
    *,
    facts: Optional[FactSource] = None,
    negatives: Optional[FactSource] = None,
    num_negatives: Optional[int] = None,
    known_facts: Optional[FactSource] = None,
    seed: Optional[int] = None,
) -> Classification:
    r"""Triple classification: classifies facts as true or false by the thresholds of a calibration, and compares the
    decisions with the labels of the facts.

    Args:
        model (Scorer or torch.nn.Module or callable): As in :func:`~pyg_emu.evaluate`.
        data (KGData): The facts, on the device of the model.
        calibration (Calibration, optional): See :func:`calibrate`. (default: fitted on the validation facts with drawn
            negatives, none of which are :obj:`known_facts`)
        split (str, optional): The true facts. (default: :obj:`"test"`)
        facts (torch.Tensor or pandas.DataFrame or str, optional): Labelled facts instead, see :func:`calibrate`.
            (default: :obj:`None`)
        negatives (torch.Tensor or pandas.DataFrame or str, optional): The false facts. (default: :obj:`None`, drawn)
        num_negatives (int, optional): See :func:`calibrate`. (default: :obj:`1`)
        known_facts (torch.Tensor or pandas.DataFrame or str, optional): See :func:`calibrate`. (default: :obj:`None`)
        seed (int, optional): The seed of the draws. (default: :obj:`1`)

    Raises:
        ArgumentError: If an argument is outside its domain or has no effect beside :obj:`facts` or :obj:`negatives`, or
            scikit-learn is not installed.
        DataError: If there are no true or no false facts.
    """
    check_graph(data)
    if calibration is None:
        calibration = calibrate(model, data, known_facts=known_facts)
        known_facts = known_facts if facts is None and negatives is None else None  # which have served
    instance('calibration', calibration, Calibration, 'as calibrate(model, data) returns it')
    calibration.check(data)
    require('sklearn', 'triple classification', 'score facts without metrics')
    given, truth = _labelled(data, facts, negatives, split, num_negatives, known_facts, seed, _Drawn('test', 1))
    scores = fact_scores(model, data, given, calibration.side)
    columns = {'label': truth, 'score': scores, 'probability': calibration.probability(scores),
               'predicted': calibration.decide(scores, given[:, 1])}
    frame = fact_frame(data, given).assign(**{name: value.cpu().numpy() for name, value in columns.items()})
    # One pass of scikit-learn for each relation, as its curves are of one set of facts each.
    rows = {name: _measured(part) for name, part in frame.groupby('relation', sort=False)}
    relations = pd.DataFrame.from_dict(rows, orient='index').sort_values('count', ascending=False, kind='stable')
    return Classification(_measured(frame), relations, frame)


def _measured(frame: pd.DataFrame) -> dict[str, Any]:
    from sklearn import metrics

    truth, predicted = frame['label'].to_numpy(), frame['predicted'].to_numpy()
    options = {'average': 'binary', 'zero_division': 0.0}
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, predicted, **options)
    both = truth.any() and not truth.all()
    return {
        'accuracy': float((truth == predicted).mean()), 'precision': float(precision), 'recall': float(recall),
        'f1': float(f1), 'roc_auc': float(metrics.roc_auc_score(truth, frame['score'])) if both else float('nan'),
        'average_precision': float(metrics.average_precision_score(truth, frame['score'])) if both else float('nan'),
        'brier': float(((frame['probability'] - truth)**2).mean()), 'positives': int(truth.sum()), 'count': len(frame)}


class _Drawn(NamedTuple):
    r"""What is drawn unless arguments say otherwise."""
    split: Literal['valid', 'test']
    seed: int
    num_negatives: int = 1


def _labelled(data: KGData, facts: Optional[FactSource], negatives: Optional[FactSource], split: Any,
              num_negatives: Any, known_facts: Optional[FactSource], seed: Any, default: _Drawn
              ) -> tuple[Tensor, Tensor]:
    r"""Facts and whether each one is true."""
    if facts is not None and negatives is not None:
        raise ArgumentError('facts, negatives: expected one of the two, since facts are labelled, got both')
    drawing = {'num_negatives': num_negatives, 'known_facts': known_facts, 'seed': seed}
    if facts is not None:
        without_effect('facts', split=split, **drawing)
    elif negatives is not None:
        without_effect('negatives', **drawing)
    split = default.split if split is None else one_of('split', split, SPLITS)
    num_negatives = default.num_negatives if num_negatives is None else positive_integer('num_negatives', num_negatives)
    seed = default.seed if seed is None else random_seed('seed', seed)
    extra = known_facts_of(known_facts, data)
    if facts is not None:
        given = given_facts('facts', facts, data)
        if given.truth is None:
            raise ArgumentError("facts: expected a column 'label' that says which facts are true, got none; pass facts "
                                'that are all false as negatives')
        return given.facts, given.truth
    true = data.facts(split)
    if len(true) == 0:
        raise DataError(f'split: the split {split!r} has no facts to classify')
    if negatives is None:
        with memory_reported(f'drawing num_negatives={num_negatives} for each of {len(true)} facts',
                             'choose a smaller num_negatives'):
            false = _drawn(data, true, num_negatives, extra, seed)
    else:
        false = false_facts_of(negatives, data)
    truth = torch.arange(len(true) + len(false), device=true.device) < len(true)
    return torch.cat([true, false]), truth


def _drawn(data: KGData, true: Tensor, num_negatives: int, extra: Optional[Tensor], seed: int) -> Tensor:
    from pyg_emu.data.batch import Batch
    from pyg_emu.negatives.sampling import UniformSampler

    known = data
    if extra is not None:
        every = torch.cat([data.facts('all'), extra])
        known = KGData(every[:, [0, 2]].t().contiguous(), every[:, 1].contiguous(), data.num_nodes, data.num_relations)
    generator = torch.Generator(device=data.device).manual_seed(seed)
    repeated = true.repeat_interleave(num_negatives, dim=0)
    tails = torch.arange(len(repeated), device=data.device) % 2 == 0
    head, relation, tail = repeated.t().contiguous()
    batch = Batch(head, relation, tail, tails, num_nodes=data.num_nodes, num_relations=data.num_relations,
                  source=known)
    drawn = UniformSampler(filtered=True, split='all').sample(batch, 1, generator)
    entity = expanded(drawn.index)[:, 0]
    found = torch.stack([torch.where(tails, head, entity), relation, torch.where(tails, entity, tail)], 1)
    return found if drawn.mask is None else found[drawn.mask[:, 0]]
