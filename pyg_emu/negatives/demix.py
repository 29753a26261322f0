r"""The transform that adds negatives refined by DeMix to a batch."""
from __future__ import annotations

from typing import ClassVar, Optional

from pyg_emu.negatives.contract import Sampler
from pyg_emu.negatives.mutation.demix import DeMixMutation
from pyg_emu.negatives.transform import EMUNegatives


class DeMixNegatives(EMUNegatives):
    r"""Draws negatives for each triple, which :class:`~pyg_emu.negatives.mutation.DeMixMutation` refines, as in the
    `"Negative Sampling with Adaptive Denoising Mixup for Knowledge Graph Embedding"
    <https://doi.org/10.1007/978-3-031-47240-4_14>`_ paper (DeMix): :class:`~pyg_emu.EMUNegatives` with this mutation,
    over any sampler.

    :class:`~pyg_emu.Trainer` lets the mutation learn. In a loop of your own, call its :meth:`update` before each loss:

    .. code-block:: python

        negatives = DeMixNegatives(num_negatives=16, warmup=8)
        criterion = DeMixLoss()
        for batch in TripletLoader(data, shuffle=True, transform=negatives):
            negatives.mutation.update(batch, as_scorer(model))
            criterion(model, batch).backward()

    Recipes name the mutation: :obj:`negatives: {num_negatives: 16, mutation: {name: demix, warmup: 8}}`.

    Args:
        num_negatives (int, optional): The number of negatives per triple. The paper has 16 for distances and 50 for dot
            products. (default: :obj:`16`)
        sampler (Sampler, optional): The source of candidates. (default: :obj:`None`,
            :class:`~pyg_emu.UniformSampler`)
        delta (float, optional): See :class:`~pyg_emu.negatives.mutation.DeMixMutation`. (default: :obj:`0.1`)
        beta (float, optional): See there. (default: :obj:`1.0`)
        mu (float, optional): See there. (default: :obj:`3`)
        ramp_epochs (float, optional): See there. (default: :obj:`10.0`)
        alpha (float, optional): See there. (default: :obj:`1.0`)
        warmup (int, optional): See there. (default: :obj:`8`)
        refresh_every (int, optional): See there. (default: :obj:`None`)
        include_target (bool, optional): See there. (default: :obj:`True`)
        mix (bool, optional): See there. (default: :obj:`True`)

    Raises:
        ArgumentError: As the two classes do.
    """
    #: Recipes name the mutation.
    recipe_name: ClassVar[Optional[str]] = None
    mutation: DeMixMutation

    def __init__(
        self,
        num_negatives: int = 16,
        sampler: Optional[Sampler] = None,
        delta: float = 0.1,
        beta: float = 1.0,
        mu: float = 3,
        ramp_epochs: float = 10.0,
        alpha: float = 1.0,
        warmup: int = 8,
        refresh_every: Optional[int] = None,
        include_target: bool = True,
        mix: bool = True,
    ) -> None:
        mutation = DeMixMutation(delta, beta, mu, ramp_epochs, alpha, warmup, refresh_every, include_target, mix)
        super().__init__(num_negatives, sampler=sampler, mutation=mutation)
