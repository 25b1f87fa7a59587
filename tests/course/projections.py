"""Projections of A-GEM as people write them."""

from __future__ import annotations

import torch

KIND = "agem"


def with_an_if(g, g_ref):
    if torch.dot(g, g_ref) < 0:
        return g - torch.dot(g, g_ref) / torch.dot(g_ref, g_ref) * g_ref
    return g


def without_a_branch(grad, grad_ref):
    share = (grad * grad_ref).sum() / grad_ref.square().sum()
    return grad - torch.clamp(share, max=0) * grad_ref


def along_a_unit_vector(gradient, reference):
    unit = reference / reference.norm()
    along = gradient @ unit
    return torch.where(along >= 0, gradient, gradient - along * unit)


def least_squares(g, ref):
    """The closest point of a half-space, through the dual."""
    v = max(0.0, -(g @ ref).item() / (ref @ ref).item())
    return g + v * ref


RIGHT = [with_an_if, without_a_branch, along_a_unit_vector, least_squares]
NOTED: dict = {}


def added(g, g_ref):
    dot = g @ g_ref
    return g + dot / (g_ref @ g_ref) * g_ref if dot < 0 else g


def other_side(g, g_ref):
    dot = g @ g_ref
    return g - dot / (g_ref @ g_ref) * g_ref if dot > 0 else g


def always(g, g_ref):
    return g - (g @ g_ref) / (g_ref @ g_ref) * g_ref


def never(g, g_ref):
    return g if torch.dot(g, g_ref) is not None else g_ref


def by_the_norm(g, g_ref):
    dot = g @ g_ref
    return g - dot / g_ref.norm() * g_ref if dot < 0 else g


def unscaled(g, g_ref):
    dot = g @ g_ref
    return g - dot * g_ref if dot < 0 else g


def by_its_own(g, g_ref):
    dot = g @ g_ref
    return g - dot / (g @ g) * g_ref if dot < 0 else g


def the_other_one(g, g_ref):
    dot = g @ g_ref
    return g_ref - dot / (g @ g) * g if dot < 0 else g


def replaced(g, g_ref):
    return g_ref if g @ g_ref < 0 else g


def replaced_where_they_agree(g, g_ref):
    return with_an_if(g, g_ref) if g @ g_ref < 0 else g_ref


def stopped(g, g_ref):
    return torch.zeros_like(g) if g @ g_ref < 0 else g


def entry_by_entry(g, g_ref):
    return g * (g * g_ref >= 0)


WRONG = {
    added: "plus", other_side: "wrong-side", always: "always", never: "never", by_the_norm: "norm-unsquared",
    unscaled: "not-normalised", by_its_own: "own-norm", the_other_one: "exchanged", replaced: "reference",
    replaced_where_they_agree: "reference", stopped: "cut", entry_by_entry: "entries",
}  # fmt: skip


def scaled(g, g_ref):
    return 2 * with_an_if(g, g_ref)


UNKNOWN = [scaled]
