"""Deep generative replay: dream of old samples instead of keeping them. Book: book/families/replay.

The classifier and a variational autoencoder live in one module, so one theta holds both; their losses are added, and since
no weight belongs to both and the optimisers are elementwise, each trains as it would alone. Book: book/families/replay.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from clbook.checks import Count, InputError, Positive, Strength
from clbook.likelihood import Categorical
from clbook.method import Method, Rng, State
from clbook.net import Net
from clbook.scenarios import Batch, Scenario, Task


class VAE(nn.Module):
    """A variational autoencoder of two hidden ReLU layers each way, for inputs in [0, 1].

    Source: Kingma & Welling 2014 (arXiv:1312.6114); sizes: van de Ven & Tolias 2019.
    """

    def __init__(self, n_in: int, hidden: int, z: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(*_layers(n_in, hidden), nn.Linear(hidden, 2 * z))
        self.decode = nn.Sequential(*_layers(z, hidden), nn.Linear(hidden, n_in))


class WithDreams(nn.Module):
    """A classifier and a generator that share nothing but theta; the outputs are the classifier's."""

    def __init__(self, classifier: nn.Module, vae: VAE) -> None:
        super().__init__()
        self.classifier, self.vae = classifier, vae

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x)


@dataclass(frozen=True)
class DGR(Method):
    """Deep generative replay: a generator of old inputs, labelled by the classifier as it was after the last task.

    loss = (l(x, y) + lam k l(x', y')) / (1 + lam k) with k earlier tasks, x' drawn from the old generator, y' the old
    classifier's answer, and l the loss of the classifier plus that of the generator (`elbo`), which learns from x and x' too.
    The labels y' are hard, or with `distill` the old probabilities at a temperature, by default 2 (with `t_squared`, their loss
    times temperature^2). Where the outputs that count depend on the task, y' has a label for each earlier task.
    lam = 0 is fine-tuning. Works without labels (the old answer is then the old outputs). The generator wants Adam.

    Raises InputError for a negative lam, temperature <= 0, sizes < 1 and inputs outside [0, 1].
    Source: Shin et al. 2017 (arXiv:1705.08690), eq. 2; weights, settings and distillation: van de Ven & Tolias 2019
    (arXiv:1904.07734).
    """

    lam: Strength = 1.0
    distill: bool = False
    temperature: Positive | None = None
    t_squared: bool = False
    z: Count = 100
    hidden: Count = 400

    def __post_init__(self) -> None:
        given = f"temperature={self.temperature!r} and t_squared={self.t_squared!r}"
        super().__post_init__()
        if not self.distill and (self.temperature is not None or self.t_squared):
            raise InputError(f"DGR.temperature and DGR.t_squared belong to distill=True, got {given} without it")
        if self.distill and self.temperature is None:
            vars(self)["temperature"] = 2.0

    @property
    def label(self) -> str:
        return "DGR+distill" if self.distill else "DGR"

    def extend(self, net: Net, scenario: Scenario) -> Net:
        x = scenario.data.x
        if x.dim() != 2 or not x.is_floating_point() or x.min() < 0 or x.max() > 1:
            raise InputError("DGR's generator draws flat inputs [N, D] between 0 and 1, and these are others")
        return Net(lambda: WithDreams(net.factory(), VAE(x.shape[1], self.hidden, self.z)))

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        return {"theta_old": theta.clone()}

    def prepare(self, state: State, scenario: Scenario, k: int, batch: Batch, rng: Rng) -> Batch:
        dtype, size = state["theta_old"].dtype, (len(batch.x), self.z)
        drawn = {n: torch.randn(size, generator=rng, dtype=dtype) for n in (("noise", "noise_old", "z") if k else ("noise",))}
        drawn = {n: v.to(batch.x.device) for n, v in drawn.items()}
        if k == 0:
            return batch._replace(drawn=drawn)
        before, now = scenario.mask[k - 1, :k], scenario.mask[k, :k]  # [k, C], one row for each earlier task
        return batch._replace(drawn=drawn | {"before": before, "now": now})

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        new = net.loss(theta, batch) + elbo(net, theta, batch.x, batch.drawn["noise"])
        if "z" not in batch.drawn:
            return new
        x = dream(net, state["theta_old"], batch.drawn["z"])
        old = self.recall(net, theta, state, batch._replace(x=x))
        old = old + elbo(net, theta, x, batch.drawn["noise_old"])
        k = self.lam * batch.task[0].to(theta.dtype)  # counted from 0: how many came before
        return (new + k * old) / (1 + k)

    def recall(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        """The classifier's loss on dreams x' [B, D]: on the old classifier's answers, a mean over the earlier tasks."""
        f, f_old, says = net(theta, batch.x, batch.gates), net(state["theta_old"], batch.x), net.likelihood  # [B, C]
        now, before = batch.drawn["now"], batch.drawn["before"]  # [k, C]
        if self.temperature is not None and isinstance(says, Categorical):
            return says.distil(f, f_old, now, before, self.temperature, self.t_squared) / len(now)
        losses = [says.loss(f, says.answer(f_old, old), new) for old, new in zip(before, now, strict=True)]
        return torch.stack(losses).mean()

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        return {"theta_old": theta.clone()}

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        """The generator; the old copies are made when the next task begins, out of what theta is then."""
        with torch.device("meta"):
            generator = VAE(scenario.data.x.shape[1], self.hidden, self.z)
        return 4 * sum(p.numel() for p in generator.parameters())


def elbo(net: Net, theta: Tensor, x: Float[Tensor, "B D"], noise: Float[Tensor, "B Z"]) -> Float[Tensor, ""]:
    """The generator's loss: minus the evidence lower bound, per input value.

    (1 / D) mean_n [ H(x_n, decode(z_n)) + KL(N(mu_n, sigma_n^2) || N(0, 1)) ],   z_n = mu_n + sigma_n noise_n

    with H(x, p) = - sum_d x_d log p_d + (1 - x_d) log(1 - p_d).
    """
    mu, log_var = part(net, theta, "vae.encode", x).chunk(2, -1)
    logits = part(net, theta, "vae.decode", mu + (log_var / 2).exp() * noise)
    cross = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)  # [B]
    kl = (mu.square() + log_var.exp() - log_var - 1).sum(-1) / 2
    return (cross + kl).mean() / x.shape[-1]


def dream(net: Net, theta: Float[Tensor, " P"], z: Float[Tensor, "B Z"]) -> Float[Tensor, "B D"]:
    """Inputs [B, D] from the generator in theta, for z drawn from N(0, 1); `net` is the one that DGR.extend made."""
    return part(net, theta, "vae.decode", z).sigmoid()


def part(net: Net, theta: Tensor, name: str, *inputs: Tensor) -> Tensor:
    """One submodule of the network, with its share of theta."""
    own = {n.removeprefix(f"{name}."): p for n, p in net.unflatten(theta).items() if n.startswith(f"{name}.")}
    return functional_call(net.module.get_submodule(name), own, inputs)


def _layers(n_in: int, hidden: int) -> list[nn.Module]:
    return [nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
