"""Memory aware synapses: springs as stiff as the outputs are sensitive. Book: book/mas; notebooks/05_mas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clbook.importance import mas_importance
from clbook.method import Spring, State
from clbook.net import Gate, Net
from clbook.scenarios import Task

FORMS = ("norm", "outputs", "local")


@dataclass(frozen=True)
class MAS(Spring):
    r"""Memory aware synapses: Omega is how much the learned function changes with each parameter. No labels needed.

    loss = L_task + (lam / 2) sum_i Omega_i (theta_i - theta*_i)^2,   Omega = 1/N sum_n |d ||f(x_n)||^2 / d theta|

    Omega is summed over tasks and centred at the latest theta. `form`: "norm" takes the squared length of the outputs, one
    backward pass; "outputs" the length of the gradients of the single outputs; "local" the Hebbian form of `local_importance`.
    `source` says which images are looked at, the "train" or the "test" ones of the task, and `only` keeps those of some
    outputs (classes): a user who meets only these. The paper's lambda is lam / 2.

    Raises ValueError for a negative lam and unknown names.
    Source: Aljundi et al. 2018 (arXiv:1711.09601), section 4.
    """

    form: str = "norm"
    source: str = "train"
    only: tuple[int, ...] = ()
    n_samples: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise ValueError(f"MAS.form must be one of {', '.join(FORMS)}, got {self.form!r}")
        if self.source not in ("train", "test"):
            raise ValueError(f'MAS.source must be "train" or "test", got {self.source!r}')
        if self.n_samples < 1:
            raise ValueError(f"MAS.n_samples must be at least 1, got {self.n_samples}")

    def importance(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> Tensor:
        x, y = (task.x, task.y) if self.source == "train" else (task.x_test, task.y_test)
        keep = torch.isin(y, torch.tensor(self.only, device=y.device, dtype=y.dtype))
        x = x[keep] if bool(keep.any()) else x
        x = x[torch.randperm(len(x), generator=rng)[: self.n_samples].to(x.device)]
        mask = None if net.loss_name == "reconstruction" else task.mask
        if self.form == "local":
            return local_importance(net, theta, x, mask=mask)
        return mas_importance(net, theta, x, mask=mask, per_output=self.form == "outputs")

    def consolidate(self, state: State, omega: Tensor, theta: Tensor) -> State:
        return {"omega": state["omega"] + omega, "theta_star": theta}


def local_importance(
    net: Net, theta: Float[Tensor, " P"], x: Float[Tensor, "N D"], *, mask: Bool[Tensor, " C"] | None = None
) -> Float[Tensor, " P"]:
    """The local form of MAS, Omega [P]: each layer on its own, by the activity at the two ends of a connection (Hebb's rule).

    Omega_ij = 1/N sum_n |d ||y(x_n)||^2 / d W_ij| = 1/N sum_n 2 |y_i(x_n) a_j(x_n)|,   y = relu(W a + b)

    The last layer has no relu. Needs no backward pass. Raises ValueError for a network that is not a chain of Linear and
    ReLU layers, as mlp makes.
    Source: Aljundi et al. 2018, section 4.3.
    """
    layers = dict(net.module.named_children())
    if not isinstance(net.module, nn.Sequential) or not all(isinstance(m, nn.Linear | nn.ReLU | Gate) for m in layers.values()):
        raise ValueError(f"the local form needs a chain of Linear and ReLU layers, got {type(net.module).__name__}")
    p, omega, a = net.unflatten(theta), {}, x
    linear = [name for name, m in layers.items() if isinstance(m, nn.Linear)]
    for name in linear:
        y = nn.functional.linear(a, p[f"{name}.weight"], p[f"{name}.bias"])  # [N, out]
        y = y.relu() if name != linear[-1] else y if mask is None else y * mask
        omega[f"{name}.weight"] = 2 * y.abs().T @ a.abs() / len(x)  # [out, in]
        omega[f"{name}.bias"] = 2 * y.abs().mean(0)
        a = y
    return net.flatten(omega)
