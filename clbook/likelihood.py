r"""What a task's outputs mean: the likelihood p(y | f(x)).

A likelihood gives the loss, the score that goes into R, a sample of y, and what the exact Fisher information needs. An
*observation* is what one term of the loss is about: a label, a coordinate of a real target, the token at one position of a
sequence. Loss and Fisher are means per observation, so Bayes' rule weighs an old task by N_old / N_new observations.
Book: book/ewc, "The Fisher information".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from clbook.checks import Positive, check_fields


@runtime_checkable
class Likelihood(Protocol):
    """p(y | f) for outputs f [B, ..., C]; mask [C] or [B, C] says which outputs count. `measure` names what the score is."""

    @property
    def measure(self) -> str: ...

    def loss(self, f: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """- log p(y | f), the mean over all observations [] (constants left out)."""
        ...

    def log_p(self, f: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """log p(y_n | f_n), the sum over the observations of each sample [B] (constants left out)."""
        ...

    def score(self, f: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """How good the outputs are, the mean over the observations of each sample [B]: more is better."""
        ...

    def sample(self, f: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
        """y drawn from p(y | f); drawn on the CPU, so that every device gets the same."""
        ...

    def answer(self, f: Tensor, mask: Tensor) -> Tensor:
        """The most probable y."""
        ...

    def fisher_terms(self, f: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """weight and value [B, K] with E_y[(d log p(y | f) / d theta)^2] = sum_k weight_k (d value_k / d theta)^2."""
        ...

    def observations(self, f: Tensor) -> int:
        """How many observations the outputs of one sample hold."""
        ...

    def distil(
        self, f: Tensor, f_old: Tensor, now: Tensor, old: Tensor, temperature: Tensor | float, t_squared: bool = False
    ) -> Tensor:
        """The loss [] of outputs f under answers drawn from f_old, summed over groups of outputs (now, old [G, C])."""
        ...


@dataclass(frozen=True)
class Categorical:
    """One class of C, or one token of C at every position: log p(y | f) = log softmax(f)_y over the outputs that count.

    f [B, C] with y [B], or f [B, T, C] with y [B, T]. `measure` is what R holds: "accuracy", or "log_likelihood", the mean of
    log p in nats. The exact Fisher sums over the classes with weights p(c | x) and needs no labels.
    """

    measure: Literal["accuracy", "log_likelihood"] = "accuracy"

    def __post_init__(self) -> None:
        check_fields(self)

    def loss(self, f: Float[Tensor, "*B C"], y: Int64[Tensor, "*B"], mask: Bool[Tensor, "*m C"]) -> Float[Tensor, ""]:
        return nn.functional.cross_entropy(masked(f, mask).flatten(0, -2), y.flatten())

    def log_p(self, f: Float[Tensor, "B *T C"], y: Int64[Tensor, "B *T"], mask: Bool[Tensor, "*m C"]) -> Float[Tensor, " B"]:
        return self._log_p(f, y, mask).sum(-1)

    def score(self, f: Float[Tensor, "B *T C"], y: Int64[Tensor, "B *T"], mask: Bool[Tensor, "*m C"]) -> Float[Tensor, " B"]:
        if self.measure == "log_likelihood":
            return self._log_p(f, y, mask).mean(-1)
        return (self.answer(f, mask) == y).to(f.dtype).reshape(len(y), -1).mean(-1)

    def sample(self, f: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
        p = masked(f, mask).softmax(-1).to("cpu")
        return torch.multinomial(p.flatten(0, -2), 1, generator=rng).view(f.shape[:-1]).to(f.device)

    def answer(self, f: Tensor, mask: Tensor) -> Tensor:
        return masked(f, mask).argmax(-1)

    def fisher_terms(self, f: Float[Tensor, "B *T C"], mask: Bool[Tensor, " C"]) -> tuple[Tensor, Tensor]:
        log_p = masked(f, mask).log_softmax(-1)[..., mask].flatten(1)  # [B, T K]
        return log_p.detach().exp(), log_p

    def observations(self, f: Tensor) -> int:
        return math.prod(f.shape[1:-1])

    def distil(
        self, f: Tensor, f_old: Tensor, now: Tensor, old: Tensor, temperature: Tensor | float, t_squared: bool = False
    ) -> Tensor:
        return distillation(f, f_old, now, old, temperature) * (temperature**2 if t_squared else 1)

    def _log_p(self, f: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """log p of every observation [B, T], T = 1 for a single label."""
        return masked(f, mask).log_softmax(-1).gather(-1, y[..., None]).flatten(1)


@dataclass(frozen=True)
class AnyOf:
    """Several right answers: y [B, C] is 1 for each of them, else 0, and log p(y | f) = log sum_c y_c softmax(f)_c.

    A label is the case of a single 1. The score is accuracy: whether the most probable answer is a right one. What belongs to
    the network alone (a draw, the exact Fisher, distillation) is that of Categorical. Book: notebooks/10_finetuning.
    """

    measure: ClassVar[str] = "accuracy"

    def loss(self, f: Float[Tensor, "B C"], y: Float[Tensor, "B C"], mask: Bool[Tensor, "*m C"]) -> Float[Tensor, ""]:
        return -self.log_p(f, y, mask).mean()

    def log_p(self, f: Float[Tensor, "B C"], y: Float[Tensor, "B C"], mask: Bool[Tensor, "*m C"]) -> Float[Tensor, " B"]:
        return masked(f, mask).log_softmax(-1).masked_fill(y == 0, -math.inf).logsumexp(-1)

    def score(self, f: Float[Tensor, "B C"], y: Float[Tensor, "B C"], mask: Bool[Tensor, "*m C"]) -> Float[Tensor, " B"]:
        return y.gather(-1, masked(f, mask).argmax(-1, keepdim=True))[:, 0]

    def sample(self, f: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
        return nn.functional.one_hot(Categorical().sample(f, mask, rng), f.shape[-1]).to(f.dtype)

    def answer(self, f: Tensor, mask: Tensor) -> Tensor:
        return nn.functional.one_hot(Categorical().answer(f, mask), f.shape[-1]).to(f.dtype)

    def fisher_terms(self, f: Float[Tensor, "B C"], mask: Bool[Tensor, " C"]) -> tuple[Tensor, Tensor]:
        return Categorical().fisher_terms(f, mask)

    def observations(self, f: Tensor) -> int:
        return 1

    def distil(
        self, f: Tensor, f_old: Tensor, now: Tensor, old: Tensor, temperature: Tensor | float, t_squared: bool = False
    ) -> Tensor:
        return Categorical().distil(f, f_old, now, old, temperature, t_squared)


@dataclass(frozen=True)
class Gaussian:
    r"""Real targets with independent noise of one size: log p(y | f) = - sum_d (y_d - f_d)^2 / (2 sigma^2).

    f and y [B, ..., D]: a regression, or a reconstruction where y is x. The score is minus the mean squared error. The exact
    Fisher is the mean over the outputs of (d f_d / d theta)^2 / sigma^2: no target occurs in it. Masks play no part.
    """

    measure: ClassVar[str] = "minus_squared_error"
    sigma: Positive = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def loss(self, f: Float[Tensor, "*B D"], y: Float[Tensor, "*B D"], mask: Tensor) -> Float[Tensor, ""]:
        return (f - y).square().mean() / (2 * self.sigma**2)

    def log_p(self, f: Float[Tensor, "B *D"], y: Float[Tensor, "B *D"], mask: Tensor) -> Float[Tensor, " B"]:
        return -(f - y).square().flatten(1).sum(-1) / (2 * self.sigma**2)

    def score(self, f: Float[Tensor, "B *D"], y: Float[Tensor, "B *D"], mask: Tensor) -> Float[Tensor, " B"]:
        return -(f - y).square().flatten(1).mean(-1)

    def sample(self, f: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
        return f + self.sigma * torch.randn(f.shape, generator=rng, dtype=f.dtype).to(f.device)

    def answer(self, f: Tensor, mask: Tensor) -> Tensor:
        return f

    def fisher_terms(self, f: Float[Tensor, "B *D"], mask: Tensor) -> tuple[Tensor, Tensor]:
        value = f.flatten(1)
        return torch.full_like(value, self.sigma**-2).detach(), value

    def observations(self, f: Tensor) -> int:
        return math.prod(f.shape[1:])

    def distil(
        self, f: Tensor, f_old: Tensor, now: Tensor, old: Tensor, temperature: Tensor | float, t_squared: bool = False
    ) -> Tensor:
        """The old outputs are the targets, for all outputs at once; there is no temperature in them."""
        return self.loss(f, f_old, now)


def masked(outputs: Tensor, mask: Tensor) -> Tensor:
    """Outputs with those that do not count at minus infinity, so that softmax ignores them.

    outputs [..., C] and mask [C], or outputs [B, T, C] and mask [B, C]; otherwise as they broadcast.
    """
    if mask.dim() == 2 and outputs.dim() == 3 and mask.shape[0] == outputs.shape[0]:
        mask = mask[:, None]
    return outputs.masked_fill(~mask, -math.inf)


def distillation(
    outputs: Float[Tensor, "B *T C"], recorded: Float[Tensor, "B *T C"],
    now: Bool[Tensor, "G C"], old: Bool[Tensor, "G C"], temperature: Tensor | float = 2.0,
) -> Float[Tensor, ""]:  # fmt: skip
    """- sum_g mean_n sum_c q log p, with q over the outputs `old` [G, C] and p over the outputs `now` [G, C] of each group g.

    q and p are softmax(outputs / temperature), q of the recorded outputs. Without a factor temperature^2. Least where p = q,
    and its value there is the entropy of q. Source: Hinton et al. 2015 (arXiv:1503.02531). Book: book/lwf.
    """
    groups = (len(now), *[1] * (outputs.dim() - 1), outputs.shape[-1])  # [G, 1, C], or [G, 1, 1, C] for a sequence
    now, old = now.view(groups), old.view(groups)
    q = (recorded / temperature).masked_fill(~old, -math.inf).softmax(-1)  # [G, B, C]
    log_p = (outputs / temperature).masked_fill(~now, -math.inf).log_softmax(-1).masked_fill(~now, 0.0)
    return -(q * log_p).sum(-1).flatten(1).mean(-1).sum()
