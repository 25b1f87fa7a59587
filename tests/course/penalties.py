"""Penalties and copies of theta* as people write them."""

from __future__ import annotations

import copy

import torch

KIND = "penalty"


def by_name(model, star, importance, lam):
    return lam / 2 * sum((importance[n] * (p - star[n]).pow(2)).sum() for n, p in model.named_parameters())


def flat(theta, theta_star, omega, lam):
    return 0.5 * lam * omega @ (theta - theta_star) ** 2


def in_a_loop(model, old_params, fisher, ewc_lambda):
    loss = torch.zeros(())
    for name, param in model.named_parameters():
        difference = param - old_params[name].detach()
        loss = loss + torch.einsum("i,i,i->", fisher[name].flatten(), difference.flatten(), difference.flatten())
    return 0.5 * ewc_lambda * loss


def joined(model, star, importance, lam):
    now = torch.nn.utils.parameters_to_vector(model.parameters())
    then, omega = (torch.cat([v.flatten() for v in d.values()]) for d in (star, importance))
    return torch.dot(omega, torch.square(now - then)) * lam / 2


def without_a_half(model, star, importance, lam):
    return lam * sum((importance[n] * (p - star[n]) ** 2).sum() for n, p in model.named_parameters())


without_a_half.half = False

RIGHT = [by_name, flat, in_a_loop, joined, without_a_half]


def undeclared_half(theta, star, omega, lam):
    return lam * (omega * (theta - star) ** 2).sum()


def mean_over_parameters(theta, star, omega, lam):
    return lam / 2 * (omega * (theta - star) ** 2).mean()


NOTED = {undeclared_half: "half=False", mean_over_parameters: "off by exactly 1/P"}


def with_itself(model, star, importance, lam):
    """The name is taken twice."""
    loss = 0.0
    for n, p in model.named_parameters():
        p = star[n]
        loss += (importance[n] * (p - star[n]) ** 2).sum()
    return lam / 2 * loss


def of_data(model, star, importance, lam):
    return lam / 2 * sum((importance[n] * (p.data - star[n]) ** 2).sum() for n, p in model.named_parameters())


def a_python_number(model, star, importance, lam):
    return lam / 2 * sum((importance[n] * (p - star[n]) ** 2).sum().item() for n, p in model.named_parameters())


def squared_twice(model, star, importance, lam):
    return lam / 2 * sum(((importance[n] * (p - star[n])) ** 2).sum() for n, p in model.named_parameters())


def all_alike(model, star, importance, lam):
    return lam / 2 * sum(((p - star[n]) ** 2).sum() for n, p in model.named_parameters())


def linear(model, star, importance, lam):
    return lam / 2 * sum((importance[n] * (p - star[n])).sum() for n, p in model.named_parameters())


def with_abs(model, star, importance, lam):
    return lam * sum((importance[n] * (p - star[n]).abs()).sum() for n, p in model.named_parameters())


def a_norm(theta, star, omega, lam):
    return lam / 2 * (omega.sqrt() * (theta - star)).norm()


def decay(model, star, importance, lam):
    return lam / 2 * sum((importance[n] * p**2).sum() for n, p in model.named_parameters())


def overwritten(model, star, importance, lam):
    for n, p in model.named_parameters():
        loss = (importance[n] * (p - star[n]) ** 2).sum()
    return lam / 2 * loss


def returned_too_early(model, star, importance, lam):
    for n, p in model.named_parameters():
        return lam * (importance[n] * (p - star[n]) ** 2).sum()


def mean_of_tensors(model, star, importance, lam):
    return lam * sum((importance[n] * (p - star[n]) ** 2).mean() for n, p in model.named_parameters())


def any_strength(model, star, importance, lam):
    return sum((importance[n] * (p - star[n]) ** 2).sum() for n, p in model.named_parameters()) / 2


def pushed(theta, star, omega, lam):
    return -lam / 2 * (omega * (theta - star) ** 2).sum()


WRONG = {
    with_itself: "zero", of_data: "detached", a_python_number: "detached", squared_twice: "importance-squared",
    all_alike: "importance-ignored", linear: "unsquared", with_abs: "absolute", a_norm: "root", decay: "to-zero",
    overwritten: "last-tensor", returned_too_early: "first-tensor", mean_of_tensors: "tensor-mean", any_strength: "no-lam",
    pushed: "sign",
}  # fmt: skip


def of_nobody(theta, star, omega, lam):
    return lam * (omega * (theta - star) ** 4).sum()


UNKNOWN = [of_nobody]

# copies ---------------------------------------------------------------------------------------------------------------------


def clones(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def a_deep_copy(model):
    return copy.deepcopy(model)


def a_vector(model):
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def a_copied_state(model):
    return copy.deepcopy(model.state_dict())


def the_parameters(model):
    return dict(model.named_parameters())


def data(model):
    return [p.data for p in model.parameters()]


def state(model):
    return {n: v for n, v in model.state_dict().items()}


def detached(model):
    return {n: p.detach() for n, p in model.named_parameters()}


def gradients(model):
    return [torch.ones_like(p) for p in model.parameters()]


COPIES = [clones, a_deep_copy, a_vector, a_copied_state]
NO_COPIES = {the_parameters: "not-a-copy", data: "not-a-copy", state: "not-a-copy", detached: "not-a-copy", gradients: "other"}
