"""Losses of experience replay as people write them."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

KIND = "replay"


def loss(model, x, y, mask):
    return F.cross_entropy(model(x).masked_fill(~mask, -math.inf), y)


def as_in_the_book(model, x, y, mask, x_old, y_old, mask_old, k):
    return (loss(model, x, y, mask) + k * loss(model, x_old, y_old, mask_old)) / (k + 1)


def heads_cut_out(model, x, y, mask, x_old, y_old, mask_old, k):
    """The outputs of a task as a head of their own, with labels that count from 0."""
    total = 0.0
    for xs, ys, m, weight in ((x, y, mask, 1 / (k + 1)), (x_old, y_old, mask_old, k / (k + 1))):
        label = (m.cumsum(0) - 1)[ys]
        total = total + weight * F.nll_loss(F.log_softmax(model(xs)[:, m], 1), label)
    return total


def one_pass(model, x, y, mask, x_old, y_old, mask_old, k):
    """One forward pass for both, a mask for each sample."""
    f = model(torch.cat([x, x_old]))
    masks = torch.cat([mask.expand(len(x), -1), mask_old.expand(len(x_old), -1)])
    each = F.cross_entropy(f.masked_fill(~masks, -1e9), torch.cat([y, y_old]), reduction="none")
    return (each[: len(x)].mean() + k * each[len(x) :].mean()) / (1 + k)


def halves(model, x, y, mask, x_old, y_old, mask_old):
    return (loss(model, x, y, mask) + loss(model, x_old, y_old, mask_old)) / 2


halves.weights = "half"

RIGHT = [as_in_the_book, heads_cut_out, one_pass, halves]


def plain_sum(model, x, y, mask, x_old, y_old, mask_old):
    return loss(model, x, y, mask) + loss(model, x_old, y_old, mask_old)


def all_samples(model, x, y, mask, x_old, y_old, mask_old):
    f = model(torch.cat([x, x_old]))
    masks = torch.cat([mask.expand(len(x), -1), mask_old.expand(len(x_old), -1)])
    return F.cross_entropy(f.masked_fill(~masks, -math.inf), torch.cat([y, y_old]))


NOTED = {plain_sum: "weights='sum'", all_samples: "weights='samples'"}


def new_mask(model, x, y, mask, x_old, y_old):
    return (loss(model, x, y, mask) + loss(model, x_old, y_old, mask)) / 2


def new_mask_with_a_number(model, x, y, mask, x_old, y_old):
    old = F.cross_entropy(model(x_old).masked_fill(~mask, -1e9), y_old)
    return (loss(model, x, y, mask) + old) / 2


def old_under_all(model, x, y, mask, x_old, y_old):
    return (loss(model, x, y, mask) + F.cross_entropy(model(x_old), y_old)) / 2


def both_under_all(model, x, y, x_old, y_old):
    return (F.cross_entropy(model(x), y) + F.cross_entropy(model(x_old), y_old)) / 2


def under_both(model, x, y, mask, x_old, y_old, mask_old):
    return (loss(model, x, y, mask) + loss(model, x_old, y_old, mask | mask_old)) / 2


def renamed(model, x, y, mask, x_old, y_old, mask_old):
    label = mask.nonzero().flatten()[(mask_old.cumsum(0) - 1)[y_old]]
    return (loss(model, x, y, mask) + loss(model, x_old, label, mask)) / 2


def only_new(model, x, y, mask, x_old, y_old, mask_old):
    return loss(model, x, y, mask)


def old_without_a_gradient(model, x, y, mask, x_old, y_old, mask_old):
    with torch.no_grad():
        old = loss(model, x_old, y_old, mask_old)
    return (loss(model, x, y, mask) + old) / 2


def only_old(model, x, y, mask, x_old, y_old, mask_old):
    return loss(model, x_old, y_old, mask_old)


def exchanged(model, x, y, mask, x_old, y_old, mask_old, k):
    return (k * loss(model, x, y, mask) + loss(model, x_old, y_old, mask_old)) / (k + 1)


WRONG = {
    new_mask: "new-mask", new_mask_with_a_number: "new-mask", old_under_all: "all-outputs", both_under_all: "all-outputs",
    under_both: "union", renamed: "relabelled", only_new: "new-only", old_without_a_gradient: "new-only", only_old: "old-only",
    exchanged: "exchanged",
}  # fmt: skip


def of_nobody(model, x, y, mask, x_old, y_old, mask_old):
    return loss(model, x, y, mask) + 0.1 * loss(model, x_old, y_old, mask_old) ** 2


UNKNOWN = [of_nobody]
