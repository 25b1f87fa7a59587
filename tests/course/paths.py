"""Importances of synaptic intelligence as people write them."""

from __future__ import annotations

import torch

KIND = "si"


def at_once(gradients, thetas, xi):
    return (-(gradients * thetas.diff(dim=0)).sum(0)).clamp_min(0) / ((thetas[-1] - thetas[0]).square() + xi)


def step_by_step(grads, trajectory, damping):
    w = torch.zeros_like(trajectory[0])
    for g, before, after in zip(grads, trajectory[:-1], trajectory[1:], strict=True):
        w += g * (before - after)
    return torch.relu(w) / ((trajectory[-1] - trajectory[0]) ** 2 + damping)


def with_einsum(gradients, thetas, xi):
    w = torch.einsum("sp,sp->p", gradients.double(), (thetas[:-1] - thetas[1:]).double())
    return torch.maximum(w, torch.zeros(())) / (torch.pow(thetas[-1] - thetas[0], 2) + xi)


RIGHT = [at_once, step_by_step, with_einsum]


def negative_kept(gradients, thetas, xi):
    return -(gradients * thetas.diff(dim=0)).sum(0) / ((thetas[-1] - thetas[0]).square() + xi)


NOTED = {negative_kept: "negative='keep'"}


def over(w, thetas, xi):
    return w.clamp_min(0) / ((thetas[-1] - thetas[0]).square() + xi)


def whole_gradient(directions, thetas, xi):
    return over(-(directions * thetas.diff(dim=0)).sum(0), thetas, xi)


def plus(gradients, thetas, xi):
    return over((gradients * thetas.diff(dim=0)).sum(0), thetas, xi)


def plus_kept(gradients, thetas, xi):
    return (gradients * thetas.diff(dim=0)).sum(0) / ((thetas[-1] - thetas[0]).square() + xi)


def absolute(gradients, thetas, xi):
    return over((gradients * thetas.diff(dim=0)).sum(0).abs(), thetas, xi)


def every_step(gradients, thetas, xi):
    return over((gradients * thetas.diff(dim=0)).abs().sum(0), thetas, xi)


def squares(gradients, thetas, xi):
    return over(0.1 * gradients.square().sum(0), thetas, xi)


def path_alone(gradients, thetas, xi):
    return (-(gradients * thetas.diff(dim=0)).sum(0)).clamp_min(0)


def distance(gradients, thetas, xi):
    return (-(gradients * thetas.diff(dim=0)).sum(0)).clamp_min(0) / ((thetas[-1] - thetas[0]).abs() + xi)


def inside(gradients, thetas, xi):
    return (-(gradients * thetas.diff(dim=0)).sum(0)).clamp_min(0) / (thetas[-1] - thetas[0] + xi) ** 2


def undamped(gradients, thetas, xi):
    return (-(gradients * thetas.diff(dim=0)).sum(0)).clamp_min(0) / (thetas[-1] - thetas[0]) ** 2


def along(gradients, thetas, xi):
    return (-(gradients * thetas.diff(dim=0)).sum(0)).clamp_min(0) / (thetas.diff(dim=0).square().sum(0) + xi)


def at_the_end(gradients, thetas, xi):
    return over(-gradients[-1] * (thetas[-1] - thetas[-2]), thetas, xi)


def one_late(gradients, thetas, xi):
    w = sum(-g * (b - a) for g, a, b in zip(gradients[1:], thetas[:-2], thetas[1:-1], strict=True))
    return over(w, thetas, xi)


WRONG = {
    whole_gradient: "whole-gradient", plus: "sign", plus_kept: "sign", absolute: "absolute", every_step: "absolute-steps",
    squares: "gradient-squared", path_alone: "not-normalised", distance: "distance-unsquared", inside: "xi-inside",
    undamped: "no-xi", along: "length-of-path", at_the_end: "last-step", one_late: "next-gradient",
}  # fmt: skip


def of_nobody(gradients, thetas, xi):
    return thetas[-1].abs()


UNKNOWN = [of_nobody]
