"""Memory aware synapses: springs as stiff as the outputs are sensitive. Book: book/mas; notebooks/05_mas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from pydantic import InstanceOf
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap

from clbook import outer
from clbook.checks import Count, InputError, Natural, checked
from clbook.importance import CHUNK, Algorithm, per_chunk, slices
from clbook.inputs import outputs_for
from clbook.likelihood import Categorical
from clbook.method import Carry, Rng, Spring, State
from clbook.net import Net, chain
from clbook.scenarios import Scenario, Task


@dataclass(frozen=True)
class MAS(Spring):
    r"""Memory aware synapses: Omega is how much the learned function changes with each parameter. No labels needed.

    loss = L_task + (lam / 2) sum_i Omega_i (theta_i - theta*_i)^2,   Omega = 1/N sum_n |d ||f(x_n)||^2 / d theta|

    Omega is summed over tasks and centred at the latest theta. `form`: "norm" takes the squared length of the outputs, one
    backward pass; "outputs" the length of the gradients of the single outputs; "local" the Hebbian form of `local_importance`.
    `source` says which images are looked at, the "train" or the "test" ones of the task, and `only` keeps those of some
    outputs (classes): a user who meets only these. The paper's lambda is lam / 2.

    Raises InputError for a negative lam, unknown words, and classes that no task has.
    Source: Aljundi et al. 2018 (arXiv:1711.09601), section 4.
    """

    form: Literal["norm", "outputs", "local"] = "norm"
    source: Literal["train", "test"] = "train"
    only: tuple[Natural, ...] = ()
    n_samples: Count = 1000
    carry: Carry = "latest"

    def extend(self, net: Net, scenario: Scenario) -> Net:
        if self.only and not scenario.labelled:
            raise InputError(f"MAS.only picks images by their class, and these tasks have no classes; got {self.only}")
        if missing := sorted(set(self.only) - set(scenario.relabel.unique().tolist())):
            raise InputError(f"MAS.only names {missing}, and the outputs of these tasks are 0..{scenario.n_outputs - 1}")
        if self.form == "local":
            chain(net, 'MAS(form="local")')
        return net

    def importance(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> Tensor:
        x, y = (task.x, task.y) if self.source == "train" else (task.x_test, task.y_test)
        if self.only:
            keep = torch.isin(y, torch.tensor(self.only, device=y.device, dtype=y.dtype))
            x = x[keep] if bool(keep.any()) else x  # a task without any of these classes is looked at as a whole
        x = x[torch.randperm(len(x), generator=rng)[: self.n_samples].to(x.device)]
        mask = task.mask if isinstance(net.likelihood, Categorical) else None
        if self.form == "local":
            return local_importance(net, theta, x, mask=mask)
        return mas_importance(net, theta, x, mask=mask, per_output=self.form == "outputs")


@checked
def mas_importance(
    net: InstanceOf[Net],
    theta: Float[Tensor, " P"],
    x: Shaped[Tensor, "N *D"],
    *,
    mask: Bool[Tensor, " C"] | None = None,
    algorithm: Algorithm = "auto",
    per_output: bool = False,
) -> Float[Tensor, " P"]:
    """Memory aware synapses: Omega [P] = 1/N sum_n | d ||f(x_n; theta)||^2 / d theta |, no labels needed.

    The absolute value is taken per sample. Outputs outside `mask` [C] are left out of the norm. With `per_output` each output
    has its own gradient and backward pass: Omega = 1/N sum_n sqrt(sum_c (d f_c(x_n; theta) / d theta)^2).
    Source: Aljundi et al. 2018 (arXiv:1711.09601), section 4.1. Book: book/mas.

    The output (1, 0) has the squared length 1, and its slope along each weight w_1j is 2 f_1 x_j:

    >>> from clbook import mlp
    >>> net = mlp(2, 2, hidden=())
    >>> theta = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # 4 weights, 2 biases
    >>> mas_importance(net, theta, torch.tensor([[1.0, 3.0]]))
    tensor([2., 6., 0., 0., 2., 0.])
    """
    outputs_for(net, theta, x, mask)

    def values(t: Tensor, xn: Tensor) -> Tensor:
        f = net(t, xn[None])[0]
        return (f if mask is None else f[..., mask]).flatten()  # [K]

    if outer.applies(net, theta, x, algorithm):
        parts = (outer.sensitivities(net, theta, x[s], mask, per_output) for s in slices(len(x), CHUNK))
    elif per_output:
        jacobian = vmap(jacrev(values), (None, 0))
        size = per_chunk(net, len(values(theta, x[0])))
        parts = (jacobian(theta, x[s]).norm(dim=1).sum(0) for s in slices(len(x), size))
    else:
        gradient = vmap(grad(lambda t, xn: values(t, xn).square().sum()), (None, 0))
        parts = (gradient(theta, x[s]).abs().sum(0) for s in slices(len(x), per_chunk(net, 1)))
    return sum(parts, torch.zeros_like(theta)) / len(x)


def local_importance(
    net: Net, theta: Float[Tensor, " P"], x: Float[Tensor, "N D"], *, mask: Bool[Tensor, " C"] | None = None
) -> Float[Tensor, " P"]:
    """The local form of MAS, Omega [P]: each layer on its own, by the activity at the two ends of a connection (Hebb's rule).

    Omega_ij = 1/N sum_n |d ||y(x_n)||^2 / d W_ij| = 1/N sum_n 2 |y_i(x_n) a_j(x_n)|,   y = relu(W a + b)

    The last layer has no relu. Needs no backward pass. Raises InputError for a network that is not a chain of Linear and
    ReLU layers, as mlp makes.
    Source: Aljundi et al. 2018, section 4.3.
    """
    linear = list(chain(net, "the local form of MAS"))
    p, omega, a = net.unflatten(theta), {}, x
    for name in linear:
        y = nn.functional.linear(a, p[f"{name}.weight"], p[f"{name}.bias"])  # [N, out]
        y = y.relu() if name != linear[-1] else y if mask is None else y * mask
        omega[f"{name}.weight"] = 2 * y.abs().T @ a.abs() / len(x)  # [out, in]
        omega[f"{name}.bias"] = 2 * y.abs().mean(0)
        a = y
    return net.flatten(omega)
