"""How every run of one call is trained. Book: notebooks/01_forgetting, "The same by run"."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from numbers import Integral

import torch

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


class DivergedError(ArithmeticError):
    """A run whose parameters are no longer finite."""


@dataclass(frozen=True)
class Training:
    """How every run of one call is trained; the arguments of `run` of the same names.

    Raises ValueError for numbers below 1, a learning rate that is not a positive number, and unknown names.
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    keep_optimizer: bool = False
    decay: bool = False
    eval_every: int | None = None
    eval_samples: int | None = None
    future: bool = False
    on_divergence: str = "raise"

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"give either epochs or steps per task, got epochs={self.epochs} and steps={self.steps}")
        for name in ("epochs", "steps", "batch_size", "eval_every", "eval_samples"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}: choose one of {', '.join(OPTIMIZERS)}")
        if not (self.lr > 0 and isfinite(self.lr)):
            raise ValueError(f"lr must be a positive number, got {self.lr}")
        if self.on_divergence not in ("raise", "nan"):
            raise ValueError(f'on_divergence must be "raise" or "nan", got {self.on_divergence!r}')

    def steps_for(self, n: int) -> int:
        """Steps on a task of n samples: whole batches, so `epochs` passes over the data are rounded down."""
        return self.steps or max(1, (self.epochs or 0) * n // self.batch_size)
