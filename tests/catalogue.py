"""Every method of the package at sizes for small networks, and the streams that they can be tried on."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from small import clouds

from clbook import Method, Scenario, methods, split

NAMES = sorted(methods.__all__)
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
    return split(clouds(n=48, classes=6), 3, kind="task" if name and example(name).needs_task else "class")
