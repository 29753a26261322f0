r"""Scores, losses, ranks, metrics and NBFNet by their definitions: loops over numbers in NumPy, without the package.

Nothing here is fast. Everything is one formula of a paper, for one triple at a time.
"""
from __future__ import annotations

import math
from typing import Any, Callable, Mapping, Optional, Sequence

import numpy as np

Array = np.ndarray
Fact = tuple[int, int, int]

# Scores of vectors ###########################################################


def score(model: str, head: Array, relation: Array, tail: Array, margin: float, norm: int = 1,
          phase_bound: float = 1.0) -> float:
    r"""The score of a triple from its rows; complex rows are [re, im]."""
    if model == 'DistMult':
        return float(sum(h * r * t for h, r, t in zip(head, relation, tail)))
    if model == 'TransE':
        difference = [abs(h + r - t) for h, r, t in zip(head, relation, tail)]
        return margin - (sum(difference) if norm == 1 else math.sqrt(sum(value**2 for value in difference)))
    width = len(head) // 2
    h, t = head[:width] + 1j * head[width:], tail[:width] + 1j * tail[width:]
    if model == 'ComplEx':
        r = relation[:width] + 1j * relation[width:]
        return float(sum((a * b * c.conjugate()).real for a, b, c in zip(h, r, t)))
    assert model == 'RotatE'
    turns = [complex(math.cos(phase), math.sin(phase)) for phase in relation * (math.pi / phase_bound)]
    return margin - sum(abs(a * b - c) for a, b, c in zip(h, turns, t))


def mutate(positive: Array, negative: Array, mask: Optional[Array], weight: Optional[float]) -> Array:
    r"""Equation 6 of the EMU paper with a mask, equation 22 with the weight of the negative."""
    if mask is not None:
        return np.array([p if taken else n for p, n, taken in zip(positive, negative, mask)])
    assert weight is not None
    return weight * negative + (1 - weight) * positive


# Losses of the scores of one triple ##########################################


def cross_entropy(positive: float, negative: Sequence[float], labels: Sequence[float]) -> float:
    r"""Minus the sum of labels times logarithms of the softmax over the positive and the negatives, equation 21."""
    scores = [positive, *negative]
    top = max(scores)
    total = top + math.log(sum(math.exp(value - top) for value in scores))
    return -sum(label * (value - total) for label, value in zip(labels, scores))


def uls(positive: float, negative: Sequence[float], beta: float) -> float:
    r"""Unbounded label smoothing."""
    return cross_entropy(positive, negative, [1.0] + [beta] * len(negative))


def smoothed(positive: float, negative: Sequence[float], smoothing: float) -> float:
    r"""Ordinary label smoothing, equation 20."""
    share = smoothing / (len(negative) + 1)
    return cross_entropy(positive, negative, [1.0 - smoothing + share] + [share] * len(negative))


def binary(positive: float, negative: Sequence[float], beta: float, temperature: Optional[float]) -> float:
    r"""Binary cross-entropy, negatives weighted by a softmax of their scores over the temperature."""
    def term(value: float, label: float) -> float:
        # log(1 + exp(s)) - y s
        return max(value, 0.0) + math.log1p(math.exp(-abs(value))) - label * value

    if not negative:
        return term(positive, 1.0)
    if temperature is None:
        weights = [1.0 / len(negative)] * len(negative)
    else:
        top = max(negative)
        powers = [math.exp((value - top) / temperature) for value in negative]
        weights = [value / sum(powers) for value in powers]
    return (term(positive, 1.0) + sum(w * term(value, beta) for w, value in zip(weights, negative))) / 2.0


def margin(positive: float, negative: Sequence[float], gamma: float) -> float:
    r"""Mean hinge loss."""
    return sum(max(0.0, gamma - positive + value) for value in negative) / max(len(negative), 1)


# Ranks and metrics ###########################################################


def ranks(score_of: Callable[[Fact], float], facts: Sequence[Fact], known: set[Fact], side: str,
          candidates: Sequence[int]) -> list[tuple[int, int, int]]:
    r"""Competitors that score higher, those that score equally, and all, for each fact with an answer among the
    candidates."""
    found = []
    for head, relation, tail in facts:
        answer = tail if side == 'tail' else head
        if answer not in candidates:
            continue
        triples = [(head, relation, v) if side == 'tail' else (v, relation, tail) for v in candidates if v != answer]
        values = [score_of(triple) for triple in triples if triple not in known]
        own = score_of((head, relation, tail))
        found.append((sum(value > own for value in values), sum(value == own for value in values), len(values)))
    return found


def metrics(counts: Sequence[tuple[int, int, int]], tie: str, ks: Sequence[int],
            num_negatives: int) -> dict[str, float]:
    r"""Every metric of a table."""
    share = {'optimistic': 0.0, 'realistic': 0.5, 'pessimistic': 1.0}[tie]
    rank = [1 + greater + share * equal for greater, equal, _ in counts]
    found = {'mrr': sum(1 / value for value in rank) / len(rank), 'mr': sum(rank) / len(rank)}
    found |= {f'hits@{k}': sum(value <= k for value in rank) / len(rank) for k in ks}
    largest = max(ks)
    found[f'ndcg@{largest}'] = sum(1 / math.log2(1 + value) for value in rank if value <= largest) / len(rank)
    expected = sum(others / 2 for _, _, others in counts)
    found['amri'] = 1 - sum(value - 1 for value in rank) / expected if expected else math.nan
    hits = []
    for value, (_, _, others) in zip(rank, counts):
        p, draws = (value - 1) / max(others, 1), num_negatives - 1
        hits.append(sum(math.comb(draws, i) * p**i * (1 - p)**(draws - i) for i in range(min(10, draws + 1))))
    found[f'hits@10 ({num_negatives} negatives)'] = sum(hits) / len(hits)
    return {**found, 'count': len(rank)}


def relation_kind(facts: set[Fact], relation: int) -> Optional[str]:
    r"""1-1, 1-N, N-1 or N-N, of the distinct facts of a relation."""
    pairs = {(head, tail) for head, r, tail in facts if r == relation}
    if not pairs:
        return None
    tails_per_head = len(pairs) / len({head for head, _ in pairs})
    heads_per_tail = len(pairs) / len({tail for _, tail in pairs})
    return f'{"N" if heads_per_tail >= 1.5 else "1"}-{"N" if tails_per_head >= 1.5 else "1"}'


# NBFNet ######################################################################


def nbfnet(state: Mapping[str, Array], edges: Sequence[Fact], num_nodes: int, known: int, relation: int,
           options: Mapping[str, Any]) -> list[float]:
    r"""The scores of all nodes, message by message.

    Args:
        state (dict): Parameters by the names of public checkpoints.
        edges (list): Source, relation, target of each edge, inverse ones included.
        num_nodes (int): The number of nodes.
        known (int): The node that the query is about.
        relation (int): The relation of the query, inverse ones counted after the others.
        options (dict): message, aggregate, shortcut, layer_norm, dependent, concat_hidden, num_layers.
    """
    query = state['query.weight'][relation]
    width, zero = len(query), np.zeros(len(query))
    degree = [sum(target == v for _, _, target in edges) for v in range(num_nodes)]
    logarithm = [math.log(value + 1) for value in degree]
    mean_logarithm = sum(logarithm) / num_nodes
    features = [query if v == known else zero for v in range(num_nodes)]
    outputs = []
    for layer in range(options['num_layers']):
        prefix = f'layers.{layer}'
        if options['dependent']:
            flat = state[f'{prefix}.relation_linear.weight'] @ query + state[f'{prefix}.relation_linear.bias']
            vectors = flat.reshape(-1, width)
        else:
            vectors = state[f'{prefix}.relation.weight']
        updated = []
        for v in range(num_nodes):
            messages = [query if v == known else zero]
            messages += [_message(features[source], vectors[r], options['message']) for source, r, t in edges if t == v]
            scale = logarithm[v] / mean_logarithm if mean_logarithm > 0 else 0.0
            update = _aggregate(np.stack(messages), options['aggregate'], scale)
            out = state[f'{prefix}.linear.weight'] @ np.concatenate([features[v], update])
            out = out + state[f'{prefix}.linear.bias']
            if options['layer_norm']:
                out = (out - out.mean()) / np.sqrt(((out - out.mean())**2).mean() + 1e-5)
                out = out * state[f'{prefix}.layer_norm.weight'] + state[f'{prefix}.layer_norm.bias']
            out = np.maximum(out, 0.0)
            updated.append(out + features[v] if options['shortcut'] and len(out) == len(features[v]) else out)
        features = updated
        outputs.append(features)
    found = []
    for v in range(num_nodes):
        hidden = [layer[v] for layer in outputs] if options['concat_hidden'] else [features[v]]
        x = np.concatenate([*hidden, query])
        places = sorted(int(key.split('.')[1]) for key in state if key.startswith('mlp.') and key.endswith('.weight'))
        for place in places:
            x = state[f'mlp.{place}.weight'] @ x + state[f'mlp.{place}.bias']
            x = x if place == places[-1] else np.maximum(x, 0.0)
        found.append(float(x[0]))
    return found


def _message(x: Array, vector: Array, kind: str) -> Array:
    if kind == 'product':
        return x * vector
    if kind == 'sum':
        return x + vector
    half = len(x) // 2
    turned = (x[:half] + 1j * x[half:]) * (vector[:half] + 1j * vector[half:])
    return np.concatenate([turned.real, turned.imag])


def _aggregate(messages: Array, kind: str, scale: float) -> Array:
    if kind in ('sum', 'mean', 'max', 'min'):
        return getattr(messages, kind)(axis=0)
    mean = messages.mean(0)
    deviation = np.sqrt(np.maximum((messages**2).mean(0) - mean**2, 1e-6))
    statistics = np.stack([mean, messages.max(0), messages.min(0), deviation], axis=1)
    scalers = np.array([1.0, scale, 1.0 / max(scale, 0.01)])
    return (statistics[:, :, None] * scalers).reshape(-1)
