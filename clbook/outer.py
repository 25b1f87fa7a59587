"""The importances of networks made of Linear layers, by one matrix product a layer.

The gradient of one sample with respect to a layer's weights is g_n a_n^T, with a_n the layer's input and g_n the gradient
with respect to its output. So sum_n (g_n a_n^T)^2 = (G*G)^T (A*A) and sum_n |g_n a_n^T| = |G|^T |A|: no gradient of a
single sample is ever written down. Source: Goodfellow 2015 (arXiv:1510.01799). Book: notebooks/02_laplace_and_fisher.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clbook.checks import InputError
from clbook.net import Net

Recorded = tuple[list[Tensor], list[Tensor], Tensor]


def applies(net: Net, theta: Tensor, x: Tensor, algorithm: Literal["auto", "definition", "outer"]) -> bool:
    """Whether the importances are to be had this way. Raises InputError where it was asked for and cannot be."""
    if algorithm == "definition":
        return False
    try:
        record(net, theta, x[:1])
    except InputError:
        if algorithm == "outer":
            raise
        return False
    return True


def squares(net: Net, theta: Tensor, x: Tensor, y: Tensor | None, mask: Tensor) -> Tensor:
    """sum_n of the squared gradient of log p(y_n | x_n) [P], or of its expectation over y where y is None."""
    inputs, outputs, f = record(net, theta, x)
    if y is None:
        weight, value = net.likelihood.fisher_terms(f, mask)  # [N, K]
        sums = [torch.zeros_like(z) for z in outputs]
        for k in range(value.shape[1]):
            signals = torch.autograd.grad(value[:, k].sum(), outputs, retain_graph=True)
            w = weight[:, k, None]
            sums = [s + w * g.square() for s, g in zip(sums, signals, strict=True)]
    else:
        signals = torch.autograd.grad(net.likelihood.log_p(f, y, mask).sum(), outputs)
        sums = [g.square() for g in signals]
    return _assemble(net, sums, [a.square() for a in inputs])


def sensitivities(net: Net, theta: Tensor, x: Tensor, mask: Tensor | None, per_output: bool) -> Tensor:
    """sum_n |d ||f(x_n)||^2 / d theta| [P], or sum_n of the length of d f(x_n) / d theta over the outputs."""
    inputs, outputs, f = record(net, theta, x)
    f = (f if mask is None else f[..., mask]).flatten(1)
    if per_output:
        each = [torch.autograd.grad(f[:, c].sum(), outputs, retain_graph=True) for c in range(f.shape[1])]
        signals = [torch.stack(gs).norm(dim=0) for gs in zip(*each, strict=True)]  # |a_n| does not depend on the output
    else:
        signals = [g.abs() for g in torch.autograd.grad(f.square().sum(), outputs)]
    return _assemble(net, signals, [a.abs() for a in inputs])


def record(net: Net, theta: Tensor, x: Tensor) -> Recorded:
    """The inputs A [N, in] and outputs Z [N, out] of every Linear layer, and the network's outputs [N, C].

    Raises InputError where the identity does not hold.
    """
    calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def hook(layer: nn.Module, args: tuple[Tensor, ...], z: Tensor) -> Tensor:
        calls.setdefault(layer, []).append((args[0].detach(), z))
        return z.clone()  # what follows may change its input in place, as ReLU(inplace=True) does, and z must stay

    layers = [layer for _, layer in _linear_layers(net)]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        with torch.enable_grad():
            f = functional_call(net.module, net.unflatten(theta.detach().requires_grad_()), (x,))
    finally:
        for handle in handles:
            handle.remove()
    linear = sum(p.numel() for layer in layers for p in layer.parameters())
    if linear != net.n_params or any(len(calls.get(m, ())) != 1 or calls[m][0][0].dim() != 2 for m in layers):
        raise InputError(
            'algorithm="outer" needs every parameter in a Linear layer, and each layer used once on [N, in] inputs; '
            'use algorithm="definition"'
        )
    return [calls[layer][0][0] for layer in layers], [calls[layer][0][1] for layer in layers], f


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
