r"""The networks of DANS: a generator of two pathways with feature-wise linear modulation, and a discriminator of two
heads.

`"Diversified and Adaptive Negative Sampling on Knowledge Graphs" <https://arxiv.org/abs/2410.07592>`_, equations 4 to
10.
"""
from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor
from torch.nn import BatchNorm1d, LeakyReLU, Linear, Module, ModuleList, Sequential
from torch.nn import functional as F

#: Hidden layers of a pathway, :math:`M`.
NUM_LAYERS = 2
_FILM_WIDTH = 100
_SLOPE = 0.2


class Modulation(NamedTuple):
    r"""How the activations of one layer are scaled and shifted, equation 6.

    Args:
        scale (torch.Tensor): :math:`\alpha`. shape: :obj:`(B, d)`.
        shift (torch.Tensor): :math:`\beta`. shape: :obj:`(B, d)`.
    """
    scale: Tensor
    shift: Tensor


class FiLM(Module):
    r"""Feature-wise linear modulation of each hidden layer of a pathway, equations 7 and 8:

    .. math::
        \alpha^m = 1 + F^m_\alpha(\mathbf{c}), \qquad \beta^m = F^m_\beta(\mathbf{c})

    Each :math:`F` is a network :math:`d \to 100 \to d` without bias, LeakyReLU between its layers. It is zero for a
    condition of zero, which then modulates nothing: equation 13 pulls :math:`\alpha` to one and :math:`\beta` to zero.

    Args:
        width (int): :math:`d`, the width of a condition and of the layers.
    """
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = ModuleList(_film_network(width) for _ in range(NUM_LAYERS))
        self.shift = ModuleList(_film_network(width) for _ in range(NUM_LAYERS))

    def forward(self, condition: Tensor) -> list[Modulation]:
        r"""Returns the modulation of each layer for conditions :obj:`(B, d)`."""
        return [Modulation(1.0 + scale(condition), shift(condition)) for scale, shift in zip(self.scale, self.shift)]


class Pathway(Module):
    r"""One pathway of the generator, :math:`G_E` or :math:`G_R`:

    .. math::
        \mathbf{x}^m = \mathrm{LeakyReLU}(\mathrm{BN}(W^m \tilde{\mathbf{x}}^{m-1} + \mathbf{b}^m)), \qquad
        \tilde{\mathbf{x}}^m = \mathbf{x}^m \otimes \alpha^m + \beta^m, \qquad
        G(\epsilon) = c \tanh(W \tilde{\mathbf{x}}^M + \mathbf{b})

    with :math:`\tilde{\mathbf{x}}^0 = \epsilon`. Batch normalization takes the statistics of the batch. For a batch of
    one triple, whose vectors hardly vary, it takes the running ones.

    Args:
        width (int): :math:`d`, the width of an entity row and of the hidden layers.
        film (bool): Whether layers are modulated.
        bound (float): :math:`c`, the largest component that can be generated.
    """
    def __init__(self, width: int, film: bool, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.layers = ModuleList(Linear(width, width) for _ in range(NUM_LAYERS))
        self.norms = ModuleList(BatchNorm1d(width) for _ in range(NUM_LAYERS))
        self.output = Linear(width, width)
        self.film = FiLM(width) if film else None

    def forward(self, noise: Tensor, condition: Tensor) -> tuple[Tensor, list[Modulation]]:
        r"""Generates vectors.

        Args:
            noise (torch.Tensor): :math:`\epsilon`, :math:`K` for each triple. shape: :obj:`(B, K, d)`.
            condition (torch.Tensor): The center of the noise, which modulates the layers. shape: :obj:`(B, d)`.

        Returns:
            The vectors :obj:`(B, K, d)`, and the modulation of each layer, of which there is none without FiLM.
        """
        self.norms.train(noise.size(0) > 1)
        modulation = [] if self.film is None else self.film(condition)
        hidden = noise
        for place, (layer, norm) in enumerate(zip(self.layers, self.norms)):
            value = norm(layer(hidden).flatten(0, 1)).view(noise.shape)
            hidden = F.leaky_relu(value, _SLOPE)
            if modulation:
                scale, shift = modulation[place]
                hidden = hidden * scale.unsqueeze(1) + shift.unsqueeze(1)
        return self.bound * self.output(hidden).tanh(), modulation


class Discriminator(Module):
    r"""The discriminator, equations 9 and 10: a shared representation :math:`d \to 50 \to 32`, and two heads
    :math:`32 \to 16 \to 8 \to 1`.

    Args:
        width (int): :math:`d`, the width of an entity row.
    """
    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = Sequential(Linear(width, 50), LeakyReLU(_SLOPE), Linear(50, 32), LeakyReLU(_SLOPE))
        self.adversarial = _head()
        self.auxiliary = _head()

    def forward(self, vectors: Tensor) -> Verdict:
        r"""Judges vectors :obj:`(B, d)`."""
        hidden = self.shared(vectors)
        return Verdict(self.adversarial(hidden).squeeze(-1), self.auxiliary(hidden).squeeze(-1))


class Verdict(NamedTuple):
    r"""What the discriminator makes of some vectors, before the sigmoid of each head.

    Args:
        real (torch.Tensor): :math:`D_{Adv}`: how real they look. shape: :obj:`(B,)`.
        from_entity (torch.Tensor): :math:`D_{Aux}`: how much they look like those of :math:`G_E`. shape: :obj:`(B,)`.
    """
    real: Tensor
    from_entity: Tensor


def _film_network(width: int) -> Sequential:
    return Sequential(Linear(width, _FILM_WIDTH, bias=False), LeakyReLU(_SLOPE),
                      Linear(_FILM_WIDTH, width, bias=False))


def _head() -> Sequential:
    return Sequential(Linear(32, 16), LeakyReLU(_SLOPE), Linear(16, 8), LeakyReLU(_SLOPE), Linear(8, 1))


def generator_loss(fooled: list[Tensor], modulation: list[Modulation], film_weight: float) -> Tensor:
    r"""The loss of the generator: the non-saturating game against :math:`D_{Adv}`, and the regularizer of equation 13.

    .. math::
        -\mathbb{E}_{t'} \log \hat{y}_{Adv,t'} - \mathbb{E}_{t''} \log \hat{y}_{Adv,t''}
        + \lambda\, \mathbb{E}_h \sum_m (\|\alpha^m_h - 1\|^2 + \|\beta^m_h\|^2)

    Args:
        fooled (list of torch.Tensor): The logits of :math:`D_{Adv}` for the vectors of each pathway, each :obj:`(B,)`.
        modulation (list of Modulation): The modulations of all layers of all pathways.
        film_weight (float): :math:`\lambda`.
    """
    loss = torch.stack([F.softplus(-logit).mean() for logit in fooled]).sum()
    if modulation and film_weight > 0.0:
        excess = torch.stack([((one.scale - 1.0).square() + one.shift.square()).sum(-1).mean() for one in modulation])
        loss = loss + film_weight * excess.sum()
    return loss


def discriminator_loss(real: Tensor, entity: Optional[Verdict], relation: Optional[Verdict]) -> Tensor:
    r"""The loss of the discriminator, equation 14: the cross-entropy of :math:`D_{Adv}` over all vectors, plus that of
    :math:`D_{Aux}` over the generated ones if both pathways are there.

    Args:
        real (torch.Tensor): The logits of :math:`D_{Adv}` for real vectors. shape: :obj:`(B,)`.
        entity (Verdict, optional): Those of both heads for vectors of :math:`G_E`.
        relation (Verdict, optional): Those of both heads for vectors of :math:`G_R`.
    """
    fakes = [verdict.real for verdict in (entity, relation) if verdict is not None]
    loss = torch.cat([F.softplus(-real), *(F.softplus(fake) for fake in fakes)]).mean()
    if entity is None or relation is None:
        return loss
    return loss + torch.cat([F.softplus(-entity.from_entity), F.softplus(relation.from_entity)]).mean()
