r"""The networks and losses of DANS against the equations, written out with loops."""
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyg_emu.negatives.adversarial.networks import (
    Discriminator,
    FiLM,
    Modulation,
    Pathway,
    Verdict,
    discriminator_loss,
    generator_loss,
)

WIDTH, SIZE, NUMBER = 3, 4, 2


def leaky(value: float) -> float:
    return value if value > 0 else 0.2 * value


def affine(weight: Tensor, vector: list[float], bias: Tensor | None = None) -> list[float]:
    found = [sum(w * v for w, v in zip(row, vector)) for row in weight.tolist()]
    return found if bias is None else [value + b for value, b in zip(found, bias.tolist())]


def dense(network: torch.nn.Sequential, vector: list[float]) -> list[float]:
    r"""Linear layers with LeakyReLU between them, as they come."""
    for layer in network:
        if isinstance(layer, torch.nn.Linear):
            vector = affine(layer.weight, vector, layer.bias)
        else:
            vector = [leaky(value) for value in vector]
    return vector


def film_by_hand(film: FiLM, condition: list[float]) -> list[tuple[list[float], list[float]]]:
    return [([1.0 + value for value in dense(scale, condition)], dense(shift, condition))
            for scale, shift in zip(film.scale, film.shift)]


def test_film() -> None:
    torch.manual_seed(0)
    film = FiLM(WIDTH).double()
    condition = torch.randn(SIZE, WIDTH, dtype=torch.double)
    found = film(condition)
    assert len(found) == 2 and all(layer.bias is None for layer in film.modules() if isinstance(layer, torch.nn.Linear))
    for row, vector in enumerate(condition.tolist()):
        for (scale, shift), expected in zip(found, film_by_hand(film, vector)):
            assert (scale[row].tolist(), shift[row].tolist()) == tuple(map(pytest.approx, expected))
    nothing = film(torch.zeros(1, WIDTH, dtype=torch.double))
    assert all(bool((one.scale == 1).all()) and not bool(one.shift.any()) for one in nothing)


@pytest.mark.parametrize('film', [True, False])
def test_pathway(film: bool) -> None:
    torch.manual_seed(0)
    pathway = Pathway(WIDTH, film, bound=1.5).double()
    for norm in pathway.norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    noise = torch.randn(SIZE, NUMBER, WIDTH, dtype=torch.double)
    condition = torch.randn(SIZE, WIDTH, dtype=torch.double)
    vectors, modulation = pathway(noise, condition)
    assert len(modulation) == (2 if film else 0)

    rows = [vector for triple in noise.tolist() for vector in triple]
    modulations = [film_by_hand(pathway.film, vector) for vector in condition.tolist()] if film else []
    for place, (layer, norm) in enumerate(zip(pathway.layers, pathway.norms)):
        rows = [affine(layer.weight, row, layer.bias) for row in rows]
        for column in range(WIDTH):
            values = [row[column] for row in rows]
            mean = sum(values) / len(values)
            variance = sum((value - mean)**2 for value in values) / len(values)
            for row in rows:
                normal = (row[column] - mean) / math.sqrt(variance + norm.eps)
                row[column] = leaky(normal * float(norm.weight[column]) + float(norm.bias[column]))
        if film:
            for number, row in enumerate(rows):
                scale, shift = modulations[number // NUMBER][place]
                row[:] = [value * a + b for value, a, b in zip(row, scale, shift)]
    expected = [[1.5 * math.tanh(value) for value in affine(pathway.output.weight, row, pathway.output.bias)]
                for row in rows]
    torch.testing.assert_close(vectors.flatten(0, 1), torch.tensor(expected, dtype=torch.double))


def test_one_triple_takes_running_statistics() -> None:
    torch.manual_seed(0)
    pathway = Pathway(WIDTH, True, 1.0)
    noise, condition = torch.randn(SIZE, 1, WIDTH), torch.randn(SIZE, WIDTH)
    pathway(noise, condition)
    before = [norm.running_mean.clone() for norm in pathway.norms]
    alone = pathway(noise[:1], condition[:1])[0]
    assert all(bool(value.any()) for value in before)
    assert all(norm.running_mean.equal(value) for norm, value in zip(pathway.norms, before))
    # With these, no row depends on the others.
    pathway.norms.eval()
    hidden = noise[:1]
    for place, (layer, norm) in enumerate(zip(pathway.layers, pathway.norms)):
        scale, shift = pathway.film(condition[:1])[place]  # type: ignore[misc]
        hidden = torch.nn.functional.leaky_relu(norm(layer(hidden).flatten(0, 1)).view(hidden.shape), 0.2)
        hidden = hidden * scale.unsqueeze(1) + shift.unsqueeze(1)
    torch.testing.assert_close(alone, pathway.output(hidden).tanh())


def test_discriminator() -> None:
    torch.manual_seed(0)
    network = Discriminator(WIDTH).double()
    widths = [tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    assert widths == [(50, WIDTH), (32, 50), *[(16, 32), (8, 16), (1, 8)] * 2]
    vectors = torch.randn(SIZE, WIDTH, dtype=torch.double)
    verdict = network(vectors)
    for row, vector in enumerate(vectors.tolist()):
        shared = dense(network.shared, vector)
        assert [float(verdict.real[row])] == pytest.approx(dense(network.adversarial, shared))
        assert [float(verdict.from_entity[row])] == pytest.approx(dense(network.auxiliary, shared))


def log_sigmoid(logit: float) -> float:
    return math.log(1 / (1 + math.exp(-logit)))


def test_generator_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    fooled = [torch.randn(SIZE, generator=generator) for _ in range(2)]
    modulation = [Modulation(torch.randn(SIZE, WIDTH, generator=generator),
                             torch.randn(SIZE, WIDTH, generator=generator)) for _ in range(4)]
    expected = 0.0
    for logits in fooled:
        expected -= sum(log_sigmoid(logit) for logit in logits.tolist()) / SIZE
    excess = 0.0
    for scale, shift in modulation:
        for row in range(SIZE):
            excess += sum((a - 1)**2 for a in scale[row].tolist()) + sum(b**2 for b in shift[row].tolist())
    expected += 0.3 * excess / SIZE
    assert float(generator_loss(fooled, modulation, 0.3)) == pytest.approx(expected, rel=1e-5)
    plain = -sum(log_sigmoid(logit) for logit in fooled[0].tolist()) / SIZE
    assert float(generator_loss(fooled[:1], [], 0.3)) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize('both', [True, False])
def test_discriminator_loss(both: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(SIZE, generator=generator)
    entity, relation = (Verdict(*torch.randn(2, SIZE, generator=generator)) for _ in range(2))
    fakes = [entity, relation] if both else [relation]
    # Equation 11 for every vector, with label 1 for real ones; equation 12 for generated ones, with label 1 for G_E.
    judged = [(logit, 1) for logit in real.tolist()] + [(logit, 0) for one in fakes for logit in one.real.tolist()]
    expected = -sum(log_sigmoid(logit if label else -logit) for logit, label in judged) / len(judged)
    if both:
        ways = [(logit, 1) for logit in entity.from_entity.tolist()]
        ways += [(logit, 0) for logit in relation.from_entity.tolist()]
        expected -= sum(log_sigmoid(logit if label else -logit) for logit, label in ways) / len(ways)
    assert float(discriminator_loss(real, entity if both else None, relation)) == pytest.approx(expected, rel=1e-5)
