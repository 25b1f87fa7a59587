"""A network as a function of one flat vector theta in R^P.

With theta one vector, every formula of the book is one line of code: a quadratic penalty, a projection of the
gradient, the straight line between two solutions. Book: notebooks/01_forgetting, "One vector".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from clbook.scenarios import LOSSES, Batch, Scenario

Gates = dict[str, Tensor]


class Gate(nn.Module):
    """Multiplies hidden units by a factor that the caller gives; without one it does nothing.

    Dropout, context gating (XdG) and hard attention (HAT) are all gates: what differs is who chooses the factor.
    """

    factor: Tensor

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.width, self.dropout = width, dropout
        self.register_buffer("factor", torch.ones(()), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """h [..., width] times the factor [width] or [..., width]."""
        return h if self.factor.dim() == 0 else h * self.factor


class Net:
    """An nn.Module as a pure function of its parameters, written as one vector.

    `net(theta, x)` are the outputs for x [B, D] with parameters theta [P]; `net.init(seed)` is a fresh theta. `factory`
    builds the module. Every parameter must be used in the forward pass.

    Raises ValueError for layers with statistics over a batch (BatchNorm) or with randomness of their own (Dropout): with
    them the outputs are no function of theta and x alone. So does a module in place of a factory.
    """

    def __init__(self, factory: Callable[[], nn.Module], loss: str = "classification") -> None:
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}: choose one of {', '.join(LOSSES)}")
        if isinstance(factory, nn.Module):
            raise ValueError(f"give a function that builds the network, lambda: {type(factory).__name__}(...), not the network")
        self.factory, self.loss_name = factory, loss
        with torch.random.fork_rng(devices=[]):
            self.module = factory().eval()
        _check_layers(self.module)
        self.names = [name for name, _ in self.module.named_parameters()]
        self.shapes = [p.shape for p in self.module.parameters()]
        self.sizes = [p.numel() for p in self.module.parameters()]
        self.gates = {name: gate for name, gate in self.module.named_modules() if isinstance(gate, Gate)}

    @property
    def n_params(self) -> int:
        """P, the length of theta."""
        return sum(self.sizes)

    def init(self, seed: int) -> Float[Tensor, " P"]:
        """A fresh theta [P], drawn by the module's own initialisation; it depends on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            module = self.factory()
        if module is self.module:
            raise ValueError(
                "the factory gives the same module twice, so every seed would start alike; it must build a new one"
            )
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    def unflatten(self, theta: Shaped[Tensor, " P"]) -> dict[str, Tensor]:
        """theta [P] cut into the module's named parameters; views, no copies."""
        parts = theta.split(self.sizes)
        return {n: p.view(s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}

    def flatten(self, parameters: dict[str, Tensor]) -> Shaped[Tensor, " P"]:
        """Named parameters, or values shaped like them, joined into one vector [P]."""
        return torch.cat([parameters[n].reshape(-1) for n in self.names])

    def __call__(self, theta: Float[Tensor, " P"], x: Float[Tensor, "B D"], gates: Gates | None = None) -> Float[Tensor, "B C"]:
        """The outputs [B, C] of the network with parameters theta [P] for inputs x [B, D]."""
        buffers = {f"{name}.factor": factor for name, factor in (gates or {}).items()}
        return functional_call(self.module, self.unflatten(theta) | buffers, (x,))

    def loss(self, theta: Float[Tensor, " P"], batch: Batch) -> Float[Tensor, ""]:
        """The task's own loss, averaged over the batch: masked cross-entropy, or squared error of the reconstruction."""
        return batch_loss(self(theta, batch.x, batch.gates), batch, self.loss_name)

    def last(self, layers: int = 1, outputs: Bool[Tensor, " C"] | None = None) -> Bool[Tensor, " P"]:
        """Which entries of theta [P] belong to the last `layers` layers; with `outputs` [C], of the very last only those rows.

        Raises ValueError for fewer than one layer or more than there are.
        """
        layer_of = [name.rpartition(".")[0] for name in self.names]
        order = list(dict.fromkeys(layer_of))
        if not 1 <= layers <= len(order):
            raise ValueError(f"this network has {len(order)} layers, so 1..{len(order)} can be chosen, got {layers}")
        parts = [torch.full(shape, layer in order[-layers:]) for shape, layer in zip(self.shapes, layer_of, strict=True)]
        if outputs is not None:
            for part, layer in zip(parts, layer_of, strict=True):
                part &= outputs.cpu().view(-1, *[1] * (part.dim() - 1)) if layer == order[-1] else torch.tensor(True)
        return torch.cat([part.flatten() for part in parts])

    def dropout(self, shape: tuple[int, ...], generator: torch.Generator) -> Gates:
        """One random gate [*shape, width] per layer that has dropout: 0 with probability p, else 1 / (1 - p)."""
        return {
            name: torch.empty(*shape, g.width).bernoulli_(1 - g.dropout, generator=generator) / (1 - g.dropout)
            for name, g in self.gates.items()
            if g.dropout > 0
        }

    def with_loss(self, loss: str) -> Net:
        """The same network trained on another loss."""
        return Net(self.factory, loss)


def batch_loss(outputs: Tensor, batch: Batch, loss: str = "classification") -> Tensor:
    """Mean loss of outputs [B, C]: cross-entropy over the outputs that count, or squared error against x."""
    if loss == "reconstruction":
        return (outputs - batch.x).square().mean()
    return nn.functional.cross_entropy(masked(outputs, batch.mask), batch.y)


def masked(outputs: Tensor, mask: Tensor) -> Tensor:
    """Outputs [B, C] with those that do not count (mask [C] or [B, C] False) at minus infinity: softmax ignores them."""
    return outputs.masked_fill(~mask, -math.inf)


def mlp(n_in: int, n_out: int, hidden: Sequence[int] = (400, 400), dropout: tuple[float, float] = (0.0, 0.0)) -> Net:
    """A fully connected ReLU network n_in - hidden - n_out with PyTorch's own initialisation.

    `dropout` = (p on the input, p on every hidden layer), active in training only. Raises ValueError for a layer without
    units and for probabilities outside [0, 1).
    """
    if min([n_in, n_out, *hidden]) < 1:
        raise ValueError(f"every layer needs at least one unit, got {[n_in, *hidden, n_out]}")
    if len(dropout) != 2 or not all(0 <= p < 1 for p in dropout):
        raise ValueError(f"dropout must be two probabilities in [0, 1), got {dropout}")

    def factory() -> nn.Module:
        layers: list[nn.Module] = [Gate(n_in, dropout[0])] if dropout[0] else []
        for a, b in zip([n_in, *hidden][:-1], hidden, strict=True):
            layers += [nn.Linear(a, b), nn.ReLU(), Gate(b, dropout[1])]
        return nn.Sequential(*layers, nn.Linear([n_in, *hidden][-1], n_out))

    return Net(factory)


def cnn(shape: tuple[int, int, int], n_out: int, channels: Sequence[int] = (16, 32), hidden: int = 128) -> Net:
    """A small convolutional network for flat images [B, D] of the given shape: 3x3 convolutions, each halved by pooling.

    Raises ValueError for images too small to be halved once a layer.
    """
    if min(shape[1:]) < 2 ** len(channels):
        raise ValueError(f"{len(channels)} poolings need images of at least {2 ** len(channels)} pixels a side, got {shape}")

    def factory() -> nn.Module:
        layers: list[nn.Module] = [nn.Unflatten(1, shape)]
        for a, b in zip([shape[0], *channels][:-1], channels, strict=True):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        side = [s // 2 ** len(channels) for s in shape[1:]]
        flat = channels[-1] * side[0] * side[1]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), Gate(hidden), nn.Linear(hidden, n_out))

    return Net(factory)


def default_net(scenario: Scenario, hidden: Sequence[int] = (400, 400)) -> Net:
    """The network `run` takes when it is given none: an MLP with the scenario's inputs and outputs."""
    n_in = scenario.data.x.shape[1]
    return mlp(n_in, n_in if scenario.loss == "reconstruction" else scenario.n_outputs, hidden).with_loss(scenario.loss)


def _check_layers(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        kind = type(layer).__name__
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) or getattr(layer, "running_mean", None) is not None:
            raise ValueError(
                f"layer {name!r} ({kind}) takes statistics over a batch, so the outputs are no function of theta and x alone; "
                "use GroupNorm or LayerNorm, which look at one sample"
            )
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            raise ValueError(f"layer {name!r} ({kind}) draws random numbers of its own; use mlp(..., dropout=(p, p)) or a Gate")
