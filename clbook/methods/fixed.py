r"""Features that never change, and sums over them: class means, linear discriminant analysis, ridge regression.

phi(x) [M] is what the network's last layer is given. While theta stays where it is, a sum over samples is the same in whatever
order the samples come, so a classifier made of sums has nothing to forget. Book: notebooks/09_fixed_features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from clbook.checks import InputError, Positive, Share
from clbook.method import Method, Rng, State, Update
from clbook.net import Net
from clbook.scenarios import Batch, Scenario, Task

ROWS = 2000  # samples at a time
Linear = tuple[Tensor, Tensor]  # W [M, C] and b [C]: the outputs are W^T phi + b


@dataclass(frozen=True)
class FixedFeatures(Method):
    r"""What the three share: features of a network that stays as it is, and sums over all samples so far.

    n_c = sum [y = c],  S = sum phi(x) y^T,  G = sum phi(x) phi(x)^T,  outputs f(x) = W^T phi(x) + b

    with y the label as a unit vector [C]. A subclass says what W [M, C] and b [C] follow from the sums: `classifier`. They
    stand in for the network's last layer; before the first task ends they are zero.

    learn="never" leaves theta as it was drawn: random features for a network with one hidden layer, the inputs themselves for
    one without any. learn="first" trains on the first task, as plain training does, and never again. The sums are kept
    in double precision, since ridge regression divides by small eigenvalues; of G, which is symmetric, half counts as memory.

    Raises InputError for targets that are not one class a sample, and a network whose last layer is no nn.Linear.
    """

    stacks = False
    keeps: ClassVar[tuple[str, ...]] = ("n", "S", "G")
    learn: Literal["never", "first"] = "never"

    def classifier(self, state: State) -> Linear:
        """W [M, C] and b [C] from the sums."""
        raise NotImplementedError

    def extend(self, net: Net, scenario: Scenario) -> Net:
        if not scenario.labelled or scenario.data.y is None or scenario.data.y.dim() != 1:
            raise InputError(f"{type(self).__name__} needs one class a sample, and {scenario.data.name!r} has other targets")
        last_layer(net)
        return net

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        M, C = last_layer(net).in_features, net.n_outputs
        shapes = {"n": (C,), "S": (M, C), "G": (M, M)}
        sums = {name: theta.new_zeros(shape, dtype=torch.float64) for name, shape in shapes.items() if name in self.keeps}
        return sums | {"W": theta.new_zeros(M, C), "b": theta.new_zeros(C)}

    def direction(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, " P"]:
        return torch.zeros_like(theta) if self._frozen(state) else super().direction(net, theta, state, batch)

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        return (update.before if self._frozen(state) else theta), state  # whatever momentum the optimiser has kept

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        sums = added({name: state[name] for name in self.keeps}, net, theta, task)
        W, b = self.classifier(sums)
        return sums | {"W": W.to(theta), "b": b.to(theta)}

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        return features(net, theta, batch.x) @ state["W"] + state["b"]

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        M = len(state["S"])
        twice = M * (M - 1) // 2 * state["S"].element_size() if "G" in self.keeps else 0
        return super().memory_bytes(state, scenario) - twice

    def _frozen(self, state: State) -> bool:
        return self.learn == "never" or bool(state["n"].any())


@dataclass(frozen=True)
class ClassMeans(FixedFeatures):
    r"""The nearest class mean: argmin_c |phi(x) - mu_c|^2, with mu_c = S_c / n_c.

    As outputs: f_c = mu_c^T phi - |mu_c|^2 / 2. A class is one vector of sums that no other class touches.
    Source: Mensink et al. 2013; with a memory of examples for features that do change: Rebuffi et al. 2017 (arXiv:1611.07725).
    """

    label = "class means"
    keeps = ("n", "S")

    def classifier(self, state: State) -> Linear:
        return class_means(state["n"], state["S"])


@dataclass(frozen=True)
class LDA(FixedFeatures):
    r"""Linear discriminant analysis: each class a Gaussian around its mean, with one covariance for all.

    Sigma = (G - sum_c n_c mu_c mu_c^T) / N,  f_c = mu_c^T Sigma^-1 phi - mu_c^T Sigma^-1 mu_c / 2 + log(n_c / N)

    `shrinkage` s replaces Sigma by (1 - s) Sigma + s tr(Sigma) / M I, without which features that never vary leave it singular.
    Raises InputError for s outside [0, 1], and where Sigma is singular in spite of it.
    Source: Hayes & Kanan 2020 (arXiv:1909.01520), who update the covariance sample by sample and leave the log out.
    """

    shrinkage: Share = 1e-4

    def classifier(self, state: State) -> Linear:
        return lda(state["n"], state["S"], state["G"], float(self.shrinkage))


@dataclass(frozen=True)
class Ridge(FixedFeatures):
    r"""Ridge regression onto the labels as unit vectors: the W that minimises sum |W^T phi(x) - y|^2 + lam |W|^2.

    W = (G + lam I)^-1 S

    lam > 0 has the unit of G. Raises InputError for other values, and where rounding makes G + lam I singular.
    Source: McDonnell et al. 2023 (arXiv:2307.02251), on random features of a pre-trained network.
    """

    label = "ridge"
    lam: Positive = 1.0

    def classifier(self, state: State) -> Linear:
        return ridge(state["S"], state["G"], float(self.lam))


def last_layer(net: Net) -> nn.Linear:
    """The layer that gives the outputs. Raises InputError if it is no nn.Linear."""
    layer = net.module.get_submodule(net.layers[-1])
    if not isinstance(layer, nn.Linear):
        raise InputError(f"features are what the last layer is given, and it must be nn.Linear, got {type(layer).__name__}")
    return layer


@torch.no_grad()
def features(net: Net, theta: Float[Tensor, " P"], x: Shaped[Tensor, "B *D"]) -> Float[Tensor, "B M"]:
    """phi(x) [B, M]: what the last layer of the network is given."""
    given: list[Tensor] = []
    hook = last_layer(net).register_forward_pre_hook(lambda layer, args: given.append(args[0]))
    try:
        net(theta, x)
    finally:
        hook.remove()
    return given[0]


def added(sums: State, net: Net, theta: Float[Tensor, " P"], task: Task) -> State:
    """The sums n [C], S [M, C] and, if it is among them, G [M, M], with the samples of a task added."""
    total = {name: value.clone() for name, value in sums.items()}
    for x, y in zip(task.x.split(ROWS), task.y.split(ROWS), strict=True):
        phi, Y = features(net, theta, x), nn.functional.one_hot(y, net.n_outputs)
        total["n"] += Y.sum(0)
        total["S"] += phi.T @ Y.to(phi)
        if "G" in total:
            total["G"] += phi.T @ phi
    return total


def class_means(n: Float[Tensor, " C"], S: Float[Tensor, "M C"]) -> Linear:
    """W = mu, b_c = -|mu_c|^2 / 2: the largest output belongs to the nearest mean. A class without samples has mean zero."""
    mu = S / n.clamp_min(1)
    return mu, -mu.square().sum(0) / 2


def lda(n: Float[Tensor, " C"], S: Float[Tensor, "M C"], G: Float[Tensor, "M M"], shrinkage: float) -> Linear:
    """W = Sigma^-1 mu, b_c = log(n_c / N) - mu_c^T W_c / 2."""
    mu, N = S / n.clamp_min(1), n.sum()
    sigma = (G - S @ mu.T) / N  # S mu^T is sum_c n_c mu_c mu_c^T
    W = solve((1 - shrinkage) * sigma, float(shrinkage * sigma.trace() / len(sigma)), mu)
    share = (n / N).clamp_min(torch.finfo(n.dtype).tiny)  # of a class not seen: nearly nothing, so that no log is infinite
    return W, share.log() - (mu * W).sum(0) / 2


def ridge(S: Float[Tensor, "M C"], G: Float[Tensor, "M M"], lam: float) -> Linear:
    """W = (G + lam I)^-1 S, b = 0."""
    return solve(G, lam, S), S.new_zeros(S.shape[1])


def solve(A: Float[Tensor, "M M"], shift: float, B: Float[Tensor, "M C"]) -> Float[Tensor, "M C"]:
    """(A + shift I)^-1 B, by Cholesky. Raises InputError where A + shift I is not positive definite."""
    shifted = A.clone()
    shifted.diagonal().add_(shift)
    L, failed = torch.linalg.cholesky_ex(shifted)
    if failed:
        raise InputError(
            f"sums with {shift:g} on the diagonal cannot be inverted: take a larger lam (ridge) or shrinkage (LDA)"
        )
    return torch.cholesky_solve(B, L)
