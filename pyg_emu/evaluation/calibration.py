r"""From scores to probabilities, and to decisions about facts by a threshold for each relation."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Optional, Union

import numpy as np
import torch
from torch import Tensor

from pyg_emu.core.arguments import file_path, ids_below, ids_in, instance, kind_of, on_device, one_of, tensors
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError
from pyg_emu.core.files import atomic_write, read_bytes
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.frames import require

Method = Literal['platt', 'isotonic']
METHODS = ('platt', 'isotonic')


@dataclass(frozen=True)
class Calibration:
    r"""A monotone map from scores to probabilities, and a threshold for each relation.
    :func:`~pyg_emu.evaluation.calibrate` makes one.

    Args:
        method (str): :obj:`"platt"` or :obj:`"isotonic"`.
        points (list of float): The slope for Platt scaling, or the scores of the steps for isotonic regression.
        values (list of float): The intercept, or the probabilities at these scores.
        threshold (float): The score from which a fact is taken as true, over all relations.
        thresholds (list of float, optional): That of each relation; :obj:`None` for a relation that had no labelled
            facts, to which :obj:`threshold` applies.
        side (str): The side by which facts were scored, see :func:`~pyg_emu.evaluation.score`.
        positive_share (float): The share of true facts among those it was fitted on, which probabilities assume.
        weights (str, optional): The digest of the weights of the model, if it was made from a run folder.
            (default: :obj:`None`)
    """
    method: Method
    points: list[float]
    values: list[float]
    threshold: float
    thresholds: list[Optional[float]]
    side: Literal['tail', 'head', 'both']
    positive_share: float
    weights: Optional[str] = None

    def probability(self, scores: Tensor) -> Tensor:
        r"""Returns the probability that facts with these scores are true. dtype: float64."""
        tensors(scores=scores)
        values = scores.double().cpu().numpy()
        if self.method == 'platt':
            found = 1 / (1 + np.exp(-np.clip(self.points[0] * values + self.values[0], -700, 700)))
        else:
            found = np.interp(values, self.points, self.values)
        return torch.from_numpy(np.asarray(found)).to(scores.device)

    def decide(self, scores: Tensor, rel_type: Tensor) -> Tensor:
        r"""Returns which facts are taken as true: those that score at least the threshold of their relation.

        Args:
            scores (torch.Tensor): The scores. shape: :obj:`(F,)`.
            rel_type (torch.Tensor): The relations. shape: :obj:`(F,)`.

        Raises:
            ArgumentError: If the shapes differ, or a relation is out of range.
        """
        tensors(scores=scores)
        ids_below('rel_type', ids_in('rel_type', rel_type, None), len(self.thresholds), 'relations', wait=True)
        if scores.is_complex() or scores.shape != rel_type.shape:
            raise ArgumentError(f'scores: expected real numbers of the shape of rel_type, {tuple(rel_type.shape)}, got '
                                f'{kind_of(scores)}')
        on_device('rel_type', rel_type, scores.device, 'scores')
        bound = [self.threshold if value is None else value for value in self.thresholds]
        return scores.double() >= torch.tensor(bound, dtype=torch.float64, device=scores.device)[rel_type]

    def check(self, data: KGData, side: Optional[str] = None) -> None:
        r"""Checks that it was made for a graph with as many relations, and for a side.

        Raises:
            ArgumentError: If it was not.
        """
        instance('data', data, KGData)
        if side is not None:
            one_of('side', side, ('tail', 'head', 'both'))
        if len(self.thresholds) != data.num_relations:
            raise ArgumentError(f'calibration: expected thresholds for {data.num_relations} relations, got '
                                f'{len(self.thresholds)}; make it of the same data')
        if side is not None and side != self.side:
            raise ArgumentError(f'side: the calibration was fitted on scores of the side {self.side!r}, got {side!r}')

    def save(self, path: Union[str, Path]) -> None:
        r"""Writes a JSON file."""
        text = json.dumps(asdict(self), indent=2, allow_nan=True) + '\n'
        atomic_write(file_path('path', path), lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, path: Union[str, Path]) -> Calibration:
        r"""Reads a file that :meth:`save` wrote.

        Raises:
            CheckpointError: If it cannot be read.
        """
        try:
            found = cls(**json.loads(read_bytes(file_path('path', path)).decode()))
            numbers = [*found.points, *found.values, found.threshold, found.positive_share]
            numbers += [value for value in found.thresholds if value is not None]
            if (found.method not in METHODS or found.side not in ('tail', 'head', 'both')
                    or len(found.points) != len(found.values) or not found.points
                    or not all(isinstance(value, (int, float)) for value in numbers)):
                raise ValueError('its entries are not those of a calibration')
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f'{path} cannot be read ({error}); expected a calibration, as pyg-emu calibrate '
                                  'writes it') from error
        return found

    def __repr__(self) -> str:
        own = sum(value is not None for value in self.thresholds)
        return (f'{self.__class__.__name__}({self.method}, {own} of {len(self.thresholds)} relations have a threshold '
                f'of their own, fitted on {self.positive_share:.0%} true facts)')


def fit(scores: Tensor, truth: Tensor, rel_type: Tensor, num_relations: int, method: Method,
        side: Literal['tail', 'head', 'both']) -> Calibration:
    r"""Fits a calibration to scores of labelled facts with scikit-learn.

    Args:
        scores (torch.Tensor): The scores. shape: :obj:`(F,)`.
        truth (torch.Tensor): Which facts are true. shape: :obj:`(F,)`, bool.
        rel_type (torch.Tensor): The relations. shape: :obj:`(F,)`.
        num_relations (int): The number of relations.
        method (str): :obj:`"platt"`: logistic regression on the score, with the targets of the `"Probabilistic Outputs
            for Support Vector Machines" <https://www.cs.colorado.edu/~mozer/Teaching/syllabi/6622/papers/Platt1999.pdf>`_
            paper; or :obj:`"isotonic"` regression.
        side (str): The side by which facts were scored.

    Raises:
        DataError: If all facts are true, or all are false, or a score is infinite.
        ArgumentError: If scikit-learn is not installed.
    """
    one_of('method', method, METHODS)
    require('sklearn', 'calibration', 'score without probabilities')
    x, y = scores.double().cpu().numpy(), truth.cpu().numpy()
    relation = rel_type.cpu().numpy()
    if y.all() or not y.any():
        raise DataError(f'negatives: expected true and false facts, got only {len(y)} '
                        f'{"true" if y.any() else "false"} ones')
    if not np.isfinite(x).all():
        raise DataError(f'expected finite scores to calibrate, got {x[~np.isfinite(x)][0]}')
    points, values = _platt(x, y) if method == 'platt' else _isotonic(x, y)
    thresholds: list[Optional[float]] = [None] * num_relations
    for number, value in zip(*best_thresholds(x, y, relation)):
        thresholds[int(number)] = float(value)
    threshold = float(best_thresholds(x, y, np.zeros_like(relation))[1][0])
    return Calibration(method, points, values, threshold, thresholds, side, float(y.mean()))


def _platt(x: np.ndarray, y: np.ndarray) -> tuple[list[float], list[float]]:
    from sklearn.linear_model import LogisticRegression

    # Platt's targets: each fact counts as true with a weight, and as false with the rest of it.
    positives, negatives = int(y.sum()), int((~y).sum())
    weight = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    center, scale = x.mean(), x.std() or 1.0
    inputs = np.tile((x - center) / scale, 2).reshape(-1, 1)
    model = LogisticRegression(C=1e10, max_iter=1000)
    model.fit(inputs, np.repeat([True, False], len(x)), sample_weight=np.concatenate([weight, 1 - weight]))
    slope = float(model.coef_[0, 0]) / scale
    return [slope], [float(model.intercept_[0]) - slope * center]


def _isotonic(x: np.ndarray, y: np.ndarray) -> tuple[list[float], list[float]]:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds='clip').fit(x, y.astype(float))
    return model.X_thresholds_.tolist(), model.y_thresholds_.tolist()


def best_thresholds(scores: np.ndarray, truth: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Returns the groups that occur, ascending, and for each the threshold with the best accuracy: midway between two
    neighbouring scores, or beyond all of them. Of equally good thresholds, the highest.

    Args:
        scores (numpy.ndarray): The scores. shape: :obj:`(F,)`.
        truth (numpy.ndarray): Which facts are true. shape: :obj:`(F,)`, bool.
        group (numpy.ndarray): The group of each fact. shape: :obj:`(F,)`.
    """
    order = np.lexsort((-scores, group))
    score, group = scores[order], group[order]
    names, start = np.unique(group, return_index=True)
    last = np.append(start[1:], len(group)) - 1
    # What a cut after each fact gains over a threshold above all of its group.
    total = np.where(truth[order], 1, -1).cumsum()
    place = np.repeat(np.arange(len(names)), last - start + 1)
    gain = (total - np.concatenate([[0], total])[start][place]).astype(float)
    following = np.append(score[1:], -np.inf)
    following[last] = -np.inf
    gain[score == following] = -np.inf  # equal scores are not told apart
    best = np.maximum.reduceat(gain, start)
    hit = np.flatnonzero(gain == best[place])
    cut = hit[np.unique(place[hit], return_index=True)[1]]
    middle = score[cut] + (following[cut] - score[cut]) / 2
    inside = np.isfinite(following[cut]) & (middle > following[cut])
    bound = np.where(inside, middle, score[cut])
    return names, np.where(best > 0, bound, np.nextafter(score[start], np.inf))
