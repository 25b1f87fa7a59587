"""Long and short-term memory: something that changes fast and something that changes slowly.

Book: book/families, "Long and short-term memory"; notebooks/06_families.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clbook.checks import Share, Strength
from clbook.method import State, Update
from clbook.methods.replay import ER
from clbook.net import Net
from clbook.scenarios import Batch


@dataclass(frozen=True)
class CLSER(ER):
    """Complementary learning systems with experience replay: a fast and a slow average of the weights guide the learner.

    theta_fast <- fast theta_fast + (1 - fast) theta, likewise theta_slow, after every step; and
    loss = ER's loss + beta mean |f(x_old; theta) - z|^2, with z the outputs of whichever memory gives the label of x_old more
    probability. The slow memory answers at test time. size = 0, fast = slow = 0 is fine-tuning.

    The paper moves a memory with probability r and decay alpha; this is that step's mean, a decay of 1 - r (1 - alpha).
    The old samples' weight is ER's (`lam`); the paper's is 1/2. Raises InputError for a decay outside [0, 1] and as ER.
    Source: Arani et al. 2022 (arXiv:2201.12604), algorithm 1.
    """

    label = "CLS-ER"
    keeps = ("theta_fast", "theta_slow")
    beta: Strength = 0.1
    fast: Share = 0.99
    slow: Share = 0.999

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        averages = {"theta_fast": theta.clone(), "theta_slow": theta.clone()}
        return super().start(net, theta) | averages | {"steps": theta.new_zeros(())}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        loss = super().loss(net, theta, state, batch)
        old = batch.old
        if old is None:
            return loss
        z_fast, z_slow = (net(state[name], old.x) for name in ("theta_fast", "theta_slow"))  # [B, C]
        p_fast, p_slow = (net.likelihood.log_p(z, old.y, old.mask) for z in (z_fast, z_slow))  # [B]
        better = (p_slow > p_fast).view(-1, *[1] * (z_slow.dim() - 1))
        gap = net(theta, old.x, old.gates) - torch.where(better, z_slow, z_fast)
        counts = old.mask.view(len(gap), *[1] * (gap.dim() - 2), -1).expand_as(gap)  # outputs that count
        return loss + self.beta * (gap * counts).square().sum() / counts.sum()

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        steps = state["steps"] + 1
        least = 1 / (steps + 1)  # an average over few steps must not remember the random start
        fast = torch.lerp(state["theta_fast"], theta, least.clamp_min(1 - self.fast))
        slow = torch.lerp(state["theta_slow"], theta, least.clamp_min(1 - self.slow))
        return theta, state | {"theta_fast": fast, "theta_slow": slow, "steps": steps}

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        return net(state["theta_slow"], batch.x)


@dataclass(frozen=True)
class FastWeights(ER):
    """Fast and slow weights: every connection is the sum of a slow weight that lasts and a fast one that fades.

    theta = slow + fast. A step Delta of the optimiser is shared out, slow += rho Delta, fast += (1 - rho) Delta, and the fast
    weight then decays, fast <- decay fast. What is learned in a hurry fades; what keeps coming back stays. Old samples come
    from ER's buffer; size = 0 leaves the two kinds of weight alone. decay = 1 or rho = 1 is plain ER.

    Raises InputError for rho or decay outside [0, 1] and as ER.
    Source: Hinton & Plaut 1987, "Using fast weights to deblur old memories".
    """

    label = "fast weights"
    keeps = ("fast",)
    rho: Share = 0.1
    decay: Share = 0.99

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        return super().start(net, theta) | {"fast": torch.zeros_like(theta)}

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        fast = state["fast"] + (1 - self.rho) * (theta - update.before)
        return theta - (1 - self.decay) * fast, state | {"fast": self.decay * fast}
