"""A part of a large computation: some runs that train together, described by plain values, and kept under a key.

The key changes with everything the numbers depend on: data, scenario, network, method and its fields, seeds, training, and the
code of all of it. So a part is computed once, by whichever process comes first, and never taken for another.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from clbook import code, inputs, store
from clbook.checks import Count, Fraction, check_fields
from clbook.data import Data, load
from clbook.inputs import pick_device
from clbook.loop import Training, fits, run
from clbook.method import Method
from clbook.net import Net, cnn, mlp
from clbook.result import Result
from clbook.scenarios import Kind, Scenario, permuted, rotated, split

ON_A_GPU = 16  # runs of wide networks in one part there


@dataclass(frozen=True)
class Stream:
    """A scenario by name: split, permuted or rotated tasks of a named data set, as the functions of these names make them.

    `held_out` judges on that share of the training data instead of the test set; `order` is split's. Rotated tasks are spread
    evenly from 0 to 90 degrees.
    """

    name: Literal["split", "permuted", "rotated"] = "split"
    data: str = "mnist"
    tasks: Count = 5
    kind: Kind = "task"
    order: tuple[int, ...] = ()
    held_out: Fraction | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self) -> Scenario:
        """The scenario itself."""
        data = _loaded(self.data)
        if self.name == "split":
            scenario = split(data, self.tasks, kind=self.kind, order=list(self.order) or None)
        elif self.name == "permuted":
            scenario = permuted(data, self.tasks, kind=self.kind)
        else:
            scenario = rotated(data, [90 * k / max(1, self.tasks - 1) for k in range(self.tasks)], kind=self.kind)
        return scenario if self.held_out is None else scenario.held_out(self.held_out)


@dataclass(frozen=True)
class Shape:
    """A network by name: "mlp" with hidden layers of these widths, or "cnn" with these channels and one hidden layer."""

    name: Literal["mlp", "cnn"] = "mlp"
    hidden: tuple[Count, ...] = (400, 400)
    channels: tuple[Count, ...] = (16, 32)
    dropout: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_fields(self)

    def build(self, scenario: Scenario) -> Net:
        """The network for the scenario."""
        if self.name == "cnn":
            channels, height, width = scenario.data.shape
            return cnn((channels, height, width), scenario.n_outputs, self.channels, self.hidden[0])
        return mlp(scenario.data.x.shape[1], scenario.n_outputs, self.hidden, self.dropout)


@dataclass(frozen=True)
class Part:
    """All pairs of some methods of one class and some seeds on one stream, trained in one call of `run`."""

    stream: Stream
    shape: Shape
    training: Training
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]

    @property
    def key(self) -> str:
        """The name under which it is kept."""
        what = repr(self), torch.__version__, code.digest(type(self.methods[0]), "clbook.loop", __name__)
        return hashlib.sha256(repr(what).encode()).hexdigest()[:20]

    def compute(self, device: str = "auto") -> Result:
        """Train it. The info has the seconds that the processor was busy, which other work on the machine changes little."""
        scenario, started = self.stream.build(), time.process_time()
        how = {f.name: getattr(self.training, f.name) for f in fields(Training)} | {"on_divergence": "nan"}
        net = self.shape.build(scenario)
        result = run(scenario, list(self.methods), list(self.seeds), net=net, device=device, progress=False, **how)
        return replace(result, info=result.info | {"cpu_seconds": round(time.process_time() - started, 2)})

    def load(self, folder: Path) -> Result | None:
        """What is kept of it, or None. Raises StoreError for a file that was cut off or altered."""
        path = folder / self.key
        return Result.load(path) if store.files(path)[1].exists() else None

    def __str__(self) -> str:
        stream, names = self.stream, ", ".join(dict.fromkeys(m.label for m in self.methods))
        return f"{stream.name} {stream.data} {stream.kind}: {names}, {len(self.methods)} x {len(self.seeds)} runs"


def parts_of(
    stream: Stream, shape: Shape, training: Training, methods: Sequence[Method], seeds: Sequence[int], device: str = "auto"
) -> Iterator[Part]:
    """All pairs of methods and seeds, cut into parts that fit one batch: wide networks run by run on a CPU.

    The cut looks at the kind of device and not at its free memory, so that the same sweep has the same parts tomorrow. Raises
    InputError for a method that the stream is not for.
    """
    scenario, where = stream.build(), pick_device(device).type
    net = shape.build(scenario)
    inputs.told(scenario, methods)
    alike: dict[Any, list[Method]] = {}
    for m in methods:
        alike.setdefault(m.fixed, []).append(m)
    for group in alike.values():
        extended = inputs.extended(group[0], net, scenario)
        most = max(fits(extended, training.batch_size, torch.device("cpu")), 1 if where == "cpu" else ON_A_GPU)
        most = most if group[0].stacks and extended.stacks else 1
        together, wide = max(1, most // len(seeds)), min(most, len(seeds))  # methods and seeds in one part
        for i in range(0, len(group), together):
            for j in range(0, len(seeds), wide):
                yield Part(stream, shape, training, tuple(group[i : i + together]), tuple(seeds[j : j + wide]))


@cache
def _loaded(name: str) -> Data:
    """One copy of a data set in each process."""
    return load(name)
