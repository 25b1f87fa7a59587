"""Learning without forgetting: the old network's answers on the new images. Book: book/lwf; notebooks/04_lwf."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from clbook.checks import Natural, Positive, Strength
from clbook.likelihood import distillation
from clbook.method import Method, Rng, State, Update
from clbook.net import Net
from clbook.scenarios import Batch, Task

__all__ = ["LwF", "distillation"]


@dataclass(frozen=True)
class LwF(Method):
    r"""Learning without forgetting: keep the old outputs on the new task's images as they were.

    loss = L_new + lam L_old + (weight_decay / 2) ||theta||^2,   L_old = - sum_{old tasks j} 1/B sum_n sum_c q_nc log p_nc

    q and p are softmax(outputs / temperature) over the outputs that count for task j: q from the outputs recorded before the
    new task was trained, p from the network now. With t_squared, L_old is multiplied by temperature^2, as Hinton et al.
    2015 do, since its gradient shrinks as 1 / temperature^2; Li & Hoiem and van de Ven & Tolias do not, nor does the default.

    During the first `warmup` steps of a task only the new outputs' rows of the last layer (theta_n) learn. New outputs that
    compete with old ones (class-incremental) count in p with q = 0 there; where no output is new, `warmup` does nothing.

    Other likelihoods: L_old is the loss under answers drawn from the recorded outputs; for real outputs that is their squared
    difference, and the temperature plays no part. Between tasks it keeps nothing but theta.

    Raises InputError for negative lam, weight_decay or warmup and temperature <= 0.
    Source: Li & Hoiem 2017 (arXiv:1606.09282), section 3; the sum over old tasks and the zeros for new classes: the weights and
    the code of van de Ven & Tolias 2019 (arXiv:1904.07734).
    """

    keeps = ()
    lam: Strength = 1.0
    temperature: Positive = 2.0
    t_squared: bool = False
    weight_decay: Strength = 0.0
    warmup: Natural = 0

    def start(self, net: Net, theta: Tensor) -> State:
        groups = torch.zeros(0, net.n_outputs, dtype=torch.bool, device=theta.device)
        return {
            "recorded": theta.new_zeros(0, *net.output_shape), "old": groups, "now": groups,
            "open": torch.ones_like(theta).bool(), "steps": theta.new_zeros(()),
        }  # fmt: skip

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        if len(state["old"]) == 0:
            return theta, state
        with torch.no_grad():
            recorded = torch.cat([net(theta, x) for x in task.x.split(2000)])  # [N, C]
        new = task.mask & ~state["old"].any(0)
        opened = net.last(1, new).to(theta.device) if bool(new.any()) else torch.ones_like(state["open"])
        now = widen(state["old"], task.mask)
        return theta, state | {"recorded": recorded, "now": now, "open": opened, "steps": torch.zeros_like(state["steps"])}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        outputs, says = net(theta, batch.x, batch.gates), net.likelihood
        new = says.loss(outputs, batch.y, batch.mask) + self.weight_decay / 2 * theta.square().sum()
        if len(state["old"]) == 0:  # the first task
            return new
        recorded = state["recorded"][batch.row]
        now, old = state["now"], state["old"]
        return new + self.lam * says.distil(outputs, recorded, now, old, self.temperature, self.t_squared)

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        if self.warmup == 0:
            return theta, state
        learns = state["open"] | (state["steps"] >= self.warmup)
        return torch.where(learns, theta, update.before), state | {"steps": state["steps"] + 1}

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        old = torch.cat([widen(state["old"], task.mask), task.mask[None]])
        return state | {"old": old, "now": old, "recorded": state["recorded"][:0]}


def widen(groups: Bool[Tensor, "G C"], mask: Bool[Tensor, " C"]) -> Bool[Tensor, "G C"]:
    """Outputs of old tasks that compete with those of `mask` become one group with them; the others stay as they are."""
    return torch.where((groups <= mask).all(1, keepdim=True), mask, groups)
