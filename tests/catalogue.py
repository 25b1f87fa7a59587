"""Every method of the package at sizes for small networks, and the streams that they can be tried on."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch
from small import clouds

from clbook import AnyOf, Method, Scenario, methods, sequence, split

# these two are for text, so they need a stream and a network of their own: see test_finetuning
NAMES = sorted(set(methods.__all__) - {"PseudoRehearsal", "RecordedReplay"})
SEVERAL = ("OwnAnswers", "PolicyGradient")  # for tasks with several right answers
# Where a method's own defaults are too large for a small network; every other one is taken as it comes.
SMALL: dict[str, dict[str, Any]] = {"KWTA": {"k": 3}, "DGR": {"z": 4, "hidden": 8}, "DERpp": {"size": 20}}


def example(name: str) -> Method:
    make = getattr(methods, name)
    strength = inspect.signature(make).parameters.get("lam")
    needed = {"lam": 1.0} if strength is not None and strength.default is inspect.Parameter.empty else {}
    return make(**needed | SMALL.get(name, {}))


def other(m: Method) -> Method:
    """The same method with other strengths: half of each float, which stays in every allowed range; zeros become 0.3."""
    return replace(m, **{name: value / 2 or 0.3 for name, value in m.hyper.items()})


def stream(name: str = "") -> Scenario:
    """Three tasks; in the kind of scenario that the method can be used in."""
    if name in SEVERAL:
        return several()
    return split(clouds(n=48, classes=6), 3, kind="task" if name and example(name).needs_task else "class")


def several() -> Scenario:
    """Three tasks that share their outputs and call a class and the next one right."""
    datas = []
    for seed in range(3):
        data = clouds(n=24, classes=6, seed=seed)
        right = torch.eye(6) + torch.eye(6).roll(1, 1)
        datas.append(replace(data, y=right[data.y], y_test=right[data.y_test], name=f"clouds {seed}"))
    return replace(sequence(datas, kind="domain"), likelihood=AnyOf())
