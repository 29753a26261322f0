r"""A folder of the size and shape of YAGO3-10, which cannot come along: 1,079,040 training facts, 123,182 entities,
37 relations with two thirds of the facts in two of them, labels of many scripts.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_emu.data.graph import KGData
from pyg_emu.data.io.datasets import load_dataset
from pyg_emu.data.loader import TripletLoader
from pyg_emu.negatives.sampling import UniformSampler

ENTITIES, RELATIONS = 123_182, 37
SIZES = {'train': 1_079_040, 'valid': 5_000, 'test': 5_000}
# What stands in the labels of YAGO: commas, quotes, percent signs, letters beyond ASCII.
_SHAPES = ('{}_F.C.', '{},_Île-de-France', '"{}"', '{}_(footballer)', 'Ch%C3%A2teau_{}', 'Łódź_{}', '{}')


def entity(number: int) -> str:
    return _SHAPES[number % len(_SHAPES)].format(f'{number:06}')


def draw() -> np.ndarray:
    r"""Distinct facts, shuffled, the first of them such that each entity and each relation occurs. shape: (F, 3)."""
    random = np.random.default_rng(0)
    total = sum(SIZES.values())
    count = int(total * 1.1)
    heads = np.concatenate([np.arange(ENTITIES), random.integers(ENTITIES, size=count - ENTITIES)])
    # Two relations hold two thirds of the facts, and few tails most of them, such as the genders.
    relations = np.where(random.random(count) < 2 / 3, random.integers(2, size=count),
                         random.integers(RELATIONS, size=count))
    tails = (ENTITIES * random.random(count)**4).astype(np.int64)
    keys = (heads * RELATIONS + relations) * ENTITIES + tails
    _, first = np.unique(keys, return_index=True)
    first.sort()
    kept = first[:total]
    assert kept.size == total
    facts = np.stack([heads, relations, tails], axis=1)[kept]
    # Each entity is the head of one of the first facts, which stay in training.
    return np.concatenate([facts[:ENTITIES], random.permutation(facts[ENTITIES:])])


@pytest.fixture(scope='module')
def facts() -> dict[str, np.ndarray]:
    found = draw()
    held_out = SIZES['valid'] + SIZES['test']
    return {'train': found[:-held_out], 'valid': found[-held_out:-SIZES['test']], 'test': found[-SIZES['test']:]}


@pytest.fixture(scope='module')
def folder(facts: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('datasets') / 'YAGO3-10'
    path.mkdir()
    names = [entity(number) for number in range(ENTITIES)]
    relations = [f'isRelatedTo{number}' for number in range(RELATIONS)]
    for split, rows in facts.items():
        with open(path / f'{split}.txt', 'w', encoding='utf-8') as file:
            file.writelines(f'{names[head]}\t{relations[relation]}\t{names[tail]}\n'
                            for head, relation, tail in rows.tolist())
    return path


def test_every_fact_is_read_as_it_stands(folder: Path, facts: dict[str, np.ndarray],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PYG_EMU_DATA', str(folder.parent))
    data = load_dataset('YAGO3-10')  # the folder of that name comes before a download
    assert (data.num_nodes, data.num_relations) == (ENTITIES, RELATIONS)
    assert data.entity_labels == sorted(entity(number) for number in range(ENTITIES))
    place = {label: number for number, label in enumerate(data.entity_labels)}
    numbers = torch.tensor([place[entity(number)] for number in range(ENTITIES)])
    kinds = torch.tensor([data.relation_id(f'isRelatedTo{number}') for number in range(RELATIONS)])
    for split, rows in facts.items():
        expected = torch.from_numpy(rows)
        expected = torch.stack([numbers[expected[:, 0]], kinds[expected[:, 1]], numbers[expected[:, 2]]], dim=1)
        assert data.num_facts(split) == SIZES[split]
        assert torch.equal(data.facts(split), expected)
    check_negatives(data)


def check_negatives(data: KGData) -> None:
    r"""None of the negatives is a fact, though some questions have thousands of answers."""
    loader = TripletLoader(data, batch_size=256, shuffle=True, corrupt='head')
    batch = next(loader.batches())
    negatives = UniformSampler(filtered=True).sample(batch, 16).index
    keys = (data.facts('all') * torch.tensor([RELATIONS * ENTITIES, ENTITIES, 1])).sum(1)
    drawn = (negatives * RELATIONS + batch.rel_type.unsqueeze(1)) * ENTITIES + batch.tail_index.unsqueeze(1)
    assert drawn.shape == (256, 16) and not torch.isin(drawn, keys).any()
    answers = torch.bincount(data.facts('train')[:, 2] * RELATIONS + data.facts('train')[:, 1])
    assert int(answers.max()) > 1_000
