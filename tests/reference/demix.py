r"""DeMix by its definitions, equations 6 to 15 of its paper: loops over numbers, one triple at a time, without the
package.
"""
from __future__ import annotations

import math
from typing import Callable, Iterable, Optional, Sequence

Fact = tuple[int, int, int]
#: The side that is predicted, the known entity and the relation.
Pattern = tuple[str, int, int]


def pattern_of(fact: Fact, side: str) -> Pattern:
    r"""Equation 6."""
    head, relation, tail = fact
    return ('tail', head, relation) if side == 'tail' else ('head', tail, relation)


def completed(pattern: Pattern, entity: int) -> Fact:
    side, known, relation = pattern
    return (known, relation, entity) if side == 'tail' else (entity, relation, known)


def positives(facts: Iterable[Fact], pattern: Pattern) -> list[int]:
    r"""The entities of the facts of a pattern, equation 7."""
    return [fact[2] if pattern[0] == 'tail' else fact[0] for fact in facts if pattern_of(fact, pattern[0]) == pattern]


def tolerance(delta: float, beta: float, epoch: int, ramp: float) -> float:
    r"""delta_T, the epoch counting from 1."""
    return delta * min(beta, epoch / ramp)


def is_marginal(facts: Sequence[Fact], pattern: Pattern, score: float, score_of: Callable[[Fact], float],
                delta_t: float, mu: float) -> bool:
    r"""Equations 8 and 9."""
    found = [score_of(completed(pattern, entity)) for entity in positives(facts, pattern)]
    if len(found) < mu or not found:
        return False
    return -delta_t + min(found) <= score <= sum(found) / len(found)


def pool(facts: Sequence[Fact], pattern: Pattern, score_of: Callable[[Fact], float]) -> list[int]:
    r"""Equation 10."""
    found = {entity: score_of(completed(pattern, entity)) for entity in positives(facts, pattern)}
    mean = sum(found.values()) / len(found) if found else 0.0
    return sorted(entity for entity, score in found.items() if score <= mean)


def partners(facts: Sequence[Fact], fact: Fact, side: str, negatives: Sequence[int], counts: Sequence[bool],
             score_of: Callable[[Fact], float], delta_t: float, mu: float,
             include_target: bool) -> list[tuple[bool, list[int]]]:
    r"""Of each negative, whether it is a marginal pseudo-negative and which entities may be its partner, equation 11;
    none where it stays as it is.
    """
    pattern = pattern_of(fact, side)
    target = fact[2] if side == 'tail' else fact[0]
    allowed = [entity for entity in pool(facts, pattern, score_of) if include_target or entity != target]
    marginal = [kept and bool(allowed) and is_marginal(facts, pattern, score_of(completed(pattern, entity)), score_of,
                                                       delta_t, mu)
                for entity, kept in zip(negatives, counts)]
    found = []
    for slot, kept in enumerate(counts):
        if marginal[slot]:
            found.append((True, allowed))
        elif kept:
            found.append((False, [negatives[other] for other in range(len(negatives))
                                  if other != slot and counts[other] and not marginal[other]]))
        else:
            found.append((False, []))
    return found


def mixed(first: Sequence[float], second: Sequence[float], weight: float) -> list[float]:
    r"""Equation 12."""
    return [weight * a + (1 - weight) * b for a, b in zip(first, second)]


def cross_entropy(score: float, label: float) -> float:
    r"""Minus y log sigma(s) minus (1 - y) log(1 - sigma(s))."""
    chance = 1 / (1 + math.exp(-score))
    return -label * math.log(chance) - (1 - label) * math.log(1 - chance)


def adversarial_weights(scores: Sequence[float], temperature: float) -> list[float]:
    r"""Equation 15."""
    powers = [math.exp(temperature * score) for score in scores]
    return [power / sum(powers) for power in powers]


def loss(positive: float, negatives: Sequence[float], labels: Sequence[float],
         weights: Optional[Sequence[float]] = None) -> float:
    r"""Equation 14 with given weights, equation 13 without."""
    weights = [1.0] * len(negatives) if weights is None else weights
    return cross_entropy(positive, 1.0) + sum(weight * cross_entropy(score, label)
                                              for weight, score, label in zip(weights, negatives, labels))
