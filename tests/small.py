"""Small data and small runs for the tests: seconds on one core, in double precision where numbers are compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

import clbook
from clbook import Data, InputError, Net, Result, Scenario, sampling

SIZES = {"net": None, "steps": 12, "batch_size": 8, "progress": False, "dtype": torch.float64}


def clouds(n: int = 60, n_test: int = 30, classes: int = 4, shape: tuple[int, ...] = (1, 2, 3), seed: int = 0) -> Data:
    """One cloud of points a class, every class equally often: x [n, D] in [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    D = int(torch.tensor(shape).prod())
    centres = torch.rand(classes, D, generator=g)
    y, y_test = torch.arange(n) % classes, torch.arange(n_test) % classes
    x, x_test = ((centres[i] + 0.2 * torch.randn(len(i), D, generator=g)).clamp(0, 1) for i in (y, y_test))
    return Data(x, y, x_test, y_test, "clouds", shape, classes)


def net_for(scenario: Scenario, hidden: tuple[int, ...] = (7,), **more: Any) -> Net:
    """A small MLP with the scenario's inputs and outputs."""
    return clbook.mlp(scenario.data.x.shape[1], scenario.n_outputs, hidden, **more)


def train(scenario: Scenario, methods: Any, seeds: Any = 1, **more: Any) -> Result:
    """`run` with small sizes; `more` goes to `run`."""
    sizes = SIZES | ({"steps": None} if "epochs" in more else {}) | more
    sizes["net"] = net_for(scenario) if sizes["net"] is None else sizes["net"]
    return clbook.run(scenario, methods, seeds, **sizes)


def drawn(n: int, steps: int, size: int, seed: int, task: int) -> Tensor:
    """Which of a task's n samples each step of a run sees [steps, size]."""
    return sampling.order(n, steps, size, sampling.generator(seed, "order", task))


def module_with(net: Net, theta: Tensor) -> nn.Module:
    """A plain nn.Module of its own whose parameters are theta [P]."""
    module = net.factory().to(theta.dtype)
    with torch.no_grad():
        nn.utils.vector_to_parameters(theta, module.parameters())
    return module


def flat_grad(output: Tensor, module: nn.Module) -> Tensor:
    """The gradient of a number as one vector [P], by plain autograd."""
    grads = torch.autograd.grad(output, list(module.parameters()), retain_graph=True)
    return torch.cat([g.flatten() for g in grads])


@contextmanager
def users_meet_it() -> Iterator[None]:
    """Without the checks of shapes and types that only the tests have: what a wrong argument meets outside of them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@contextmanager
def refused(message: str) -> Iterator[None]:
    """What is called within is refused with an InputError whose text holds `message`, a regular expression."""
    with users_meet_it(), pytest.raises(InputError, match=message):
        yield
