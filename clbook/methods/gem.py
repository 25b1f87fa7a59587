"""Gradient episodic memory: old samples do not train the network, they forbid steps that would hurt them.

Book: book/families, "Rehearsal"; notebooks/06_families, "The direction of the gradient".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from clbook.checks import InputError, Strength
from clbook.method import Rng, State
from clbook.methods.replay import Rehearsal
from clbook.net import Net
from clbook.scenarios import Batch, Scenario


@dataclass(frozen=True)
class AGEM(Rehearsal):
    """Averaged gradient episodic memory: a step may not go against the gradient on the old samples as a whole.

    g <- g - (g . g_ref / g_ref . g_ref) g_ref   where g . g_ref < 0, with g_ref the gradient on a batch from the buffer.
    Source: Chaudhry et al. 2019 (arXiv:1812.00420), eq. 11.
    """

    label = "A-GEM"

    def direction(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, " P"]:
        g, old = grad(lambda t: net.loss(t, batch))(theta), batch.old
        return g if old is None else project(g, grad(lambda t: net.loss(t, old))(theta))


@dataclass(frozen=True)
class GEM(Rehearsal):
    """Gradient episodic memory: a step may not go against the gradient on any one earlier task.

    g <- argmin_z |z - g|^2 / 2 subject to g_k . z >= 0 for every earlier task k, with g_k [P] the gradient on a batch of its
    kept samples (the paper: on all of them). Through the dual, z = g + G^T v with v = argmin_{v >= margin} |g + G^T v|^2 / 2;
    margin > 0 (0.5 in the paper) leans towards the old tasks. The dual has one number a task and is solved under vmap.

    Raises InputError for a negative margin, or a reservoir, which can lose all samples of a task.
    Source: Lopez-Paz & Ranzato 2017 (arXiv:1706.08840), eqs. 8-11.
    """

    margin: Strength = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.buffer != "balanced":
            raise InputError(f'GEM needs samples of every task: buffer must be "balanced", got {self.buffer!r}')

    def prepare(self, state: State, scenario: Scenario, k: int, batch: Batch, rng: Rng) -> Batch:
        kept, size = state["kept"], len(batch.x)
        if len(kept) == 0:
            return batch
        parts = []
        for j in range(k):  # a batch from each earlier task
            own = kept[kept[:, 0] == j]
            parts.append(own[torch.randint(len(own), (size,), generator=rng).to(own.device)])
        drawn = torch.stack(parts)  # [k, B, 2]
        return batch._replace(old=scenario.batch(drawn[..., 0], drawn[..., 1], k))

    def direction(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, " P"]:
        g, old = grad(lambda t: net.loss(t, batch))(theta), batch.old
        if old is None:
            return g
        one = grad(lambda t, x, y, mask: net.loss(t, batch._replace(x=x, y=y, mask=mask)))  # under the batch's dropout
        return project_all(g, vmap(one, (None, 0, 0, 0))(theta, old.x, old.y, old.mask), self.margin)


def project(g: Float[Tensor, " P"], g_ref: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """The vector closest to g that has no negative product with g_ref."""
    r = unit(g_ref)  # the square of a tiny gradient would be 0 in single precision
    dot = g @ r
    return g - torch.where(dot < 0, dot / (r @ r), 0.0) * r


def unit(g: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """g scaled so that its largest entry is 1 or -1; zero stays zero."""
    return g / g.abs().max().clamp_min(torch.finfo(g.dtype).tiny)


def project_all(g: Float[Tensor, " P"], G: Float[Tensor, "k P"], margin: float | Tensor = 0.0) -> Float[Tensor, " P"]:
    """The vector closest to g that has no negative product with any row of G, leaning towards them by `margin` if one had."""
    G = torch.where((G.square().sum(1) > 0)[:, None], G, 0.0)  # a gradient whose square is 0 forbids nothing
    A, b = G @ G.T, G @ g
    v = margin + dual(A, b + margin * A.sum(1))  # v = margin + s with s >= 0
    return g + torch.where((b < 0).any(), v, 0.0) @ G


def dual(A: Float[Tensor, "k k"], b: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """argmin_{v >= 0} v^T A v / 2 + b^T v for a positive semi-definite A, by principal pivoting.

    Guess which v_i are positive, solve for them, and move those to the other side whose sign is wrong: v_i < 0, or
    w_i = (A v + b)_i < 0 where v_i = 0. All at once at first; then one at a time, the last one, which always ends. A fixed
    number of rounds and no branch, so that many problems are solved in one batch; k is a number of tasks, so it is small.
    Source: Murty 1974; Kostreva 1978. The conditions are those of Karush, Kuhn and Tucker.
    """
    k, eps = len(b), torch.finfo(A.dtype).eps
    scale = A.diagonal().clamp_min(torch.finfo(A.dtype).tiny).rsqrt()  # to a unit diagonal, so that one tolerance fits all
    eye = torch.eye(k, dtype=A.dtype, device=A.device)
    A, b = A * scale * scale[:, None] + 10 * eps * eye, b * scale
    slack = 10 * eps * b.abs().max()
    positive = b < 0
    for turn in range(3 * k):
        system = torch.where(positive & positive[:, None], A, eye)
        v = torch.linalg.solve(system, torch.where(positive, -b, 0.0))
        wrong = torch.where(positive, v < -slack, A @ v + b < -slack)
        if turn >= k:
            wrong = wrong & (wrong.flip(0).cumsum(0).flip(0) == 1)
        positive = positive ^ wrong
    return v.clamp_min(0) * scale
