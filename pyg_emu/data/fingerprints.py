r"""Fingerprints of the entities and facts of a graph, by which a run recognises its data."""
from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from pyg_emu.data.graph import SPLITS, KGData, Split
from pyg_emu.data.index import sorted_facts


def facts_entry(data: KGData, split: Split) -> dict[str, Any]:
    r"""Returns the number of the facts of a split, their fingerprint and, if they have weights, that of the weights.
    The order of the facts does not matter.

    Args:
        data (KGData): The graph.
        split (str): As in :meth:`KGData.facts`.
    """
    return {'number': data.num_facts(split), 'fingerprint': facts_fingerprint(data, split),
            **_weights_entry(data, split)}


def facts_fingerprint(data: KGData, split: Split) -> str:
    r"""Returns a fingerprint of the facts of a split, as ids, in any order.

    Args:
        data (KGData): The graph.
        split (str): As in :meth:`KGData.facts`.
    """
    # A recipe's run and its Trainer both ask for it, and sorting the facts of a large graph takes a while.
    return data.cached(f'fingerprint/{split}', lambda: _fingerprint(data, split))


def entities_fingerprint(data: KGData) -> str:
    r"""Returns a fingerprint of the labels of the entities in the order of their ids, or of the number of entities."""
    labels = data.entity_labels
    return text_fingerprint(str(data.num_nodes) if labels is None else json.dumps(labels))


def text_fingerprint(text: str) -> str:
    r"""Returns a fingerprint of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fingerprint(data: KGData, split: Split) -> str:
    parts = [[column.cpu() for column in data.columns(part)] for part in (SPLITS if split == 'all' else (split, ))]
    digest = hashlib.sha256()
    for facts in sorted_facts(parts, data.num_nodes or 0, data.num_relations):
        digest.update(facts.numpy().astype('<i8', copy=False).tobytes())
    return digest.hexdigest()[:16]


def _weights_entry(data: KGData, split: Split) -> dict[str, str]:
    r"""A fingerprint of the weights of the facts, if they have any."""
    weights = data.weights(split)
    if weights is None:
        return {}
    rows, values = data.facts(split).cpu().numpy(), weights.cpu().double().numpy()
    values = values[np.lexsort((values, *rows.T[::-1]))]
    return {'weights': hashlib.sha256(np.ascontiguousarray(values, dtype='<f8').tobytes()).hexdigest()[:16]}
