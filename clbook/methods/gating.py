"""A few of the hidden units for each task: chosen at random (XdG) or learned (HAT). Book: book/families, "Few neurons"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad

from clbook.checks import AtLeastOne, InputError, ShareBelowOne, Strength
from clbook.method import Method, Rng, State, Update
from clbook.net import Gate, Gates, Net
from clbook.scenarios import Batch, Scenario, Task


@dataclass(frozen=True)
class XdG(Method):
    """Context-dependent gating: for each task a random share `drop` of every hidden layer is switched off.

    h_i <- gate_i(task) h_i with gates of 0 and 1, drawn once a task and run, in training and at test time alike.

    What is protected: while a task is trained, the weights into, the bias of and the weights out of a unit that is off get
    a gradient of exactly zero and stay bit-identical (with keep_optimizer, an optimiser's momentum still moves them). A
    weight between two units that are on is not protected from this task. drop = 0 is fine-tuning.

    A task that has not been trained yet is seen through the newest gates. Raises InputError for drop outside [0, 1), a
    network without hidden gates, and where the task is not known at test time.
    Source: Masse et al. 2018 (arXiv:1802.01569), there with EWC or SI on top; alone: van de Ven & Tolias 2019.
    """

    needs_task = True
    drop: ShareBelowOne = 0.8

    def extend(self, net: Net, scenario: Scenario) -> Net:
        hidden_gates(net, self)  # speaks up before training starts
        return net

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        width = sum(hidden_gates(net, self).values())
        return {"gates": torch.zeros((0, width), dtype=torch.bool, device=theta.device)}  # [tasks seen, W], a byte each

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        rows = []
        for width in hidden_gates(net, self).values():
            off = torch.randperm(width, generator=rng)[: min(round(self.drop * width), width - 1)]  # one unit at least is on
            rows.append(torch.ones(width, dtype=torch.bool).index_fill(0, off, False))
        return theta, {"gates": torch.cat([state["gates"], torch.cat(rows)[None].to(theta.device)])}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        return net.loss(theta, batch._replace(gates=self.gates(net, theta, state, batch)))

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        return net(theta, batch.x, self.gates(net, theta, state, batch))

    def gates(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Gates:
        """The gates of the batch's tasks, times those of dropout."""
        rows = state["gates"][batch.task.clamp(max=len(state["gates"]) - 1)]
        return with_factors(net, self, batch, rows.to(theta.dtype))


class Attentive(nn.Module):
    """A network and one row of unit embeddings a task [T, W]; the outputs are the network's."""

    def __init__(self, inner: nn.Module, tasks: int, width: int) -> None:
        super().__init__()
        self.inner, self.embedding = inner, nn.Parameter(torch.randn(tasks, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@dataclass(frozen=True)
class HAT(Method):
    """Hard attention to the task: each task learns which hidden units it uses, and their weights are then locked.

    h <- a h,   a = sigmoid(s e_task) [W],   loss = L + c sum_i a_i (1 - a_old_i) / sum_i (1 - a_old_i)

    e_task is learned with theta; s rises from 1/s_max to s_max over the task (the paper: over every epoch), and the gradient
    of e is freed of s as in section 2.5. c asks for few units that no earlier task uses (a_old). Afterwards, a = 1 where e > 0,
    else 0 (the paper: s = s_max).

    What is protected, bit by bit: every weight between two units used by earlier tasks, the biases of such units, and
    the outputs of earlier tasks. So the answers for an earlier task never change. The lock holds back the optimiser's step
    and not the gradient, so it holds with Adam too.

    For fully connected networks. Raises InputError for other networks, s_max < 1, a negative c, and where the task is not
    known at test time. Source: Serra et al. 2018 (arXiv:1801.01423), section 2.
    """

    needs_task = True
    c: Strength = 0.75
    s_max: AtLeastOne = 400.0

    def extend(self, net: Net, scenario: Scenario) -> Net:
        width = sum(hidden_gates(net, self).values())
        extended = Net(lambda: Attentive(net.factory(), len(scenario), width))
        lock(extended, torch.ones(width), torch.ones(net.n_outputs), torch.ones(len(scenario)))  # speaks up before training
        return extended

    def start(self, net: Net, theta: Float[Tensor, " P"]) -> State:
        e = net.unflatten(theta)["embedding"]
        none = {"used": e[0], "outputs": theta[: net.n_outputs], "tasks": e[:, 0], "locked": theta.bool()}
        return {name: torch.zeros_like(v) for name, v in none.items()} | {"s": theta.new_tensor(1 / self.s_max)}

    def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
        return theta, state | {"s": theta.new_tensor(1 / self.s_max)}

    def loss(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, ""]:
        a = (state["s"] * self.embedding(net, theta, batch)).sigmoid()  # [W]
        data_loss = net.loss(theta, batch._replace(gates=with_factors(net, self, batch, a)))
        free = 1 - state["used"]
        return data_loss + self.c * (a * free).sum() / free.sum().clamp_min(1)

    def direction(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Float[Tensor, " P"]:
        parts = net.unflatten(grad(lambda t: self.loss(net, t, state, batch))(theta))
        e, s = net.unflatten(theta)["embedding"], state["s"]
        slope = ((s * e).clamp(-50, 50).cosh() + 1) / (e.cosh() + 1)  # of sigmoid(e) over that of sigmoid(s e)
        return net.flatten(parts | {"embedding": parts["embedding"] * slope * self.s_max / s})

    def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
        s = 1 / self.s_max + (self.s_max - 1 / self.s_max) * update.done
        return torch.where(state["locked"], update.before, theta), state | {"s": s}

    def after_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> State:
        e = net.unflatten(theta)["embedding"]
        used = torch.maximum(state["used"], (e[task.index] > 0).to(theta.dtype))
        outputs = torch.maximum(state["outputs"], task.mask.to(theta.dtype))
        tasks = state["tasks"].index_fill(0, torch.tensor([task.index], device=e.device), 1.0)
        return state | {"used": used, "outputs": outputs, "tasks": tasks, "locked": lock(net, used, outputs, tasks)}

    def predict(self, net: Net, theta: Tensor, state: State, batch: Batch) -> Tensor:
        a = (self.embedding(net, theta, batch) > 0).to(theta.dtype)
        return net(theta, batch.x, with_factors(net, self, batch, a))

    def embedding(self, net: Net, theta: Tensor, batch: Batch) -> Float[Tensor, " W"]:
        """The embedding of the batch's task (a batch is of one task)."""
        return net.unflatten(theta)["embedding"].index_select(0, batch.task[:1])[0]

    def memory_bytes(self, state: State, scenario: Scenario) -> int:
        """One byte a unit and task; the locks follow from them."""
        return state["used"].numel() * int(state["tasks"].sum())


def hidden_gates(net: Net, method: Method) -> dict[str, int]:
    """The gates behind a layer, with their widths; a gate on the input is none of them."""
    found, layers = {}, 0
    for name, module in net.module.named_modules():
        layers += isinstance(module, nn.Linear | nn.Conv2d)
        if layers and isinstance(module, Gate):
            found[name] = module.width
    if not found:
        raise InputError(f"{method.label} gates hidden units, and this network has no Gate behind a layer; use mlp or cnn")
    return found


def with_factors(net: Net, method: Method, batch: Batch, factors: Float[Tensor, "*B W"]) -> Gates:
    """Factors for all hidden units, cut into the layers' gates and joined with those of dropout."""
    widths = hidden_gates(net, method)
    parts = zip(widths, factors.split(list(widths.values()), -1), strict=True)
    return batch.gates | {name: part * batch.gates.get(name, 1) for name, part in parts}


def lock(net: Net, used: Float[Tensor, " W"], outputs: Float[Tensor, " C"], tasks: Float[Tensor, " T"]) -> Tensor:
    """Which parameters lie between two units in use [P]: min(used_i, used_j) = 1, with every input in use."""
    layers = [(n, m) for n, m in net.module.named_modules() if isinstance(m, nn.Linear)]
    gates = [m.width for m in net.module.modules() if isinstance(m, Gate)][-len(layers) + 1 :]
    if gates != [m.out_features for _, m in layers[:-1]] or len(net.names) != 2 * len(layers) + 1:
        raise InputError("HAT needs a fully connected network with a Gate on every hidden layer, such as mlp")
    units = [used.new_ones(layers[0][1].in_features), *used.split(gates), outputs]
    parts = {"embedding": tasks[:, None].expand(-1, len(used)) > 0}
    for (name, _), below, above in zip(layers, units[:-1], units[1:], strict=True):
        parts[f"{name}.weight"] = torch.minimum(above[:, None], below) > 0  # [out, in]
        parts[f"{name}.bias"] = above > 0
    return net.flatten(parts)
