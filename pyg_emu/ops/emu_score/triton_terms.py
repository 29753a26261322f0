r"""The interactions and the kinds of mutation for the CUDA kernels of :func:`~pyg_emu.ops.emu_score`.

An interaction sums *terms* of aligned components :math:`(q_0, q_1, q_2; x_0, x_1)` into two accumulators. Components
that an interaction does not have equal others and are not used. The interaction (:obj:`PHI`) and the kind of mutation
(:obj:`PLAN`) are compile-time constants, so kernels have no branches. All arithmetic is float32, regardless of the data
type of the table. Components beyond the last are zero on both sides, and so are their terms.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase

#: The names of the interactions that the kernels support.
INTERACTIONS = frozenset({Dot, L1, L2, ComplexModulus, ModulusPhase})


def constants_of(interaction: Interaction) -> tuple[float, float, float]:
    r"""Returns the weights of modulus and phase and the scale of phases, which are one for other interactions."""
    if isinstance(interaction, ModulusPhase):
        return interaction.modulus_weight, interaction.phase_weight, interaction.phase_scale
    return 1.0, 1.0, 1.0


@triton.jit
def term(q0, q1, q2, x0, x1, scale, PHI: tl.constexpr):
    r"""Returns the contributions of aligned components to the two accumulators."""
    if PHI == 'dot':
        s0 = q0 * x0
        s1 = s0
    elif PHI == 'l1':
        s0 = tl.abs(q0 - x0)
        s1 = s0
    elif PHI == 'l2':
        s0 = (q0 - x0) * (q0 - x0)
        s1 = s0
    elif PHI == 'modulus':
        s0 = tl.sqrt((q0 - x0) * (q0 - x0) + (q1 - x1) * (q1 - x1))
        s1 = s0
    else:
        s0 = (q1 * x0 - q0) * (q1 * x0 - q0)
        s1 = tl.abs(tl.sin((q2 - scale * x1) * 0.5))
    return s0, s1


@triton.jit
def finish(s0, s1, modulus_weight, phase_weight, PHI: tl.constexpr):
    r"""Returns the score given two accumulators, and the norm in it."""
    if PHI == 'dot':
        score = s0
        norm = s0
    elif PHI == 'l2':
        norm = tl.sqrt(s0)
        score = -norm
    elif PHI == 'modulus_phase':
        norm = tl.sqrt(s0)
        score = -(modulus_weight * norm + phase_weight * s1)
    else:
        score = -s0
        norm = s0
    return score, norm


@triton.jit
def slope(grads, norms, slot, valid, modulus_weight, phase_weight, PHI: tl.constexpr):
    r"""Returns the gradients of the two accumulators of each slot as columns. The subgradient at a norm of zero is
    zero."""
    grad = tl.load(grads + slot, mask=valid, other=0.0).to(tl.float32)
    w1 = grad
    if PHI == 'dot':
        w0 = grad
    elif PHI == 'l2':
        norm = tl.load(norms + slot, mask=valid, other=0.0)
        w0 = tl.where(norm == 0.0, 0.0, -grad / tl.where(norm == 0.0, 1.0, norm))
    elif PHI == 'modulus_phase':
        norm = tl.load(norms + slot, mask=valid, other=0.0)
        w0 = tl.where(norm == 0.0, 0.0, -grad * modulus_weight / tl.where(norm == 0.0, 1.0, norm))
        w1 = -grad * phase_weight
    else:
        w0 = -grad
    return w0[:, None], w1[:, None]


@triton.jit
def pull(q0, q1, q2, x0, x1, w0, w1, scale, PHI: tl.constexpr):
    r"""Returns the gradients of :math:`(q_0, q_1, q_2, x_0, x_1)` given those of the accumulators."""
    if PHI == 'dot':
        g0 = w0 * x0
        y0 = w0 * q0
        g1, g2, y1 = g0, g0, y0
    elif PHI == 'l1':
        g0 = tl.where(q0 > x0, w0, tl.where(q0 < x0, -w0, 0.0))
        y0 = -g0
        g1, g2, y1 = g0, g0, y0
    elif PHI == 'l2':
        g0 = w0 * (q0 - x0)
        y0 = -g0
        g1, g2, y1 = g0, g0, y0
    elif PHI == 'modulus':
        modulus = tl.sqrt((q0 - x0) * (q0 - x0) + (q1 - x1) * (q1 - x1))
        step = tl.where(modulus == 0.0, 0.0, w0 / tl.where(modulus == 0.0, 1.0, modulus))
        g0 = step * (q0 - x0)
        g1 = step * (q1 - x1)
        g2 = g0
        y0 = -g0
        y1 = -g1
    else:
        step = w0 * (q1 * x0 - q0)
        g0 = -step
        g1 = step * x0
        y0 = step * q1
        angle = (q2 - scale * x1) * 0.5
        sine = tl.sin(angle)
        turn = 0.5 * w1 * tl.cos(angle)
        g2 = tl.where(sine > 0.0, turn, tl.where(sine < 0.0, -turn, 0.0))
        y1 = -scale * g2
    return g0, g1, g2, y0, y1


@triton.jit
def load_parts(pointer, offset, inside, SIZE: tl.constexpr, PARTS: tl.constexpr):
    r"""Loads the parts (at most three) of the components at :obj:`offset`, which are :obj:`SIZE` apart."""
    a0 = tl.load(pointer + offset, mask=inside, other=0.0).to(tl.float32)
    a1 = a0
    a2 = a0
    if PARTS > 1:
        a1 = tl.load(pointer + offset + SIZE, mask=inside, other=0.0).to(tl.float32)
    if PARTS > 2:
        a2 = tl.load(pointer + offset + 2 * SIZE, mask=inside, other=0.0).to(tl.float32)
    return a0, a1, a2


@triton.jit
def load_others(positive, table, partner, b, slot, valid, k, PLAN: tl.constexpr, SIZE: tl.constexpr,
                PARTS: tl.constexpr):
    r"""Loads the vectors that the negatives of slots are mixed with: their partners (one row each), or the positive of
    :obj:`b`, which is one triple or a column of triples."""
    if PLAN == 'pair':
        rows = tl.load(partner + slot, mask=valid, other=0)[:, None]
        p0, p1, _ = load_parts(table, rows * (PARTS * SIZE) + k[None, :], valid[:, None] & (k < SIZE)[None, :], SIZE,
                               PARTS)
    else:
        p0, p1, _ = load_parts(positive, b * (PARTS * SIZE) + k[None, :], (k < SIZE)[None, :], SIZE, PARTS)
    return p0, p1


@triton.jit
def shares(bank, mask_index, weight, b, slot, valid, k, PLAN: tl.constexpr, SHARED: tl.constexpr, SIZE: tl.constexpr,
           PARTS: tl.constexpr):
    r"""Returns the fraction of the positive or partner in components :obj:`k` of each slot.

    :obj:`b` is the triple of all slots or a vector of their triples. A mask shared by all slots is a row.
    """
    if PLAN == 'none':
        f0 = 0.0
        f1 = 0.0
    elif PLAN == 'mix' or PLAN == 'pair':
        f0 = 1.0 - tl.load(weight + slot, mask=valid, other=0.0).to(tl.float32)[:, None]
        f1 = f0
    else:
        inside = (k < SIZE)[None, :]
        if SHARED and len(b.shape) == 0:
            mask = tl.load(mask_index + b).to(tl.int64)
        else:
            place = b if SHARED else slot
            mask = tl.load(mask_index + place, mask=valid, other=0).to(tl.int64)[:, None]
            inside = inside & valid[:, None]
        f0, f1, _ = load_parts(bank, mask * (PARTS * SIZE) + k[None, :], inside, SIZE, PARTS)
    return f0, f1


@triton.jit
def blend(f, positive, negative, PLAN: tl.constexpr):
    r"""Returns the mutated components according to equation 6 or 22."""
    if PLAN == 'hard':
        mutated = tl.where(f > 0.5, positive, negative)
    else:
        mutated = f * positive + (1.0 - f) * negative
    return mutated
