r"""How much each parameter matters to what a network says: the diagonal of the Fisher information, in four estimates.

With l_n(theta) = log p(y_n | x_n, theta), N samples and, for sequences and real targets, T observations in each (else T = 1),

    exact      F = 1/NT sum_n E_{y ~ p(. | x_n)} (d log p(y | x_n) / d theta)^2, for classes a sum with weights p(c | x_n)
    sampled    F = 1/NT sum_n (d log p(y_n | x_n) / d theta)^2,   y_n drawn from p(. | x_n)
    empirical  F = 1/NT sum_n (d log p(y_n | x_n) / d theta)^2,   y_n the label
    batched    F = B/NT sum_b (1/B sum_{n in b} d l_n / d theta)^2,   about 1/B of the empirical one: a common bug

The likelihood says what p is (see likelihood). Here everything is written by its definition with torch.func, for any module;
where every parameter belongs to a Linear layer, `outer` gets the same from one matrix product a layer.
Source: van de Ven 2025 (arXiv:2502.11756). Book: book/ewc, "The Fisher information".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Shaped
from pydantic import InstanceOf
from torch import Tensor
from torch.func import grad, jacrev, vmap

from clbook import outer
from clbook.checks import Count, InputError, checked
from clbook.inputs import outputs_for, targets_for
from clbook.net import Net
from clbook.scenarios import Batch

Estimator = Literal["exact", "sampled", "empirical", "batched"]
Algorithm = Literal["auto", "definition", "outer"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
CHUNK = 2000  # samples at a time


@checked
def fisher(
    net: InstanceOf[Net],
    theta: Float[Tensor, " P"],
    x: Shaped[Tensor, "N *D"],
    y: Shaped[Tensor, "N *K"] | None = None,
    *,
    mask: Bool[Tensor, " C"] | None = None,
    estimator: Estimator = "exact",
    algorithm: Algorithm = "auto",
    batch_size: Count = 128,
    rng: torch.Generator | None = None,
) -> Float[Tensor, " P"]:
    """The diagonal of the Fisher information [P] at theta, a mean per observation; see the module for the four estimators.

    mask [C] says which outputs belong to the task (default: all). `y` is needed for "empirical" and "batched", `rng` for
    "sampled", `batch_size` B for "batched". `algorithm`: "outer" (Linear layers only), "definition", or "auto", whichever fits.

    Raises InputError for unknown words, targets that are missing or outside the mask, a missing generator, and no samples.
    Source: Kirkpatrick et al. 2017; van de Ven 2025, eqs. 4-8. Book: book/ewc, "The Fisher information".

    For two equal probabilities p = 1/2 each weight has F = p (1 - p) x^2:

    >>> from clbook import mlp
    >>> net, theta = mlp(2, 2, hidden=()), torch.zeros(6)  # 4 weights, 2 biases
    >>> fisher(net, theta, torch.tensor([[1.0, 2.0]]))
    tensor([0.2500, 1.0000, 0.2500, 1.0000, 0.2500, 0.2500])
    """
    outputs = outputs_for(net, theta, x, mask)
    mask = torch.ones(outputs.shape[-1], dtype=torch.bool, device=x.device) if mask is None else mask
    if estimator == "exact":
        y = None
    elif estimator == "sampled":
        if rng is None:
            raise InputError("the sampled Fisher draws targets: give it rng, a torch.Generator")
        y = torch.cat([net.likelihood.sample(net(theta, x[s]), mask, rng) for s in slices(len(x), CHUNK)])
    else:
        y = targets_for(net, y, outputs, mask, estimator)
    if estimator == "batched" and y is not None:
        return _batched(net, theta, x, y, mask, batch_size)
    squares = outer.squares if outer.applies(net, theta, x, algorithm) else _squares
    parts = (squares(net, theta, x[s], None if y is None else y[s], mask) for s in slices(len(x), CHUNK))
    return sum(parts, torch.zeros_like(theta)) / (len(x) * net.likelihood.observations(outputs))


def _squares(net: Net, theta: Tensor, x: Tensor, y: Tensor | None, mask: Tensor) -> Tensor:
    """sum_n of the squared gradient of log p(y_n | x_n), or of its expectation over y where y is None."""
    if y is None:
        rows = net.likelihood.fisher_terms(net(theta, x[:1]), mask)[0].shape[-1]

        def expected(xn: Tensor) -> Tensor:
            terms = lambda t: net.likelihood.fisher_terms(net(t, xn[None]), mask)  # noqa: E731
            slope = jacrev(lambda t: terms(t)[1][0])(theta)  # [K, P]
            return terms(theta)[0][0] @ slope.square()

        parts = (vmap(expected)(x[s]).sum(0) for s in slices(len(x), per_chunk(net, rows)))
        return sum(parts, torch.zeros_like(theta))

    def log_p(t: Tensor, xn: Tensor, yn: Tensor) -> Tensor:
        return net.likelihood.log_p(net(t, xn[None]), yn[None], mask)[0]

    gradient = vmap(grad(log_p), (None, 0, 0))
    parts = (gradient(theta, x[s], y[s]).square().sum(0) for s in slices(len(x), per_chunk(net, 1)))
    return sum(parts, torch.zeros_like(theta))


def _batched(net: Net, theta: Tensor, x: Tensor, y: Tensor, mask: Tensor, batch_size: int) -> Tensor:
    batches, index = list(slices(len(x), batch_size)), torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def gradient(s: slice) -> Tensor:
        batch = Batch(x[s], y[s], mask.expand(len(x[s]), -1), index[s], index[s])
        return grad(lambda t: net.loss(t, batch))(theta)

    total = sum((gradient(s).square() for s in batches), torch.zeros_like(theta))
    observations = net.likelihood.observations(net(theta, x[:1]))  # the loss is their mean
    return observations * total / len(batches)


def fisher_overlap(f1: Float[Tensor, " P"], f2: Float[Tensor, " P"]) -> float:
    """How much two diagonal Fishers weigh the same parameters: 1 the same, 0 none in common.

    With both scaled to unit trace, overlap = 1 - d^2 with d^2 = 1/2 || sqrt(F1) - sqrt(F2) ||^2 = 1 - sum_i sqrt(F1_i F2_i).

    Raises InputError for a Fisher that is negative anywhere or zero everywhere.
    Source: Kirkpatrick et al. 2017, section 4.3 of the supplement (printed there without the square). Book: notebooks/03_ewc.

    >>> one, both = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    >>> print(f"{fisher_overlap(one, one):.2f}, {fisher_overlap(one, both):.2f}")
    1.00, 0.71
    """
    if min(f1.min(), f2.min()) < 0 or min(f1.sum(), f2.sum()) <= 0:
        raise InputError("an overlap needs two Fishers that are nonnegative and not zero everywhere")
    return float((f1 / f1.sum() * (f2 / f2.sum())).sqrt().sum())


def slices(n: int, size: int) -> Iterator[slice]:
    """0 .. n in pieces of at most `size`."""
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def per_chunk(net: Net, rows: int) -> int:
    """How many samples' gradients (rows vectors [P] each) fit in about 256 MiB, and one at least."""
    return max(1, 2**28 // (4 * net.n_params * rows))
