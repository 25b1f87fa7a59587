"""Scenarios: a list of tasks, and the mask that says which outputs count.

A scenario holds ONE base data set. A task is a set of its rows, seen through a transform (a permutation of the
pixels, a rotation) and a map of its labels; a stream of 100 tasks is 100 permutations, never 100 copies.

The three scenarios of van de Ven & Tolias (2019) are three masks over the outputs and one map of the labels, so no
method needs to know which one it is in. Book: notebooks/01_forgetting, "Three scenarios".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from clbook.data import Data

KINDS = ("task", "domain", "class")
LOSSES = ("classification", "reconstruction")
View = Callable[[Tensor, Tensor], Tensor]  # (x [B, D], task [B]) -> x as that task shows it [B, D]


class Batch(NamedTuple):
    """What one step sees: x [B, D], y [B], mask [B, C] of the outputs that count, task [B], row [B].

    `row` counts within the task's training samples. `gates` holds factors for hidden units by name, `extra`
    whatever a method drew for itself.
    """

    x: Tensor
    y: Tensor
    mask: Tensor
    task: Tensor
    row: Tensor
    gates: dict[str, Tensor]
    extra: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Task:
    """One task, as tensors: x [N, D], y [N], x_test [M, D], y_test [M], and mask [C], its outputs while it is trained."""

    x: Float[Tensor, "N D"]
    y: Int64[Tensor, " N"]
    x_test: Float[Tensor, "M D"]
    y_test: Int64[Tensor, " M"]
    classes: tuple[int, ...]
    name: str
    mask: Bool[Tensor, " C"]
    index: int


@dataclass(frozen=True, eq=False)
class Scenario:
    """A list of tasks over one base data set.

    rows[k] and rows_test[k] are task k's samples in `data`; relabel [T, K] maps the K base classes to outputs (-1: not
    in the task); mask [T, T, C] at [i, j] says which outputs count for task j once tasks 0..i have been seen.
    `scenario[k]` is task k as tensors, made when asked for.

    Source: van de Ven & Tolias 2019 (arXiv:1904.07734), table 1.
    """

    data: Data
    rows: tuple[Int64[Tensor, "_"], ...]
    rows_test: tuple[Int64[Tensor, "_"], ...]
    relabel: Int64[Tensor, "T K"]
    mask: Bool[Tensor, "T T C"]
    kind: str
    names: tuple[str, ...]
    view: View | None = None
    view_state: dict[str, Tensor] = field(default_factory=dict)
    loss: str = "classification"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.loss not in LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}: choose one of {', '.join(LOSSES)}")

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Task]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, k: int) -> Task:
        if not -len(self) <= k < len(self):
            raise IndexError(f"task {k} of a scenario with {len(self)} tasks")
        k = k % len(self)
        train = self.batch(k, torch.arange(len(self.rows[k]), device=self.device))
        x_test, y_test = self.test(k)
        classes = tuple(int(c) for c in self.relabel[k][self.relabel[k] >= 0].unique())
        return Task(train.x, train.y, x_test, y_test, classes, self.names[k], self.mask[k, k], k)

    @property
    def n_outputs(self) -> int:
        """C, the number of outputs the network needs."""
        return self.mask.shape[-1]

    @property
    def device(self) -> torch.device:
        """The device that holds the data."""
        return self.data.x.device

    def batch(self, task: int | Tensor, row: Tensor, seen: int | None = None) -> Batch:
        """Training samples by task and row: the batch of one step, or a replayed one.

        task: one number, or one per sample [..., B]; row [..., B] counts within each sample's task. The mask is that of
        each sample's task once task `seen` is being trained (by default the newest task in the batch). The result has
        the leading dimensions of `row`: x [..., B, D], y [..., B], mask [..., B, C].
        """
        if isinstance(task, int):
            seen = task if seen is None else seen
            base, task = self.rows[task][row], torch.full_like(row, task)
        else:
            seen = int(task.max()) if seen is None else seen
            base = self._base_rows(task, row)
        x, y = self.data.x[base], self.data.y
        x = x if self.view is None else self.view(x, task)
        labels = torch.zeros_like(task) if y is None else self.relabel[task, y[base]]
        return Batch(x, labels, self.mask[seen, task], task, row, {}, {})

    def test(self, k: int, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Task k's test inputs [M, D] and labels [M], or the first `samples` of them."""
        rows, y = self.rows_test[k][:samples], self.data.y_test
        task = torch.full_like(rows, k)
        x = self.data.x_test[rows]
        x = x if self.view is None else self.view(x, task)
        return x, torch.zeros_like(rows) if y is None else self.relabel[task, y[rows]]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Scenario:
        """The same scenario on another device, with x in another floating dtype if one is given."""
        once = {id(r): r.to(device) for r in (*self.rows, *self.rows_test)}  # tasks that share their rows go on sharing them
        moved = replace(
            self,
            data=self.data.to(device, dtype),
            rows=tuple(once[id(r)] for r in self.rows),
            rows_test=tuple(once[id(r)] for r in self.rows_test),
            relabel=self.relabel.to(device),
            mask=self.mask.to(device),
            view_state={k: v.to(device) for k, v in self.view_state.items()},
        )
        if isinstance(self.view, _View):
            return replace(moved, view=type(self.view)(**moved.view_state))
        return moved

    def held_out(self, fraction: float = 0.1, seed: int = 0) -> Scenario:
        """The same scenario, tested on a part of its TRAINING data that is kept out of training.

        This is where a hyper-parameter such as lambda is chosen: the test set is never looked at. A sample that one task
        keeps out is kept out of all, so that no task is trained on another's held-out image in a new guise.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
        generator = torch.Generator().manual_seed(seed)
        lot = torch.randperm(len(self.data.x), generator=generator).to(self.device)  # [N], the lowest are kept out
        test = tuple(rows[lot[rows].argsort()[: max(1, round(fraction * len(rows)))]] for rows in self.rows)
        out = torch.zeros_like(lot, dtype=torch.bool).index_fill(0, torch.cat(test), True)
        train = tuple(rows[~out[rows]] for rows in self.rows)
        data = replace(self.data, x_test=self.data.x, y_test=self.data.y)
        return replace(self, data=data, rows=train, rows_test=test)

    def first(self, n_tasks: int) -> Scenario:
        """The scenario that ends after its first n_tasks tasks; the outputs stay the same."""
        if not 1 <= n_tasks <= len(self):
            raise ValueError(f"n_tasks must lie between 1 and {len(self)}, got {n_tasks}")
        n = n_tasks
        return replace(
            self, rows=self.rows[:n], rows_test=self.rows_test[:n], relabel=self.relabel[:n],
            mask=self.mask[:n, :n], names=self.names[:n],
        )  # fmt: skip

    def _base_rows(self, task: Tensor, row: Tensor) -> Tensor:
        base = torch.empty_like(row)
        for k in task.unique().tolist():
            base[task == k] = self.rows[k][row[task == k]]
        return base


class _View:
    """A transform of the pixels that knows its own tensors, so that a scenario can carry them to a device."""


class _Permute(_View):
    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels  # [T, D]

    def __call__(self, x: Tensor, task: Tensor) -> Tensor:
        return x.gather(-1, self.pixels[task])


class _Rotate(_View):
    """Turns counter-clockwise about the centre, with bilinear interpolation and zeros from outside."""

    def __init__(self, angle: Tensor, size: Tensor) -> None:
        self.angle, self.size = angle, size.tolist()  # [T] in radians, (channels, height, width)

    def __call__(self, x: Tensor, task: Tensor) -> Tensor:
        flat, task = x.flatten(0, -2), task.flatten()
        shape = (len(flat), *self.size)
        cos, sin, zero = self.angle[task].cos(), self.angle[task].sin(), torch.zeros_like(self.angle[task])
        ratio = shape[-2] / shape[-1]  # affine_grid counts from -1 to 1 along both sides, however long they are
        matrix = torch.stack([torch.stack([cos, -sin * ratio, zero], -1), torch.stack([sin / ratio, cos, zero], -1)], 1)
        grid = torch.nn.functional.affine_grid(matrix.to(x.dtype), list(shape), align_corners=False)
        return torch.nn.functional.grid_sample(flat.view(shape), grid, align_corners=False).view(x.shape)


def permuted(
    data: Data, tasks: int, *, seed: int = 0, square: int | None = None, kind: str = "domain", first_identity: bool = True
) -> Scenario:
    """Permuted tasks: every task shows the same images through its own fixed permutation of the pixels.

    `square` permutes only a centred square of that many pixels a side. The first task shows the images as they are,
    unless first_identity is False. The permutations depend on `seed` alone.

    Raises ValueError for tasks < 1 and a square that does not fit.
    Source: Goodfellow et al. 2013 (arXiv:1312.6211); `square`: Kirkpatrick et al. 2017, fig. 3C.
    """
    _at_least_one(tasks)
    height, width = data.shape[-2:]
    inside = torch.zeros(data.shape, dtype=torch.bool)
    side = max(height, width) if square is None else square
    if not 2 <= side <= max(height, width):
        raise ValueError(f"square must lie between 2 and {max(height, width)} pixels, got {side}")
    top, left = (height - min(side, height)) // 2, (width - min(side, width)) // 2
    inside[..., top : top + side, left : left + side] = True
    where, generator = inside.flatten().nonzero().squeeze(1), torch.Generator().manual_seed(seed)
    pixels = torch.arange(inside.numel()).repeat(tasks, 1)
    for k in range(1 if first_identity else 0, tasks):
        pixels[k, where] = where[torch.randperm(len(where), generator=generator)]
    names = tuple("original" if first_identity and k == 0 else f"permutation {k}" for k in range(tasks))
    return _same_labels(data, names, kind, _Permute(pixels.to(data.x.device)), {"pixels": pixels})


def rotated(data: Data, angles: Sequence[float], *, kind: str = "domain") -> Scenario:
    """Rotated tasks: every task shows the same images turned by its angle, in degrees counter-clockwise.

    Raises ValueError when there is no angle or one is not finite. Source: Lopez-Paz & Ranzato 2017 (arXiv:1706.08840).
    """
    _at_least_one(len(angles))
    angle = torch.deg2rad(torch.tensor(list(angles), dtype=torch.float32))
    if not bool(torch.isfinite(angle).all()):
        raise ValueError(f"angles must be finite numbers of degrees, got {list(angles)}")
    state = {"angle": angle.to(data.x.device), "size": torch.tensor(data.shape, device=data.x.device)}
    return _same_labels(data, tuple(f"{a:g} degrees" for a in angles), kind, _Rotate(**state), state)


def split(data: Data, tasks: int = 5, *, kind: str = "task", order: Sequence[int] | None = None) -> Scenario:
    """Split tasks: each task holds some of the classes, in `order` (by default 0, 1, 2, ...).

    Raises ValueError when the classes cannot be dealt out evenly or `order` is not a permutation of them.
    Source: Zenke et al. 2017 (arXiv:1703.04200); kinds: van de Ven & Tolias 2019 (arXiv:1904.07734).
    """
    _at_least_one(tasks)
    if data.y is None or data.y_test is None:
        raise ValueError("split needs labels to deal the classes out; this data set has none")
    order = list(range(data.n_classes)) if order is None else list(order)
    if sorted(order) != list(range(data.n_classes)):
        raise ValueError(f"order must list the classes 0..{data.n_classes - 1} once each, got {order}")
    if data.n_classes % tasks:
        raise ValueError(f"{data.n_classes} classes cannot be dealt out evenly over {tasks} tasks")
    size = data.n_classes // tasks
    groups = [order[k * size : (k + 1) * size] for k in range(tasks)]
    relabel = torch.full((tasks, data.n_classes), -1, dtype=torch.int64)
    for k, group in enumerate(groups):
        relabel[k, group] = torch.arange(size) if kind == "domain" else torch.tensor(group)
    rows, rows_test = (
        tuple(torch.isin(y, torch.tensor(g, device=y.device)).nonzero().squeeze(1) for g in groups)
        for y in (data.y, data.y_test)
    )
    names = tuple("/".join(map(str, group)) for group in groups)
    device = data.x.device
    mask = _masks(relabel, kind, size if kind == "domain" else data.n_classes)
    return Scenario(data, rows, rows_test, relabel.to(device), mask.to(device), kind, names)


def sequence(datas: Sequence[Data], *, kind: str = "task") -> Scenario:
    """One data set after another: each is a task, with all its classes.

    Outputs are numbered through in the order given; under kind="domain" the sets share theirs, class by class.

    Raises ValueError for no data, missing labels, images of different shapes, and for "domain" different numbers of classes.
    Source: the pairs of data sets of Li & Hoiem 2017, section 4.
    """
    _at_least_one(len(datas))
    if any(d.y is None or d.y_test is None for d in datas):
        raise ValueError(f"a sequence needs labels, and one of {[d.name for d in datas]} has none")
    if len(shapes := {d.shape for d in datas}) > 1:
        raise ValueError(f"the images of all data sets must have one shape, got {sorted(shapes)}")
    classes = [d.n_classes for d in datas]
    if kind == "domain" and len(set(classes)) > 1:
        raise ValueError(f'kind="domain" needs as many classes in every data set, got {classes}')
    starts = [sum(classes[:k]) for k in range(len(classes))]
    relabel = torch.full((len(datas), sum(classes)), -1, dtype=torch.int64)
    for k, (start, n) in enumerate(zip(starts, classes, strict=True)):
        relabel[k, start : start + n] = torch.arange(n) if kind == "domain" else torch.arange(start, start + n)
    x, x_test = torch.cat([d.x for d in datas]), torch.cat([d.x_test for d in datas])
    y, y_test = (torch.cat([getattr(d, part) + s for d, s in zip(datas, starts, strict=True)]) for part in ("y", "y_test"))
    names = tuple(d.name for d in datas)
    data = Data(x, y, x_test, y_test, " then ".join(names), datas[0].shape, sum(classes))
    rows, rows_test = (
        torch.arange(len(v), device=v.device).split([len(getattr(d, part)) for d in datas])
        for part, v in (("x", x), ("x_test", x_test))
    )
    mask = _masks(relabel, kind, classes[0] if kind == "domain" else sum(classes))
    return Scenario(data, rows, rows_test, relabel.to(x.device), mask.to(x.device), kind, names)


def _same_labels(data: Data, names: tuple[str, ...], kind: str, view: View, state: dict[str, Tensor]) -> Scenario:
    tasks, classes, device = len(names), data.n_classes, data.x.device
    relabel = torch.arange(classes).repeat(tasks, 1)
    if kind != "domain":  # every task has its own outputs
        relabel = relabel + classes * torch.arange(tasks)[:, None]
    mask = _masks(relabel, kind, classes if kind == "domain" else classes * tasks)
    rows, rows_test = torch.arange(len(data.x), device=device), torch.arange(len(data.x_test), device=device)
    return Scenario(
        data, (rows,) * tasks, (rows_test,) * tasks, relabel.to(device), mask.to(device), kind, names, view, state
    )  # fmt: skip


def _masks(relabel: Tensor, kind: str, outputs: int) -> Tensor:
    """mask [i, j, c]: does output c count for task j once tasks 0..i have been seen?"""
    own = torch.stack([torch.isin(torch.arange(outputs), labels) for labels in relabel])  # [T, C]
    if kind == "task":
        return own[None].repeat(len(own), 1, 1)
    seen = own.cumsum(0) > 0 if kind == "class" else torch.ones_like(own)
    newest = torch.maximum(*torch.meshgrid(torch.arange(len(own)), torch.arange(len(own)), indexing="ij"))
    return seen[newest]


def _at_least_one(tasks: int) -> None:
    if tasks < 1:
        raise ValueError(f"a scenario needs at least one task, got {tasks}")


def check(scenario: Scenario) -> None:
    """Raise ValueError when a scenario cannot be trained on: NaN, labels out of range, an empty task, a wrong shape."""
    shape = scenario.data.shape
    for name, x in (("training", scenario.data.x), ("test", scenario.data.x_test)):
        if x.shape[1] != math.prod(shape):
            raise ValueError(
                f"{name} inputs have {x.shape[1]} values each, and images of shape {shape} have {math.prod(shape)}"
            )
        if not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x)).any(1).sum())
            raise ValueError(f"{bad} of {len(x)} {name} inputs hold NaN or infinity; every input must be finite")
    if scenario.loss == "classification":
        _check_labels(scenario.data)
    for k, (rows, rows_test) in enumerate(zip(scenario.rows, scenario.rows_test, strict=True)):
        for part, r in (("training", rows), ("test", rows_test)):
            if len(r) == 0:
                raise ValueError(f"task {k} ({scenario.names[k]}) has no {part} samples; every task needs at least one")
        if scenario.loss == "classification":
            _check_classes(scenario, k)


def _check_labels(data: Data) -> None:
    """All of them, not only those in a task: split() deals out the classes it knows and leaves a wrong label out."""
    if data.y is None or data.y_test is None:
        raise ValueError('these data have no labels: replace(scenario, loss="reconstruction") trains without, or give labels')
    for part, x, y in (("training", data.x, data.y), ("test", data.x_test, data.y_test)):
        if len(x) != len(y):
            raise ValueError(f"there are {len(x)} {part} inputs and {len(y)} labels; each input needs one label")
        wrong = y[(y < 0) | (y >= data.n_classes)]
        if len(wrong):
            allowed = f"allowed are 0..{data.n_classes - 1}"
            raise ValueError(f"{len(wrong)} of {len(y)} {part} labels are out of range, such as {int(wrong[0])}; {allowed}")


def _check_classes(scenario: Scenario, k: int) -> None:
    """Every class with samples in task k must have an output there."""
    for y, rows in ((scenario.data.y, scenario.rows[k]), (scenario.data.y_test, scenario.rows_test[k])):
        if y is not None and bool((scenario.relabel[k, y[rows]] < 0).any()):
            raise ValueError(f"task {k} ({scenario.names[k]}) has samples of a class that it does not list")
