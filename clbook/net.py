"""A network as a function of one flat vector theta in R^P.

With theta one vector, every formula of the book is one line of code: a quadratic penalty, a projection of the
gradient, the straight line between two solutions. Book: notebooks/01_forgetting, "One vector".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, vmap

from clbook.checks import Count, InputError, ShareBelowOne, check, checked, short
from clbook.likelihood import Categorical, Likelihood
from clbook.scenarios import Batch, Scenario

Gates = dict[str, Tensor]
STATISTICS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)


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

    `net(theta, x)` are the outputs for inputs x [B, ...] with parameters theta [P]; `net.init(seed)` is a fresh theta.
    `factory` builds the module. Every parameter must be used in the forward pass. `example` is an input [1, ...] with which
    that pass is recorded, so that the order of the layers is known; `run` gives its own where there is none.

    Raises InputError for layers with statistics over a batch (BatchNorm) or with randomness of their own (Dropout): with
    them the outputs are no function of theta and x alone. So does a module in place of a factory.
    """

    def __init__(self, factory: Callable[[], nn.Module], example: Tensor | None = None) -> None:
        if isinstance(factory, nn.Module):
            raise InputError(f"give a function that builds the network, lambda: {type(factory).__name__}(...), not the network")
        if not callable(factory):
            raise InputError(f"factory must be a function that builds an nn.Module, got {short(factory)}")
        self.factory, self.example = factory, check(example, Tensor | None, "example")
        self.given_likelihood: Likelihood | None = None
        self.knows = 0
        self.learned: Tensor | None = None
        with torch.random.fork_rng(devices=[]):
            try:
                self.module = factory()
            except TypeError as error:
                raise InputError(f"factory must build an nn.Module without being given anything: {error}") from error
        if not isinstance(self.module, nn.Module):
            raise InputError(f"factory must build an nn.Module, and it built {short(self.module)}")
        self.module.eval()
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
        """A fresh theta [P], drawn by the module's own initialisation; it depends on the seed alone.

        What a pre-trained network has learned takes the place of what would be drawn.
        """
        if self.learned is not None:
            return self.learned.clone()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            module = self.factory()
        if module is self.module:
            raise InputError(
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

    def __call__(
        self, theta: Float[Tensor, " P"], x: Shaped[Tensor, "B *D"], gates: Gates | None = None
    ) -> Float[Tensor, "B *C"]:
        """The outputs [B, C] of the network with parameters theta [P] for inputs x [B, ...]; [B, T, C] for sequences."""
        buffers = {f"{name}.factor": factor for name, factor in (gates or {}).items()}
        outputs: Tensor = functional_call(self.module, self.unflatten(theta) | buffers, (x,))
        return outputs

    def loss(self, theta: Float[Tensor, " P"], batch: Batch) -> Float[Tensor, ""]:
        """The task's own loss: - log p(y | f(x)), averaged over the batch (masked cross-entropy if nothing else was said)."""
        return self.likelihood.loss(self(theta, batch.x, batch.gates), batch.y, batch.mask)

    @property
    def likelihood(self) -> Likelihood:
        """What the outputs mean: what `told` was given, else one class of several."""
        return Categorical() if self.given_likelihood is None else self.given_likelihood

    def told(self, likelihood: Likelihood | None = None, example: Tensor | None = None) -> Net:
        """The same network, told what its outputs mean and what its inputs look like."""
        net = Net(self.factory, self.example if example is None else example)
        net.given_likelihood = self.given_likelihood if likelihood is None else likelihood
        net.knows, net.learned = self.knows, self.learned
        return net

    def pretrained(self, theta: Float[Tensor, " P"], tasks: int = 1) -> Net:
        """The same network, which starts at theta [P] and knows the first `tasks` tasks of a scenario already.

        `run` takes no steps on these. Each method does with them what it does after a task, so that EWC has its Fisher and a
        buffer its samples when fine-tuning starts. Raises InputError for another number of parameters, or less than one task.
        """
        if theta.shape != (self.n_params,):
            raise InputError(f"theta must be one vector of {self.n_params} parameters, got {list(theta.shape)}")
        net = self.told()
        net.knows, net.learned = check(tasks, Count, "tasks"), theta.detach().cpu().clone()
        return net

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The modules that own parameters, in the order in which the forward pass ends them; the last gives the outputs.

        A parameter belongs to the innermost module that is called. Raises InputError where there is no example to pass, and
        where a module has parameters of its own beside the layers it calls, so that it is neither before nor after them.
        """
        found = tuple(sorted(dict.fromkeys(self.layer_of.values()), key=self._calls.index))
        for outer in found:
            if inner := [name for name in found if name != outer and name.startswith(f"{outer}." if outer else "")]:
                raise InputError(
                    f"the order of the layers is not clear: module {outer!r} has parameters of its own and calls {inner[0]!r}, "
                    "which has some too. Put each into a layer, such as nn.Linear or nn.Embedding"
                )
        return found

    @cached_property
    def layer_of(self) -> dict[str, str]:
        """The layer of each parameter, by name."""
        return {name: next(m for m in _outwards(name) if m in self._calls) for name in self.names}

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the outputs for one sample: (C,), or (T, C) for a sequence."""
        return tuple(self._recorded[1].shape[1:])

    @property
    def n_outputs(self) -> int:
        """C, the number of outputs."""
        return self.output_shape[-1]

    def last(self, layers: int = 1, outputs: Bool[Tensor, " C"] | None = None) -> Bool[Tensor, " P"]:
        """Which entries of theta [P] belong to the last `layers` layers; with `outputs` [C], of the very last only those rows.

        Raises InputError for fewer than one layer or more than there are.
        """
        most = len(self.layers)
        if not 1 <= layers <= most:
            raise InputError(f"this network has {most} layers, so 1..{most} can be chosen, got {layers}")
        parts = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            part = torch.full(shape, self.layer_of[name] in self.layers[-layers:])
            if outputs is not None and self.layer_of[name] == self.layers[-1]:
                part &= outputs.cpu().view(-1, *[1] * (part.dim() - 1))
            parts.append(part.flatten())
        return torch.cat(parts)

    def dropout(self, shape: tuple[int, ...], generator: torch.Generator) -> Gates:
        """One random gate [*shape, width] per layer that has dropout: 0 with probability p, else 1 / (1 - p)."""
        return {
            name: torch.empty(*shape, g.width).bernoulli_(1 - g.dropout, generator=generator) / (1 - g.dropout)
            for name, g in self.gates.items()
            if g.dropout > 0
        }

    @cached_property
    def stacks(self) -> bool:
        """Whether PyTorch can compute it for several thetas at once; it cannot for LSTM, GRU and RNN layers, for example."""
        if self.example is None:
            return True
        first = next(self.module.parameters())
        theta = torch.cat([p.detach().flatten() for p in self.module.parameters()])
        x = self.example.to(first.device)
        try:
            with torch.no_grad():
                vmap(self, (0, None))(theta.expand(2, -1), x.to(first.dtype) if x.is_floating_point() else x)
        except (RuntimeError, ValueError):
            return False
        return True

    @property
    def _calls(self) -> list[str]:
        return self._recorded[0]

    @cached_property
    def _recorded(self) -> tuple[list[str], Tensor]:
        """The names of all modules in the order in which their last call ends, and the outputs for the example."""
        if self.example is None:
            raise InputError("the order of the layers shows in a forward pass: give Net(factory, example=x[:1])")
        calls: list[str] = []
        modules = self.module.named_modules()
        hooks = [m.register_forward_hook(lambda m, args, out, name=name: calls.append(name)) for name, m in modules]
        try:
            with torch.no_grad():
                first = next(self.module.parameters())
                x = self.example.to(first.device)
                outputs: Tensor = self.module(x.to(first.dtype) if x.is_floating_point() else x)
        finally:
            for hook in hooks:
                hook.remove()
        return list(dict.fromkeys(reversed(calls)))[::-1], outputs


def _outwards(name: str) -> Iterator[str]:
    """The modules around a parameter, from the innermost to the whole network, which is named ""."""
    while name:
        name = name.rpartition(".")[0]
        yield name


@checked
def mlp(
    n_in: Count,
    n_out: Count,
    hidden: Sequence[Count] = (400, 400),
    dropout: tuple[ShareBelowOne, ShareBelowOne] = (0.0, 0.0),
    norm: bool = False,
) -> Net:
    """A fully connected ReLU network n_in - hidden - n_out with PyTorch's own initialisation.

    `dropout` = (p on the input, p on every hidden layer), active in training only. With `norm` each hidden layer is normalised
    before its ReLU (LayerNorm). Raises InputError for a layer without units and for probabilities outside [0, 1).

    >>> mlp(784, 10, hidden=(400, 400)).n_params
    478410
    """

    def factory() -> nn.Module:
        layers: list[nn.Module] = [Gate(n_in, dropout[0])] if dropout[0] else []
        for a, b in zip([n_in, *hidden][:-1], hidden, strict=True):
            layers += [nn.Linear(a, b), *([nn.LayerNorm(b)] if norm else []), nn.ReLU(), Gate(b, dropout[1])]
        return nn.Sequential(*layers, nn.Linear([n_in, *hidden][-1], n_out))

    return Net(factory, torch.zeros(1, n_in))


@checked
def cnn(
    shape: tuple[Count, Count, Count], n_out: Count, channels: Sequence[Count] = (16, 32), hidden: Count = 128
) -> Net:
    """A small convolutional network for flat images [B, D] of the given shape: 3x3 convolutions, each halved by pooling.

    Raises InputError for images too small to be halved once a layer.

    >>> cnn((1, 28, 28), 10).n_params
    206922
    """
    if min(shape[1:]) < 2 ** len(channels):
        least = 2 ** len(channels)
        raise InputError(f"{len(channels)} channels, each pooled, need a shape of at least {least} pixels a side, got {shape}")

    def factory() -> nn.Module:
        layers: list[nn.Module] = [nn.Unflatten(1, shape)]
        for a, b in zip([shape[0], *channels][:-1], channels, strict=True):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        side = [s // 2 ** len(channels) for s in shape[1:]]
        flat = [shape[0], *channels][-1] * side[0] * side[1]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), Gate(hidden), nn.Linear(hidden, n_out))

    return Net(factory, torch.zeros(1, math.prod(shape)))


class Transformer(nn.Module):
    """A causal transformer: tokens [B, T] to the outputs for the next token at every position [B, T, C], T <= context."""

    def __init__(self, tokens: int, context: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(tokens, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        h = self.token(x) + self.position(torch.arange(x.shape[-1], device=x.device))  # [B, T, W]
        for block in self.blocks:
            h = block(h)
        outputs: Tensor = self.head(self.norm(h))
        return outputs


class Block(nn.Module):
    """Attention to what came before, then a layer of its own for every position; each adds to what it was given."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for p in self.qkv(self.norm_1(h)).chunk(3, -1))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # [B, heads, T, T]
        later = torch.ones(h.shape[-2:-1] * 2, dtype=torch.bool, device=h.device).triu(1)
        seen = scores.masked_fill(later, -math.inf).softmax(-1) @ v
        h = h + self.out(seen.transpose(-3, -2).flatten(-2))
        return h + self.down(nn.functional.gelu(self.up(self.norm_2(h))))


@checked
def transformer(tokens: Count, context: Count, width: Count = 64, heads: Count = 4, depth: Count = 2) -> Net:
    """A small causal transformer for token numbers [B, T <= context]: outputs [B, T, tokens] for the next token everywhere.

    Raises InputError for a width that the heads do not divide. Source: Vaswani et al. 2017 (arXiv:1706.03762), with the
    normalisation before each part, as in Radford et al. 2019.

    >>> net = transformer(tokens=128, context=16)
    >>> net(net.init(0), torch.zeros(3, 16, dtype=torch.int64)).shape
    torch.Size([3, 16, 128])
    """
    if width % heads:
        raise InputError(f"width must be a multiple of heads, got {width} and {heads}")
    return Net(lambda: Transformer(tokens, context, width, heads, depth), torch.zeros(1, context, dtype=torch.int64))


def chain(net: Net, who: str) -> dict[str, nn.Linear]:
    """The Linear layers of a chain with a ReLU between every two, by name. Raises InputError for another network."""
    parts = [(n, m) for n, m in net.module.named_children() if not isinstance(m, Gate)]
    linear = {n: m for n, m in parts if isinstance(m, nn.Linear) and m.bias is not None}
    alternate = all(isinstance(m, nn.ReLU if i % 2 else nn.Linear) for i, (_, m) in enumerate(parts))
    if not isinstance(net.module, nn.Sequential) or not alternate or 2 * len(linear) != len(parts) + 1:
        raise InputError(f"{who} needs a chain of Linear layers (with biases) and ReLUs between them, as mlp makes")
    return linear


def default_net(scenario: Scenario, hidden: Sequence[int] = (400, 400)) -> Net:
    """The network `run` takes when it is given none: an MLP with the scenario's inputs and outputs."""
    x = scenario.data.x
    if x.dim() != 2 or not x.is_floating_point():
        raise InputError(f"only flat inputs [N, D] get a network by themselves: give net=..., got {list(x.shape)}, {x.dtype}")
    return mlp(x.shape[1], scenario.n_outputs, hidden)


def _check_layers(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        what = type(layer).__name__
        if isinstance(layer, STATISTICS) or getattr(layer, "running_mean", None) is not None:
            raise InputError(
                f"layer {name!r} ({what}) takes statistics over a batch, so the outputs are no function of theta and x alone; "
                "use GroupNorm or LayerNorm, which look at one sample"
            )
        if isinstance(layer, RANDOM) or (isinstance(layer, nn.MultiheadAttention | nn.RNNBase) and layer.dropout):
            raise InputError(f"layer {name!r} ({what}) draws random numbers of its own; use mlp(..., dropout=(p, p)) or a Gate")
