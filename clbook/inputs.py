"""What `run` and the importances are given, looked at before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from clbook.checks import Count, InputError, Whole, check, short
from clbook.likelihood import Categorical
from clbook.method import Method
from clbook.net import Net, default_net
from clbook.scenarios import Scenario, check_scenario

Seeds = Annotated[Count, Field(le=10**6)]  # more than that is a slip


def methods(given: Any) -> list[Method]:
    """One method or several, as a list of methods."""
    given = list(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]
    if not given:
        raise InputError("run needs at least one method, got none")
    for m in given:
        if not isinstance(m, Method):
            raise InputError(f"unknown method {short(m)}: give an instance of one in clbook.methods, such as EWC(lam=100.0)")
    return given


def seeds(given: Any) -> list[int]:
    """A number of seeds, or the seeds themselves, as Python's own integers."""
    found = given.tolist() if isinstance(given, np.ndarray) else given
    if isinstance(found, Integral):
        return list(range(check(found, Seeds, "seeds")))
    if not isinstance(found, Sequence) or isinstance(found, str | bytes) or not found:
        raise InputError(f"run needs at least one seed, and seeds are whole numbers; got {short(given)}")
    return [check(s, Whole, "every seed") for s in found]


def fitting(
    scenario: Scenario, net: Net | None, methods: list[Method], device: torch.device, dtype: torch.dtype
) -> tuple[Scenario, Net]:
    """The scenario on the device and the network told what it is about. Raises InputError where they do not fit."""
    if not isinstance(scenario, Scenario):
        raise InputError(f"scenario must be a Scenario, such as clbook.permuted(data, 3), got {short(scenario)}")
    told(scenario, methods)
    check_scenario(scenario)
    known = isinstance(dtype, torch.dtype) and dtype in (torch.float32, torch.float64)
    if not known or (device.type == "mps" and dtype == torch.float64):
        raise InputError(f"dtype must be a floating type that {device} has, torch.float32 or float64, got {short(dtype)}")
    scenario = scenario.to(device, dtype)
    net = default_net(scenario) if net is None else net
    if not isinstance(net, Net):
        raise InputError(f"net must be a Net, such as clbook.mlp(784, 10) or Net(lambda: my_module()), got {short(net)}")
    if net.given_likelihood not in (None, scenario.likelihood):
        raise InputError(f"the network was told {net.given_likelihood}, and the scenario says {scenario.likelihood}")
    net, x = net.told(scenario.likelihood, scenario.data.x[:1].cpu()), scenario.data.x[:1].cpu()
    try:
        with torch.no_grad():
            got = tuple(net(net.init(0).to(dtype), x).shape)
    except Exception as error:  # whatever the reader's own module may say
        raise InputError(f"the network does not take this scenario's inputs, {list(x.shape)} {x.dtype}: {error}") from error
    if got[-1:] != (scenario.n_outputs,):
        raise InputError(f"the network has {got[-1] if got else 0} outputs, and this scenario needs {scenario.n_outputs}")
    y = scenario.test(0, 1)[1].shape
    if (got[:-1] if isinstance(scenario.likelihood, Categorical) else got) != y:
        raise InputError(f"the network's outputs {list(got)} do not go with targets of the shape {list(y)} for one sample")
    return scenario, net


def extended(method: Method, net: Net, scenario: Scenario) -> Net:
    """The network that the method trains, told what `net` was told. Raises InputError where the method refuses."""
    found = method.extend(net, scenario)
    if found.knows != net.knows:
        raise InputError(f"{method.label} trains a network of another form, so it cannot go on from a pre-trained one")
    return net if found is net else found.told(scenario.likelihood, net.example)


def told(scenario: Scenario, methods: Sequence[Method]) -> None:
    """Raise InputError for a method that must be told the task where the test does not tell it."""
    for m in methods:
        if m.needs_task and scenario.kind != "task":
            raise InputError(f'{m.label} must be told the task at test time: it needs kind="task", got kind="{scenario.kind}"')


def outputs_for(net: Net, theta: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    """The outputs for the first sample. Raises InputError where there is none, or where the network cannot take it."""
    if len(x) == 0:
        raise InputError("x must hold at least one sample, got none")
    try:
        outputs = net(theta, x[:1])
    except (RuntimeError, IndexError) as error:
        shapes = f"theta {list(theta.shape)} {theta.dtype} and x {list(x.shape)} {x.dtype}"
        raise InputError(f"the network has {net.n_params} parameters and does not go with {shapes}: {error}") from error
    if mask is not None and len(mask) != outputs.shape[-1]:
        raise InputError(f"mask must have one entry for each of the {outputs.shape[-1]} outputs, got {len(mask)}")
    return outputs


def targets_for(net: Net, y: Tensor | None, outputs: Tensor, mask: Tensor, estimator: str) -> Tensor:
    """The targets for a Fisher. Raises InputError where there are none or they do not go with the outputs."""
    if y is None:
        raise InputError(f"the {estimator} Fisher needs the targets y")
    classes = isinstance(net.likelihood, Categorical)
    shape = outputs.shape[1:-1] if classes else outputs.shape[1:]
    if y.shape[1:] != shape or not (y.dtype == torch.int64 if classes else y.is_floating_point()):
        raise InputError(f"y must be targets of {net.likelihood}, [N{''.join(f', {n}' for n in shape)}], got {short(y)}")
    if classes:
        allowed = mask.nonzero().flatten()
        if len(wrong := y[~torch.isin(y, allowed)]):
            raise InputError(f"label {int(wrong[0])} is not among the outputs of the mask, {allowed.tolist()}")
    return y


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """For "auto" CUDA, else MPS, else the CPU; anything else is taken as torch names it.

    Raises InputError for a device that torch does not know or that is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if isinstance(device, str) and device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f'unknown device {short(device)}: choose "auto", {", ".join(there)}') from error
    if not there.get(chosen.type, True) or not _works(chosen):
        raise InputError(f'there is no device {device!r} here; device="auto" takes {pick_device("auto")}')
    return chosen


def _works(device: torch.device) -> bool:
    """Whether a number can be put there and read back."""
    try:
        return torch.zeros(1, device=device).item() == 0
    except (RuntimeError, NotImplementedError, AssertionError):
        return False
