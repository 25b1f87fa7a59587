r"""How much each parameter matters: the Fisher information in four forms, and MAS.

With l_n(theta) = log p(y_n | x_n, theta) and the mean over N samples,

    exact      F = 1/N sum_n sum_c p(c | x_n) (d log p(c | x_n) / d theta)^2
    sampled    F = 1/N sum_n (d log p(c_n | x_n) / d theta)^2,   c_n drawn from p(. | x_n)
    empirical  F = 1/N sum_n (d log p(y_n | x_n) / d theta)^2,   y_n the label
    batched    F = 1/(N/B) sum_b (1/B sum_{n in b} d l_n / d theta)^2,   about 1/B of the empirical one: a common bug

Each is computed by its definition with torch.func (any module) or, where every parameter belongs to a Linear layer, by the
outer-product identity: the gradient of one sample is g_n a_n^T, so sum_n (g_n a_n^T)^2 = (G*G)^T (A*A), one matrix
product a layer. Source: van de Ven 2025 (arXiv:2502.11756). Book: book/ewc, "The Fisher information".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from clbook.net import Net, masked

FISHERS = ("exact", "sampled", "empirical", "batched")
WAYS = ("auto", "definition", "outer")
CHUNK = 2000  # samples at a time


def fisher(
    net: Net,
    theta: Float[Tensor, " P"],
    x: Float[Tensor, "N D"],
    y: Int64[Tensor, " N"] | None = None,
    *,
    mask: Bool[Tensor, " C"] | None = None,
    kind: str = "exact",
    how: str = "auto",
    batch_size: int = 128,
    rng: torch.Generator | None = None,
) -> Float[Tensor, " P"]:
    """The diagonal of the Fisher information [P] at theta, a mean per sample; see the module for the four kinds.

    mask [C] says which outputs belong to the task (default: all). `y` is needed for "empirical" and "batched", `rng` for
    "sampled", `batch_size` B for "batched". `how`: "outer" (Linear layers only), "definition", or "auto", whichever fits.

    Raises ValueError for an unknown kind, labels that are missing or outside the mask, a missing generator, no samples, or a
    network without class probabilities.
    Source: Kirkpatrick et al. 2017; van de Ven 2025, eqs. 4-8. Book: book/ewc, "The Fisher information".
    """
    _check(net, x, y, kind, how, rng)
    mask = torch.ones(net(theta, x[:1]).shape[-1], dtype=torch.bool, device=x.device) if mask is None else mask
    if y is not None and kind in ("empirical", "batched") and not bool(mask[y].all()):
        allowed = mask.nonzero().flatten().tolist()
        raise ValueError(f"label {int(y[~mask[y]][0])} is not among the outputs of the mask, {allowed}")
    if y is not None and kind == "batched":
        return _batched(net, theta, x, y, mask, batch_size)
    if kind == "sampled":
        y = _sample(net, theta, x, mask, rng)
    elif kind == "exact":
        y = None
    one = _squares_outer if _use_outer(net, theta, x, how) else _squares_definition
    parts = (one(net, theta, x[s], None if y is None else y[s], mask) for s in _slices(len(x), CHUNK))
    return sum(parts, torch.zeros_like(theta)) / len(x)


def mas_importance(
    net: Net,
    theta: Float[Tensor, " P"],
    x: Float[Tensor, "N D"],
    *,
    mask: Bool[Tensor, " C"] | None = None,
    how: str = "auto",
    per_output: bool = False,
) -> Float[Tensor, " P"]:
    """Memory aware synapses: Omega [P] = 1/N sum_n | d ||f(x_n; theta)||^2 / d theta |, no labels needed.

    The absolute value is taken per sample. Outputs outside `mask` [C] are left out of the norm. With `per_output` each output
    has its own gradient and backward pass: Omega = 1/N sum_n sqrt(sum_c (d f_c(x_n; theta) / d theta)^2).
    Source: Aljundi et al. 2018 (arXiv:1711.09601), section 4.1. Book: book/mas.
    """
    if len(x) == 0:
        raise ValueError("an importance needs at least one sample, got none")
    if how not in WAYS:
        raise ValueError(f"unknown way {how!r}: choose one of {', '.join(WAYS)}")
    mask = torch.ones(net(theta, x[:1]).shape[-1], dtype=torch.bool, device=x.device) if mask is None else mask

    def norm(outputs: Tensor) -> Tensor:
        return outputs[..., mask].square().sum(-1)

    if _use_outer(net, theta, x, how):
        parts = (_outer_abs(net, theta, x[s], mask if per_output else norm) for s in _slices(len(x), CHUNK))
    elif per_output:
        jacobian = vmap(jacrev(lambda t, xn: net(t, xn[None])[0][mask]), (None, 0))
        size = _per_chunk(net, int(mask.sum()))
        parts = (jacobian(theta, x[s]).norm(dim=1).sum(0) for s in _slices(len(x), size))
    else:
        gradient = vmap(grad(lambda t, xn: norm(net(t, xn[None])).sum()), (None, 0))
        parts = (gradient(theta, x[s]).abs().sum(0) for s in _slices(len(x), _per_chunk(net, 1)))
    return sum(parts, torch.zeros_like(theta)) / len(x)


def fisher_overlap(f1: Float[Tensor, " P"], f2: Float[Tensor, " P"]) -> float:
    """How much two diagonal Fishers weigh the same parameters: 1 the same, 0 none in common.

    With both scaled to unit trace, overlap = 1 - d^2 with d^2 = 1/2 || sqrt(F1) - sqrt(F2) ||^2 = 1 - sum_i sqrt(F1_i F2_i).

    Raises ValueError for a Fisher that is negative anywhere or zero everywhere.
    Source: Kirkpatrick et al. 2017, section 4.3 of the supplement (printed there without the square). Book: notebooks/03_ewc.
    """
    if min(f1.min(), f2.min()) < 0 or min(f1.sum(), f2.sum()) <= 0:
        raise ValueError("an overlap needs two Fishers that are nonnegative and not zero everywhere")
    return float((f1 / f1.sum() * (f2 / f2.sum())).sqrt().sum())


def _check(net: Net, x: Tensor, y: Tensor | None, kind: str, how: str, rng: torch.Generator | None) -> None:
    if kind not in FISHERS:
        raise ValueError(f"unknown kind of Fisher {kind!r}: choose one of {', '.join(FISHERS)}")
    if how not in WAYS:
        raise ValueError(f"unknown way {how!r}: choose one of {', '.join(WAYS)}")
    if net.loss_name != "classification":
        raise ValueError(
            f"the Fisher needs class probabilities, and this network is trained for {net.loss_name}; "
            "use a method without labels (MAS, L2, replay)"
        )
    if len(x) == 0:
        raise ValueError("a Fisher needs at least one sample, got none")
    if kind in ("empirical", "batched") and y is None:
        raise ValueError(f"the {kind} Fisher needs the labels y")
    if kind == "sampled" and rng is None:
        raise ValueError("the sampled Fisher draws labels: give it rng, a torch.Generator")


def _use_outer(net: Net, theta: Tensor, x: Tensor, how: str) -> bool:
    if how == "definition":
        return False
    try:
        _record(net, theta, x[:1])
    except ValueError:
        if how == "outer":
            raise
        return False
    return True


def _sample(net: Net, theta: Tensor, x: Tensor, mask: Tensor, rng: torch.Generator | None) -> Tensor:
    p = masked(net(theta, x), mask).softmax(-1).to("cpu")  # the generator's device, so that the draw is the same everywhere
    return torch.multinomial(p, 1, generator=rng).squeeze(1).to(x.device)


# by definition ---------------------------------------------------------------------------------------------------------


def _squares_definition(net: Net, theta: Tensor, x: Tensor, y: Tensor | None, mask: Tensor) -> Tensor:
    """sum_n of the squared gradient of log p(y_n|x_n), or of its mean over p(c|x_n) where y is None."""

    def log_p(t: Tensor, xn: Tensor) -> Tensor:
        return masked(net(t, xn[None])[0], mask).log_softmax(-1)  # [C]

    def exact(xn: Tensor) -> Tensor:
        own = lambda t: log_p(t, xn)[mask]  # [classes of the task]  # noqa: E731
        return (own(theta).exp()[:, None] * jacrev(own)(theta).square()).sum(0)

    if y is None:
        parts = (vmap(exact)(x[s]).sum(0) for s in _slices(len(x), _per_chunk(net, int(mask.sum()))))
        return sum(parts, torch.zeros_like(theta))
    gradient = vmap(grad(lambda t, xn, c: log_p(t, xn).gather(0, c[None]).sum()), (None, 0, 0))
    parts = (gradient(theta, x[s], y[s]).square().sum(0) for s in _slices(len(x), _per_chunk(net, 1)))
    return sum(parts, torch.zeros_like(theta))


def _batched(net: Net, theta: Tensor, x: Tensor, y: Tensor, mask: Tensor, batch_size: int) -> Tensor:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")

    def loss(t: Tensor, xb: Tensor, yb: Tensor) -> Tensor:
        return nn.functional.cross_entropy(masked(net(t, xb), mask), yb)

    batches = list(_slices(len(x), batch_size))
    return sum((grad(loss)(theta, x[s], y[s]).square() for s in batches), torch.zeros_like(theta)) / len(batches)


# by the outer product --------------------------------------------------------------------------------------------------


def _squares_outer(net: Net, theta: Tensor, x: Tensor, y: Tensor | None, mask: Tensor) -> Tensor:
    """The same sum for Linear layers: (G*G)^T (A*A), with G*G averaged over the classes first where y is None."""
    inputs, outputs, logits = _record(net, theta, x)
    log_p = masked(logits, mask).log_softmax(-1)  # [N, C]
    if y is None:
        squares = [torch.zeros_like(z) for z in outputs]
        for c in mask.nonzero().flatten().tolist():
            weight = log_p[:, c, None].detach().exp()  # p(c | x_n) [N, 1]
            signals = torch.autograd.grad(log_p[:, c].sum(), outputs, retain_graph=True)
            squares = [s + weight * g.square() for s, g in zip(squares, signals, strict=True)]
    else:
        signals = torch.autograd.grad(log_p.gather(1, y[:, None]).sum(), outputs)
        squares = [g.square() for g in signals]
    return _assemble(net, squares, [a.square() for a in inputs])


def _outer_abs(net: Net, theta: Tensor, x: Tensor, scalar: Callable[[Tensor], Tensor] | Tensor) -> Tensor:
    """sum_n |g_n a_n^T| = |G|^T |A| for the gradient of `scalar` of the outputs, or its length over the outputs in a mask."""
    inputs, outputs, logits = _record(net, theta, x)
    if isinstance(scalar, Tensor):
        classes = scalar.nonzero().flatten().tolist()
        each = [torch.autograd.grad(logits[:, c].sum(), outputs, retain_graph=True) for c in classes]
        signals = [torch.stack(gs).norm(dim=0) for gs in zip(*each, strict=True)]  # |a_n| does not depend on the output
    else:
        signals = torch.autograd.grad(scalar(logits).sum(), outputs)
    return _assemble(net, [g.abs() for g in signals], [a.abs() for a in inputs])


def _record(net: Net, theta: Tensor, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The inputs A [N, in] and outputs Z [N, out] of every Linear layer, and the network's outputs [N, C].

    Raises ValueError where the identity does not hold.
    """
    calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def hook(layer: nn.Module, args: tuple[Tensor, ...], z: Tensor) -> Tensor:
        calls.setdefault(layer, []).append((args[0].detach(), z))
        return z.clone()  # what follows may change its input in place, as ReLU(inplace=True) does, and z must stay

    layers = [layer for _, layer in _linear_layers(net)]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        with torch.enable_grad():
            parameters = net.unflatten(theta.detach().requires_grad_())
            logits = functional_call(net.module, parameters, (x,))
    finally:
        for handle in handles:
            handle.remove()
    linear = sum(p.numel() for layer in layers for p in layer.parameters())
    if linear != net.n_params or any(len(calls.get(m, ())) != 1 or calls[m][0][0].dim() != 2 for m in layers):
        raise ValueError(
            'how="outer" needs every parameter in a Linear layer, and each layer used once on [N, in] inputs; '
            'use how="definition"'
        )
    return [calls[layer][0][0] for layer in layers], [calls[layer][0][1] for layer in layers], logits


def _assemble(net: Net, signals: list[Tensor], inputs: list[Tensor]) -> Tensor:
    """One flat vector [P] from per-layer signals [N, out] and inputs [N, in]."""
    parts = {}
    for (name, layer), g, a in zip(_linear_layers(net), signals, inputs, strict=True):
        prefix = f"{name}." if name else ""  # the module itself may be the Linear layer
        parts[f"{prefix}weight"] = g.T @ a  # [out, in]
        if layer.bias is not None:
            parts[f"{prefix}bias"] = g.sum(0)
    return net.flatten(parts)


def _linear_layers(net: Net) -> Iterator[tuple[str, nn.Linear]]:
    return ((n, m) for n, m in net.module.named_modules() if isinstance(m, nn.Linear))


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def _per_chunk(net: Net, rows: int) -> int:
    """How many samples' gradients (rows vectors [P] each) fit in about 256 MiB."""
    return max(1, 2**28 // (4 * net.n_params * rows))
