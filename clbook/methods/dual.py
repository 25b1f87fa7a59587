"""Long and short-term memory: something that changes fast and something that changes slowly.

Book: book/families, "Long and short-term memory"; notebooks/06_families.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from clbook.method import State, Step
from clbook.methods.replay import ER, replayed
from clbook.net import Net, masked
from clbook.scenarios import Batch, Scenario


@dataclass(frozen=True)
class CLSER(ER):
    """Complementary learning systems with experience replay: a fast and a slow average of the weights guide the learner.

    theta_fast <- fast theta_fast + (1 - fast) theta, likewise theta_slow, after every step; and
    loss = ER's loss + beta mean |f(x_old; theta) - z|^2, with z the outputs of whichever memory gives the label of x_old more
    probability. The slow memory answers at test time. size = 0, fast = slow = 0 is fine-tuning.

    The paper moves a memory with probability r and decay alpha; this is that step's mean, a decay of 1 - r (1 - alpha).
    The old samples' weight is ER's (`lam`); the paper's is 1/2. Raises ValueError for a decay outside [0, 1] and as ER.
    Source: Arani et al. 2022 (arXiv:2201.12604), algorithm 1.
    """

    needs_labels: ClassVar[bool] = True
    label = "CLS-ER"
    beta: float = 0.1
    fast: float = 0.99
    slow: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        _shares(self, "fast", "slow")

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        averages = {"theta_fast": theta.clone(), "theta_slow": theta.clone()}
        return super().start(net, theta) | averages | {"steps": theta.new_zeros(())}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        loss = super().loss(net, theta, state, batch)
        if "x" not in batch.extra:
            return loss
        old = replayed(batch)
        z_fast, z_slow = (net(state[name], old.x) for name in ("theta_fast", "theta_slow"))  # [B, C]
        p_fast, p_slow = (masked(z, old.mask).softmax(-1).gather(-1, old.y[:, None]) for z in (z_fast, z_slow))
        gap = (net(theta, old.x, old.gates) - torch.where(p_slow > p_fast, z_slow, z_fast)) * old.mask
        return loss + self.beta * gap.square().sum() / old.mask.sum()

    def after_step(self, theta: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        steps = state["steps"] + 1
        least = 1 / (steps + 1)  # an average over few steps must not remember the random start
        fast = torch.lerp(state["theta_fast"], theta, least.clamp_min(1 - self.fast))
        slow = torch.lerp(state["theta_slow"], theta, least.clamp_min(1 - self.slow))
        return theta, state | {"theta_fast": fast, "theta_slow": slow, "steps": steps}

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        return net(state["theta_slow"], batch.x)

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        return super().memory_bytes(state, scenario) + 4 * (state["theta_fast"].numel() + state["theta_slow"].numel())


@dataclass(frozen=True)
class FastWeights(ER):
    """Fast and slow weights: every connection is the sum of a slow weight that lasts and a fast one that fades.

    theta = slow + fast. A step Delta of the optimiser is shared out, slow += rho Delta, fast += (1 - rho) Delta, and the fast
    weight then decays, fast <- decay fast. What is learned in a hurry fades; what keeps coming back stays. Old samples come
    from ER's buffer; size = 0 leaves the two kinds of weight alone. decay = 1 or rho = 1 is plain ER.

    Raises ValueError for rho or decay outside [0, 1] and as ER.
    Source: Hinton & Plaut 1987, "Using fast weights to deblur old memories".
    """

    label = "fast weights"
    rho: float = 0.1
    decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        _shares(self, "rho", "decay")

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        return super().start(net, theta) | {"fast": torch.zeros_like(theta)}

    def after_step(self, theta: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        fast = state["fast"] + (1 - self.rho) * (theta - step.before)
        return theta - (1 - self.decay) * fast, state | {"fast": self.decay * fast}

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        return super().memory_bytes(state, scenario) + 4 * state["fast"].numel()


def _shares(method: ER, *names: str) -> None:
    for name in names:
        if getattr(method, name) > 1:
            raise ValueError(f"{type(method).__name__}.{name} must lie between 0 and 1, got {getattr(method, name)}")
