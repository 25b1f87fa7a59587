"""Importances of MAS as people write them."""

from __future__ import annotations

import torch
from torch.autograd import grad
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

import clbook

KIND = "mas"


def samples(model, x, what, absolute=torch.abs, average=True):
    was = model.training
    model.eval()
    total = [torch.zeros_like(p) for p in model.parameters()]
    for xn in x:
        for t, g in zip(total, grad(what(model(xn[None])[0]), list(model.parameters())), strict=True):
            t += absolute(g) / (len(x) if average else 1)
    model.train(was)
    return total


def one_by_one(model, x):
    return samples(model, x, lambda f: f.pow(2).sum())


def with_backward(model, loader):
    was = model.training
    model.eval()
    found = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    count = 0
    for x, _ in loader:
        for xn in x:
            model.zero_grad()
            torch.norm(model(xn[None]), p=2, dim=1).pow(2).mean().backward()
            count += 1
            for n, p in model.named_parameters():
                found[n] += p.grad.abs()
    model.train(was)
    return {n: f / count for n, f in found.items()}


def by_hand_with_the_chain_rule(model, x, mask):
    """2 |f J|, at once for all samples."""
    model_was = model.training
    model.eval()
    params = {n: p.detach() for n, p in model.named_parameters()}
    f = lambda params, xn: functional_call(model, params, (xn[None],))[0] * mask  # noqa: E731
    J = vmap(jacrev(f), (None, 0))(params, x)
    out = vmap(f, (None, 0))(params, x)
    model.train(model_was)
    return {n: 2 * torch.einsum("nc,nc...->n...", out, j).abs().mean(0) for n, j in J.items()}


def each_output(model, x, classes):
    was = model.training
    model.eval()
    total = [torch.zeros_like(p) for p in model.parameters()]
    for xn in x:
        f = model(xn[None])[0]
        rows = [grad(f[c], list(model.parameters()), retain_graph=True) for c in classes]
        for t, gs in zip(total, zip(*rows, strict=True), strict=True):
            t += torch.stack(gs).norm(dim=0) / len(x)
    model.train(was)
    return total


each_output.form = "outputs"


def in_clbook(net, theta, x, mask):
    return clbook.mas_importance(net, theta, x, mask=mask)


RIGHT = [one_by_one, with_backward, by_hand_with_the_chain_rule, each_output, in_clbook]


def undeclared_sum(model, x):
    return samples(model, x, lambda f: f.pow(2).sum(), average=False)


def half_the_length(model, x):
    return samples(model, x, lambda f: f.pow(2).sum() / 2)


NOTED = {undeclared_sum: "reduction='sum'", half_the_length: "off by exactly 1/2"}


def whole_batch(model, x):
    was = model.training
    model.eval()
    found = grad(model(x).pow(2).sum(1).mean(), list(model.parameters()))
    model.train(was)
    return [g.abs() for g in found]


def batches_of_a_loader(model, loader):
    was = model.training
    model.eval()
    total = [torch.zeros_like(p) for p in model.parameters()]
    for x, _ in loader:
        for t, g in zip(total, grad(model(x).pow(2).sum(1).mean(), list(model.parameters())), strict=True):
            t += g.abs() / len(loader)
    model.train(was)
    return total


def signed(model, x):
    return samples(model, x, lambda f: f.pow(2).sum(), lambda g: g)


def squared(model, x):
    return samples(model, x, lambda f: f.pow(2).sum(), torch.square)


def plain_norm(model, x):
    return samples(model, x, lambda f: f.norm())


def sum_of_outputs(model, x):
    return samples(model, x, lambda f: f.sum())


def probabilities(model, x):
    return samples(model, x, lambda f: f.softmax(0).square().sum())


def of_the_loss(model, dataset):
    was = model.training
    model.eval()
    total = [torch.zeros_like(p) for p in model.parameters()]
    for x, y in dataset:
        for t, g in zip(total, grad(F.cross_entropy(model(x[None]), y[None]), list(model.parameters())), strict=True):
            t += g.abs() / len(dataset)
    model.train(was)
    return total


def mask_ignored(model, x, mask):
    return one_by_one(model, x)


def largest(model, x):
    return samples(model, x, lambda f: f.max())


WRONG = {
    whole_batch: "abs-after-mean", batches_of_a_loader: "abs-after-mean", signed: "no-abs", squared: "squared",
    plain_norm: "norm-unsquared", sum_of_outputs: "sum-of-outputs", probabilities: "softmax", of_the_loss: "loss",
    mask_ignored: "all-outputs", largest: "largest-output",
}  # fmt: skip
UNKNOWN: list = []
