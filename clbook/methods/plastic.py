"""Against the loss of plasticity: what keeps a network able to learn its thousandth task. Book: notebooks/11_plasticity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clbook.checks import Share, Strength
from clbook.method import Method, Rng, State
from clbook.net import Net, chain
from clbook.scenarios import Batch, Scenario, Task


@dataclass(frozen=True)
class WeightDecay(Method):
    """Keep the weights small: a spring that ties every parameter to zero, and not to its old value as L2 does.

    loss = L_task + (decay / 2) ||theta||^2. Raises InputError for a negative decay.
    Source, against the loss of plasticity: Dohare et al. 2024 (Nature 632:768). Book: notebooks/11_plasticity.
    """

    label = "weight decay"
    keeps = ()
    decay: Strength = 1e-4

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        return net.loss(theta, batch) + self.decay / 2 * theta.square().sum()


@dataclass(frozen=True)
class ShrinkPerturb(Method):
    """Before each task but the first, shrink all parameters and add a little of a freshly drawn network.

    theta <- keep theta + perturb theta_new, with theta_new as the network's own initialisation draws it. keep = 1 and
    perturb = 0 is fine-tuning, keep = 0 and perturb = 1 a fresh network for each task.

    Raises InputError for a keep outside [0, 1] and a negative perturb.
    Source: Ash & Adams 2020 (arXiv:1910.08475), section 4. Book: notebooks/11_plasticity.
    """

    label = "shrink and perturb"
    keeps = ()
    keep: Share = 0.8
    perturb: Strength = 0.2

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        if task.index == 0:
            return theta, state
        return self.keep * theta + self.perturb * fresh(net, theta, rng), state


@dataclass(frozen=True)
class ContinualBackprop(Method):
    """Before each task, draw anew the hidden units that are of least use.

    utility_i = (1/N sum_n |h_i(x_n)|) sum_j |w_ji|, a mean over samples of the task that was just learned: how loud unit i is
    times how much the next layer listens to it. In each layer the `share` of the units with the least utility gets the
    incoming weights and the bias of a freshly drawn network, and outgoing weights of zero (except to units that are new
    themselves), so that the outputs change only by what the old unit gave. The source does it all the time, one unit now and
    then, with a running mean of the utility and a time of grace for young units; here it is done between tasks.

    Raises InputError for a share outside [0, 1] and a network that is no chain of Linear layers.
    Source: Dohare et al. 2024 (Nature 632:768), "Continual backpropagation". Book: notebooks/11_plasticity.
    """

    label = "continual backprop"
    share: Share = 0.02

    def extend(self, net: Net, scenario: Scenario) -> Net:
        chain(net, type(self).__name__)
        return net

    def start(self, net: Net, theta: Tensor) -> State:
        return {"utility": theta.new_zeros(sum(layer.out_features for layer in list(chain(net, self.label).values())[:-1]))}

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        if task.index == 0:
            return theta, state
        old, new = ({k: v.clone() for k, v in net.unflatten(t).items()} for t in (theta, fresh(net, theta, rng)))
        layers = list(chain(net, self.label).items())
        utilities = state["utility"].split([layer.out_features for _, layer in layers[:-1]])
        for (name, _), (following, _), utility in zip(layers, layers[1:], utilities, strict=False):
            least = utility.argsort()[: round(float(self.share) * len(utility))]
            for part in ("weight", "bias"):
                old[f"{name}.{part}"][least] = new[f"{name}.{part}"][least]
            old[f"{following}.weight"][:, least] = 0
        return net.flatten(old), state

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        rows = torch.randperm(len(task.x), generator=rng)[:500].to(task.x.device)
        return {"utility": torch.cat(utilities(net, theta, task.x[rows]))}


def utilities(net: Net, theta: Tensor, x: Float[Tensor, "N D"]) -> list[Float[Tensor, " H"]]:
    """How much use each hidden unit is, layer by layer: mean |h_i| times the sum of the outgoing |w_ji|."""
    names = list(chain(net, "utilities"))
    part = net.unflatten(theta)
    loud = [h.abs().mean(0) for h in hidden(net, theta, x)]
    return [h * part[f"{following}.weight"].abs().sum(0) for h, following in zip(loud, names[1:], strict=True)]


def hidden(net: Net, theta: Tensor, x: Float[Tensor, "N D"]) -> list[Float[Tensor, "N H"]]:
    """What the hidden units of a chain say to inputs x [N, D], layer by layer."""
    part, said = net.unflatten(theta), []
    for name in list(chain(net, "hidden"))[:-1]:
        x = torch.nn.functional.linear(x, part[f"{name}.weight"], part[f"{name}.bias"]).relu()
        said.append(x)
    return said


def fresh(net: Net, theta: Tensor, rng: Rng) -> Float[Tensor, " P"]:
    """A theta [P] as the network's own initialisation draws it, a pre-trained one included."""
    return Net(net.factory).init(int(torch.randint(2**31, (1,), generator=rng))).to(theta)
