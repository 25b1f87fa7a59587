"""Fisher informations as people write them: right ones in many styles, and wrong ones of every known kind."""

from __future__ import annotations

import copy
import math

import torch
from torch.autograd import grad
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

import clbook


class evaluated:
    """The network in evaluation mode for a while."""

    def __init__(self, model):
        self.model, self.was = model, model.training

    def __enter__(self):
        return self.model.eval()

    def __exit__(self, *_):
        self.model.train(self.was)


def zeros(model):
    return {n: torch.zeros_like(p) for n, p in model.named_parameters()}


# right ------------------------------------------------------------------------------------------------------------------------


def exact_by_backward(model, x, y):
    total = zeros(model)
    with evaluated(model):
        for i in range(len(x)):
            for c in range(model(x[:1]).shape[1]):
                model.zero_grad()
                log_p = model(x[i : i + 1]).log_softmax(1)[0, c]
                log_p.backward()
                for n, p in model.named_parameters():
                    total[n] += log_p.exp().item() * p.grad.detach() ** 2
    return {n: t / len(x) for n, t in total.items()}


def exact_by_vmap(net, inputs, mask):
    """A flat vector, all samples at once, under a mask."""
    params = {n: p.detach() for n, p in net.named_parameters()}
    buffers = dict(net.named_buffers())

    def log_p(params, xn):
        return functional_call(net, (params, buffers), (xn[None],))[0][mask].log_softmax(-1)

    with evaluated(net):
        slopes = vmap(jacrev(log_p), (None, 0))(params, inputs)
        p = vmap(log_p, (None, 0))(params, inputs).exp()
    return torch.cat([torch.einsum("nc,nc...->...", p, s**2).flatten() / len(inputs) for s in slopes.values()])


def exact_by_the_matrix(model, images, classes):
    """F = J^T (diag(p) - p p^T) J, its diagonal; a list in the order of the parameters."""
    params = list(model.parameters())
    total = [torch.zeros_like(p) for p in params]
    with evaluated(model):
        for image in images:
            z = model(image.unsqueeze(0))[0][classes]
            p = z.softmax(0).detach()
            J = [torch.stack(rows) for rows in zip(*(grad(zc, params, retain_graph=True) for zc in z), strict=True)]
            for t, j in zip(total, J, strict=True):
                flat = j.flatten(1)
                t += ((p[:, None] * flat**2).sum(0) - (p @ flat) ** 2).view_as(t) / len(images)
    return total


def exact_in_clbook(net, theta, x, mask):
    return clbook.fisher(net, theta, x, mask=mask)


def empirical_from_a_dataset(model, dataset):
    """One sample after the other, names with underscores in place of points."""
    was = model.training
    model.eval()
    found = {n.replace(".", "__"): torch.zeros(p.shape) for n, p in model.named_parameters()}
    for x, y in dataset:
        loss = F.nll_loss(F.log_softmax(model(x.unsqueeze(0)), dim=1), y.unsqueeze(0))
        for (n, p), g in zip(model.named_parameters(), grad(loss, list(model.parameters())), strict=True):
            found[n.replace(".", "__")] += g.reshape(p.shape).pow(2) / len(dataset)
    model.train(was)
    return found


empirical_from_a_dataset.estimator = "empirical"


def empirical_by_functional_grad(model, x, y, mask):
    def loss(params, xn, yn):
        out = functional_call(model, params, (xn[None],)).masked_fill(~mask, -math.inf)
        return F.cross_entropy(out, yn[None])

    with evaluated(model):
        params = {n: p.detach() for n, p in model.named_parameters()}
        grads = vmap(torch.func.grad(loss), (None, 0, 0))(params, x, y)
    return {n: g.square().mean(0) for n, g in grads.items()}


empirical_by_functional_grad.estimator = "empirical"


def summed_from_a_loader(model, loader, criterion):
    """A sum over the samples, in double precision, from batches that are taken apart."""
    model.eval()
    found = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in model.named_parameters()}
    for x, y in loader:
        for xi, yi in zip(x, y, strict=True):
            model.zero_grad(set_to_none=True)
            criterion(model(xi[None]), yi[None]).backward()
            for n, p in model.named_parameters():
                found[n] += p.grad.double().square()
    model.train()
    return found


summed_from_a_loader.estimator, summed_from_a_loader.reduction = "empirical", "sum"


def sampled_labels(model, x):
    with evaluated(model):
        total = [torch.zeros_like(p) for p in model.parameters()]
        for xn in x:
            log_p = model(xn[None]).log_softmax(1)[0]
            label = torch.multinomial(log_p.exp(), 1).item()
            for t, g in zip(total, grad(log_p[label], list(model.parameters())), strict=True):
                t += g**2 / len(x)
    return total


def on_a_copy(model, x, y):
    return exact_by_backward(copy.deepcopy(model), x, y)


def where_the_caller_evaluates(model, x, y):
    """No word of the mode: the caller has called model.eval()."""
    total = zeros(model)
    for xn in x:
        log_p = model(xn[None]).log_softmax(1)[0]
        for c in range(len(log_p)):
            for n, g in zip(total, grad(log_p[c], list(model.parameters()), retain_graph=True), strict=True):
                total[n] += log_p[c].exp().detach() * g**2 / len(x)
    return total


where_the_caller_evaluates.mode = "eval"

RIGHT = [
    exact_by_backward, exact_by_vmap, exact_by_the_matrix, exact_in_clbook, empirical_from_a_dataset,
    empirical_by_functional_grad, summed_from_a_loader, sampled_labels, on_a_copy, where_the_caller_evaluates,
]  # fmt: skip

# right by a convention that is not declared ----------------------------------------------------------------------------------


def undeclared_empirical(model, x, y):
    total = zeros(model)
    with evaluated(model):
        for xn, yn in zip(x, y, strict=True):
            model.zero_grad()
            F.cross_entropy(model(xn[None]), yn[None]).backward()
            for n, p in model.named_parameters():
                total[n] += p.grad**2 / len(x)
    return total


def undeclared_sum(model, x, y):
    return {n: len(x) * f for n, f in exact_by_backward(model, x, y).items()}


def three_times(model, x, y):
    return {n: 3 * f for n, f in exact_by_backward(model, x, y).items()}


NOTED = {undeclared_empirical: "estimator='empirical'", undeclared_sum: "reduction='sum'", three_times: "off by exactly 3"}

# wrong ------------------------------------------------------------------------------------------------------------------------


def each(model, x, y, what, square=lambda g: g**2, zero=True, average=True):
    """The sum over samples of square(gradient of what)."""
    total = zeros(model)
    with evaluated(model):
        for xn, yn in zip(x, y, strict=True):
            if zero:
                model.zero_grad()
            what(model(xn[None])[0], yn).backward()
            for n, p in model.named_parameters():
                total[n] += square(p.grad) / (len(x) if average else 1)
    return total


def cross_entropy(f, y):
    return F.cross_entropy(f[None], y[None])


def whole_batch(model, x, y):
    with evaluated(model):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
    return {n: p.grad.clone().pow(2) for n, p in model.named_parameters()}


def whole_batch_of_sums(model, x, y):
    with evaluated(model):
        gs = grad(F.cross_entropy(model(x), y, reduction="sum"), list(model.parameters()))
    return [g**2 / len(x) for g in gs]


def batches_of_a_loader(model, loader, criterion, device):
    """As several libraries have it: the squared gradient of each batch, averaged over the batches."""
    model.eval()
    total = zeros(model)
    for x, y in loader:
        model.zero_grad()
        criterion(model(x.to(device)), y.to(device)).backward()
        for n, p in model.named_parameters():
            total[n] += p.grad.data.clone().pow(2)
    return {n: t / len(loader) for n, t in total.items()}


def mean_of_log_likelihoods(model, dataset):
    """Collects log-likelihoods, takes their mean, and squares the gradient of that."""
    with evaluated(model):
        kept = [model(x[None]).log_softmax(1)[0, y] for x, y in dataset]
        return [g**2 for g in grad(torch.stack(kept).mean(), list(model.parameters()))]


def sampled_batch(model, x):
    with evaluated(model):
        log_p = model(x).log_softmax(1)
        labels = torch.multinomial(log_p.exp(), 1).squeeze(1)
        return [g**2 for g in grad(F.nll_loss(log_p, labels), list(model.parameters()))]


def softmax_over_all(model, x, mask):
    return exact_by_vmap(model, x, torch.ones_like(mask))


def empirical_over_all(model, x, y, classes):
    return undeclared_empirical(model, x, y)


def most_probable_label(model, x, y):
    return each(model, x, y, lambda f, y: cross_entropy(f, f.argmax()))


def weighted_by_probability(model, x, y):
    total = zeros(model)
    with evaluated(model):
        for xn, yn in zip(x, y, strict=True):
            model.zero_grad()
            log_p = model(xn[None]).log_softmax(1)[0, yn]
            log_p.backward()
            for n, p in model.named_parameters():
                total[n] += log_p.exp().item() * p.grad**2 / len(x)
    return total


def probability_itself(model, x, y):
    return each(model, x, y, lambda f, y: f.softmax(0)[y])


def never_squared(model, x, y):
    return each(model, x, y, cross_entropy, lambda g: g)


def absolute_values(model, x, y):
    return each(model, x, y, cross_entropy, torch.abs)


def of_the_output(model, x, y):
    return each(model, x, y, lambda f, y: f[y])


def without_weights(model, x, y):
    total = zeros(model)
    with evaluated(model):
        for c in range(model(x[:1]).shape[1]):
            for n, t in each(model, x, torch.full_like(y, c), cross_entropy).items():
                total[n] += t
    return total


def never_zeroed(model, x, y):
    model.zero_grad()
    return each(model, x, y, cross_entropy, zero=False)


def assigned_not_added(model, x, y):
    found = {}
    with evaluated(model):
        for xn, yn in zip(x, y, strict=True):
            model.zero_grad()
            cross_entropy(model(xn[None])[0], yn).backward()
            for n, p in model.named_parameters():
                found[n] = p.grad.clone() ** 2
    return found


def last_batch_alone(model, loader):
    with evaluated(model):
        for x, y in loader:
            gs = grad(F.cross_entropy(model(x), y), list(model.parameters()))
    return [g**2 for g in gs]


def mean_of_each_tensor(model, x, y):
    return {n: f.mean() for n, f in undeclared_empirical(model, x, y).items()}


def never_updated(model, x, y):
    total = zeros(model)
    for f in undeclared_empirical(model, x, y).values():
        torch.add(f, 1)
    return total


def with_an_optimiser(model, x, y):
    found = exact_by_backward(model, x, y)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return found


def in_training_mode(model, x, y):
    total = zeros(model)
    model.train()
    for xn, yn in zip(x, y, strict=True):
        model.zero_grad()
        F.cross_entropy(model(xn[None]), yn[None]).backward()
        for n, p in model.named_parameters():
            total[n] += p.grad**2 / len(x)
    return total


in_training_mode.estimator = "empirical"


def looked_at_in_training_mode(model, x, y):
    """One forward pass of all samples before the mode is changed is enough."""
    model(x)
    return exact_by_backward(model, x, y)


def declared_exact(model, x, y):
    return undeclared_empirical(model, x, y)


declared_exact.estimator = "exact"

WRONG = {
    whole_batch: "batched", whole_batch_of_sums: "batched", batches_of_a_loader: "batched", mean_of_log_likelihoods: "batched",
    sampled_batch: "batched", softmax_over_all: "all-outputs", empirical_over_all: "all-outputs", most_probable_label: "argmax",
    weighted_by_probability: "weighted", probability_itself: "no-log", never_squared: "unsquared", absolute_values: "absolute",
    of_the_output: "logits", without_weights: "uniform", never_zeroed: "accumulated", assigned_not_added: "last",
    last_batch_alone: "last-batch", mean_of_each_tensor: "tensor-mean", never_updated: "zero", with_an_optimiser: "steps",
    in_training_mode: "batchnorm", looked_at_in_training_mode: "batchnorm", declared_exact: "declared",
}  # fmt: skip


def of_nobody(model, x, y):
    """Wrong in a way that nobody has been seen to write."""
    return {n: (f + 0.01 * f.flatten()[0]).sqrt() for n, f in exact_by_backward(model, x, y).items()}


UNKNOWN = [of_nobody]
KIND = "fisher"
