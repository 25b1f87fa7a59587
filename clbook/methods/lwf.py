"""Learning without forgetting: the old network's answers on the new images. Book: book/lwf; notebooks/04_lwf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clbook.method import Method, State, Step, nonnegative
from clbook.net import Net, batch_loss, masked
from clbook.scenarios import Batch, Scenario, Task


@dataclass(frozen=True)
class LwF(Method):
    r"""Learning without forgetting: keep the old outputs on the new task's images as they were.

    loss = L_new + lam L_old + (decay / 2) ||theta||^2,   L_old = - sum_{old tasks j} 1/B sum_n sum_c q_nc log p_nc

    q and p are softmax(outputs / temperature) over the outputs that count for task j: q from the outputs recorded before the
    new task was trained, p from the network now. With t_squared, L_old is multiplied by temperature^2, as Hinton et al.
    2015 do, since its gradient shrinks as 1 / temperature^2; Li & Hoiem and van de Ven & Tolias do not, nor does the default.

    During the first `warmup` steps of a task only the new outputs' rows of the last layer (theta_n) learn. New outputs that
    compete with old ones (class-incremental) count in p with q = 0 there; where no output is new, `warmup` does nothing.

    Between tasks it keeps nothing but theta. Raises ValueError for negative lam, decay or warmup and temperature <= 0.
    Source: Li & Hoiem 2017 (arXiv:1606.09282), section 3; the sum over old tasks and the zeros for new classes: the weights and
    the code of van de Ven & Tolias 2019 (arXiv:1904.07734).
    """

    needs_labels: ClassVar[bool] = True
    lam: float = 1.0
    temperature: float = 2.0
    t_squared: bool = False
    decay: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        nonnegative(self, "lam", "temperature", "decay")
        if self.temperature == 0:
            raise ValueError(f"LwF.temperature must be positive, got {self.temperature}")
        if self.warmup < 0:
            raise ValueError(f"LwF.warmup must be a number of steps >= 0, got {self.warmup}")

    def start(self, net: Net, theta: Tensor) -> State:
        n_outputs = net.shapes[-1][0]
        none = torch.zeros(0, n_outputs, device=theta.device)
        return {"recorded": none, "old": none.bool(), "now": none.bool(), "open": torch.ones_like(theta).bool(),
                "steps": torch.zeros((), device=theta.device)}  # fmt: skip

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> tuple[Tensor, State]:
        if len(state["old"]) == 0:
            return theta, state
        with torch.no_grad():
            recorded = torch.cat([net(theta, x) for x in task.x.split(2000)])  # [N, C]
        new = task.mask & ~state["old"].any(0)
        opened = net.last(1, new).to(theta.device) if bool(new.any()) else torch.ones_like(state["open"])
        now = widen(state["old"], task.mask)
        return theta, state | {"recorded": recorded, "now": now, "open": opened, "steps": torch.zeros_like(state["steps"])}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        outputs = net(theta, batch.x, batch.gates)
        new = batch_loss(outputs, batch) + self.decay / 2 * theta.square().sum()
        if len(state["old"]) == 0:  # the first task
            return new
        old = distillation(outputs, state["recorded"][batch.row], state["now"], state["old"], self.temperature)
        return new + self.lam * old * (self.temperature**2 if self.t_squared else 1)

    def after_step(self, theta: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        if self.warmup == 0:
            return theta, state
        learns = state["open"] | (state["steps"] >= self.warmup)
        return torch.where(learns, theta, step.before), state | {"steps": state["steps"] + 1}

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: torch.Generator) -> State:
        old = torch.cat([widen(state["old"], task.mask), task.mask[None]])
        return state | {"old": old, "now": old, "recorded": state["recorded"][:0]}

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        return 0


def distillation(
    outputs: Float[Tensor, "B C"], recorded: Float[Tensor, "B C"],
    now: Bool[Tensor, "G C"], old: Bool[Tensor, "G C"], temperature: Tensor | float = 2.0,
) -> Float[Tensor, ""]:  # fmt: skip
    """- sum_g mean_n sum_c q log p, with q over the outputs `old` [G, C] and p over the outputs `now` [G, C] of each group g.

    Without a factor temperature^2. Least where p = q, and its value there is the entropy of q.
    """
    q = masked(recorded / temperature, old[:, None]).softmax(-1)  # [G, B, C]
    log_p = masked(outputs / temperature, now[:, None]).log_softmax(-1).masked_fill(~now[:, None], 0.0)
    return -(q * log_p).sum(-1).mean(-1).sum()


def widen(groups: Bool[Tensor, "G C"], mask: Bool[Tensor, " C"]) -> Bool[Tensor, "G C"]:
    """Outputs of old tasks that compete with those of `mask` become one group with them; the others stay as they are."""
    return torch.where((groups <= mask).all(1, keepdim=True), mask, groups)
