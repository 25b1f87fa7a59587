"""Scenarios: a list of tasks, and the mask that says which outputs count.

A scenario holds ONE base data set. A task is a set of its rows, seen through a view (a permutation of the
pixels, a rotation) and a map of its labels; a stream of 100 tasks is 100 permutations, never 100 copies.

The three scenarios of van de Ven & Tolias (2019) are three masks over the outputs and one map of the labels, so no
method needs to know which one it is in. Book: notebooks/01_forgetting, "Three scenarios".
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from pydantic import InstanceOf
from torch import Tensor, nn

from clbook.checks import Count, Fraction, InputError, Number, Positive, Share, Whole, check, checked
from clbook.data import Data
from clbook.likelihood import Categorical, Gaussian, Likelihood

Kind = Literal["task", "domain", "class"]
KINDS: tuple[Kind, ...] = get_args(Kind)
View = Callable[[Tensor, Tensor], Tensor]  # (x [B, D], task [B]) -> x as that task shows it [B, D]


class Batch(NamedTuple):
    """What one step sees: x [B, ...], y [B, ...], mask [B, C] of the outputs that count, task [B], row [B].

    `row` counts within the task's training samples. `gates` holds factors for hidden units by name, `old` the replayed
    samples of a method that keeps some, as a batch of their own, and `drawn` what else a method drew at random.
    """

    x: Tensor
    y: Tensor
    mask: Tensor
    task: Tensor
    row: Tensor
    gates: dict[str, Tensor] = {}  # noqa: RUF012 (never written to)
    old: Batch | None = None
    drawn: dict[str, Tensor] = {}  # noqa: RUF012


@dataclass(frozen=True, eq=False)
class Task:
    """One task, as tensors: x [N, ...], y [N, ...], the same for its test, and mask [C], its outputs while it is trained."""

    x: Shaped[Tensor, "N *D"]
    y: Shaped[Tensor, "N *K"]
    x_test: Shaped[Tensor, "M *D"]
    y_test: Shaped[Tensor, "M *K"]
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

    `view` turns x into what a task shows: an nn.Module called with (x, task), whose buffers go to the device with the
    data, or any function. `likelihood` says what the outputs mean; with targets="inputs" y is x (see `reconstruct`). With
    `in_order` a task's samples come in the order of its rows and not shuffled (see `blurred`).

    Raises InputError for an unknown kind or word. Source: van de Ven & Tolias 2019 (arXiv:1904.07734), table 1.
    """

    data: Data
    rows: tuple[Int64[Tensor, "_"], ...]
    rows_test: tuple[Int64[Tensor, "_"], ...]
    relabel: Int64[Tensor, "T K"]
    mask: Bool[Tensor, "T T C"]
    kind: Kind
    names: tuple[str, ...]
    view: View | None = None
    likelihood: Likelihood = Categorical()  # noqa: RUF009 (frozen)
    targets: Literal["labels", "inputs"] = "labels"
    in_order: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("kind", Kind), ("targets", Literal["labels", "inputs"])):
            check(getattr(self, name), allowed, name)

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
        return math.prod(self.data.shape) if self.targets == "inputs" else self.mask.shape[-1]

    @property
    def labelled(self) -> bool:
        """Whether what is learned are labels (or tokens)."""
        return self.targets == "labels" and self.data.labelled

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
        x, y = self._shown(self.data.x, self.data.y, base, task)
        return Batch(x, y, self.mask[seen, task], task, row)

    def test(self, k: int, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Task k's test inputs [M, ...] and targets [M, ...], or the first `samples` of them."""
        rows = self.rows_test[k][:samples]
        return self._shown(self.data.x_test, self.data.y_test, rows, torch.full_like(rows, k))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Scenario:
        """The same scenario on another device, with what is floating in another floating dtype if one is given."""
        once = {id(r): r.to(device) for r in (*self.rows, *self.rows_test)}  # tasks that share their rows go on sharing them
        return replace(
            self,
            data=self.data.to(device, dtype),
            rows=tuple(once[id(r)] for r in self.rows),
            rows_test=tuple(once[id(r)] for r in self.rows_test),
            relabel=self.relabel.to(device),
            mask=self.mask.to(device),
            view=copy.deepcopy(self.view).to(device) if isinstance(self.view, nn.Module) else self.view,
        )

    @checked
    def held_out(self, fraction: Fraction = 0.1, seed: Whole = 0) -> Scenario:
        """The same scenario, tested on a part of its TRAINING data that is kept out of training.

        This is where a hyper-parameter such as lambda is chosen: the test set is never looked at. A sample that one task
        keeps out is kept out of all, so that no task is trained on another's held-out image in a new guise.
        """
        generator = torch.Generator().manual_seed(seed)
        lot = torch.randperm(len(self.data.x), generator=generator).to(self.device)  # [N], the lowest are kept out
        test = tuple(rows[lot[rows].argsort()[: max(1, round(fraction * len(rows)))]] for rows in self.rows)
        out = torch.zeros_like(lot, dtype=torch.bool).index_fill(0, torch.cat(test), True)
        train = tuple(rows[~out[rows]] for rows in self.rows)
        data = replace(self.data, x_test=self.data.x, y_test=self.data.y)
        return replace(self, data=data, rows=train, rows_test=test)

    @checked
    def first(self, n_tasks: Count) -> Scenario:
        """The scenario that ends after its first n_tasks tasks; the outputs stay the same."""
        if n_tasks > len(self):
            raise InputError(f"n_tasks must lie between 1 and {len(self)}, got {n_tasks}")
        n = n_tasks
        return replace(
            self, rows=self.rows[:n], rows_test=self.rows_test[:n], relabel=self.relabel[:n],
            mask=self.mask[:n, :n], names=self.names[:n],
        )  # fmt: skip

    def _shown(self, x: Tensor, y: Tensor | None, base: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the base rows, as their tasks show them."""
        x = picked(x, base)
        x = x if self.view is None else self.view(x, task)
        if self.targets == "inputs":
            return x, x
        if y is None:
            return x, torch.zeros_like(task)
        y = picked(y, base)
        return x, y if y.is_floating_point() else self.relabel[task.view(*task.shape, *[1] * (y.dim() - task.dim())), y]

    def _base_rows(self, task: Tensor, row: Tensor) -> Tensor:
        base = torch.empty_like(row)
        for k in task.unique().tolist():
            base[task == k] = self.rows[k][row[task == k]]
        return base


def picked(x: Shaped[Tensor, "N ..."], row: Int64[Tensor, "..."]) -> Tensor:
    """x[row]; index_select takes less time than indexing does, for few rows a third to a half."""
    return x.index_select(0, row.flatten()).view(*row.shape, *x.shape[1:])


class Permute(nn.Module):
    """Each task shows the pixels in an order of its own; pixels [T, D]."""

    pixels: Tensor

    def __init__(self, pixels: Int64[Tensor, "T D"]) -> None:
        super().__init__()
        self.register_buffer("pixels", pixels)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        shown = task.unique()
        if len(shown) == 1:  # a task as a whole: no index as large as its images, which takes five times as long
            return x.index_select(-1, self.pixels[shown[0]])
        return x.gather(-1, self.pixels[task])


class Rotate(nn.Module):
    """Each task turns the images by its angle [T], counter-clockwise, with bilinear interpolation and zeros from outside."""

    angle: Tensor

    def __init__(self, angle: Float[Tensor, " T"], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape  # (channels, height, width)
        self.register_buffer("angle", angle)  # in radians

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        flat, task = x.flatten(0, -2), task.flatten()
        shape = (len(flat), *self.shape)
        cos, sin, zero = self.angle[task].cos(), self.angle[task].sin(), torch.zeros_like(self.angle[task])
        ratio = shape[-2] / shape[-1]  # affine_grid counts from -1 to 1 along both sides, however long they are
        matrix = torch.stack([torch.stack([cos, -sin * ratio, zero], -1), torch.stack([sin / ratio, cos, zero], -1)], 1)
        grid = nn.functional.affine_grid(matrix.to(x.dtype), list(shape), align_corners=False)
        return nn.functional.grid_sample(flat.view(shape), grid, align_corners=False).view(x.shape)


@checked
def permuted(
    data: Data, tasks: Count, *, seed: Whole = 0, square: Count | None = None, kind: Kind = "domain",
    first_identity: bool = True,
) -> Scenario:  # fmt: skip
    """Permuted tasks: every task shows the same images through its own fixed permutation of the pixels.

    `square` permutes only a centred square of that many pixels a side. The first task shows the images as they are,
    unless first_identity is False. The permutations depend on `seed` alone.

    Raises InputError for tasks < 1 and a square that does not fit.
    Source: Goodfellow et al. 2013 (arXiv:1312.6211); `square`: Kirkpatrick et al. 2017, fig. 3C.

    >>> from clbook import load
    >>> s = permuted(load("digits"), 3)
    >>> s.names, s.n_outputs
    (('original', 'permutation 1', 'permutation 2'), 10)
    """
    _images(data, "permuted")
    height, width = data.shape[-2:]
    inside = torch.zeros(data.shape, dtype=torch.bool)
    side = max(height, width) if square is None else square
    if not 2 <= side <= max(height, width):
        raise InputError(f"square must lie between 2 and {max(height, width)} pixels, got {side}")
    top, left = (height - min(side, height)) // 2, (width - min(side, width)) // 2
    inside[..., top : top + side, left : left + side] = True
    where, generator = inside.flatten().nonzero().squeeze(1), torch.Generator().manual_seed(seed)
    pixels = torch.arange(inside.numel()).repeat(tasks, 1)
    for k in range(1 if first_identity else 0, tasks):
        pixels[k, where] = where[torch.randperm(len(where), generator=generator)]
    names = tuple("original" if first_identity and k == 0 else f"permutation {k}" for k in range(tasks))
    return _same_labels(data, names, kind, Permute(pixels.to(data.x.device)))


@checked
def rotated(data: Data, angles: Sequence[Number], *, kind: Kind = "domain") -> Scenario:
    """Rotated tasks: every task shows the same images turned by its angle, in degrees counter-clockwise.

    Raises InputError when there is no angle or one is not finite. Source: Lopez-Paz & Ranzato 2017 (arXiv:1706.08840).

    >>> from clbook import load
    >>> rotated(load("digits"), [0, 45]).names
    ('0 degrees', '45 degrees')
    """
    _images(data, "rotated")
    _at_least_one(len(angles), "angles")
    angle = torch.deg2rad(torch.tensor(list(angles), dtype=torch.float32))
    return _same_labels(data, tuple(f"{a:g} degrees" for a in angles), kind, Rotate(angle.to(data.x.device), data.shape))


@checked
def split(data: Data, tasks: Count = 5, *, kind: Kind = "task", order: Sequence[Whole] | None = None) -> Scenario:
    """Split tasks: each task holds some of the classes, in `order` (by default 0, 1, 2, ...).

    Raises InputError when the classes cannot be dealt out evenly or `order` is not a permutation of them.
    Source: Zenke et al. 2017 (arXiv:1703.04200); kinds: van de Ven & Tolias 2019 (arXiv:1904.07734).

    >>> from clbook import load
    >>> s = split(load("digits"), 5)
    >>> s.names, s[1].classes
    (('0/1', '2/3', '4/5', '6/7', '8/9'), (2, 3))
    >>> split(load("digits"), 5, kind="domain").n_outputs  # shared by all tasks
    2
    """
    if data.y is None or data.y_test is None or data.y.dim() != 1 or not data.labelled:
        raise InputError(f"split needs one label a sample to deal the classes out, and the data set {data.name!r} has none")
    order = list(range(data.n_classes)) if order is None else list(order)
    if sorted(order) != list(range(data.n_classes)):
        raise InputError(f"order must list the classes 0..{data.n_classes - 1} once each, got {order}")
    if data.n_classes % tasks:
        raise InputError(f"{data.n_classes} classes cannot be dealt out evenly over {tasks} tasks")
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


@checked
def sequence(datas: Sequence[InstanceOf[Data]], *, kind: Kind = "task") -> Scenario:
    """One data set after another: each is a task, with all its classes.

    Outputs are numbered through in the order given; under kind="domain" the sets share theirs, class by class. Targets may be
    tokens at every position or real numbers (then kind="domain" and likelihood=Gaussian()).

    Raises InputError for no data, missing labels, inputs of different shapes, and for "domain" different numbers of classes.
    Source: the pairs of data sets of Li & Hoiem 2017, section 4.

    >>> from clbook import load
    >>> digits = load("digits")
    >>> sequence([digits, digits]).n_outputs  # the classes of the second are new ones
    20
    """
    _at_least_one(len(datas), "datas")
    if any(d.y is None or d.y_test is None for d in datas):
        raise InputError(f"a sequence needs labels, and one of {[d.name for d in datas]} has none")
    if len(shapes := {d.shape for d in datas}) > 1:
        raise InputError(f"the inputs of all data sets must have one shape, got {sorted(shapes)}")
    classes = [d.n_classes for d in datas]
    if kind == "domain" and len(set(classes)) > 1:
        raise InputError(f'kind="domain" needs as many classes in every data set, got {classes}')
    if kind != "domain" and not all(d.labelled for d in datas):
        raise InputError(f'real targets have no outputs of their own for a task: kind must be "domain", got {kind!r}')
    starts = [sum(classes[:k]) for k in range(len(classes))]
    relabel = torch.full((len(datas), sum(classes)), -1, dtype=torch.int64)
    for k, (start, n) in enumerate(zip(starts, classes, strict=True)):
        relabel[k, start : start + n] = torch.arange(n) if kind == "domain" else torch.arange(start, start + n)
    x, x_test = torch.cat([d.x for d in datas]), torch.cat([d.x_test for d in datas])
    y, y_test = (torch.cat([_numbered(d, part, s) for d, s in zip(datas, starts, strict=True)]) for part in ("y", "y_test"))
    names = tuple(d.name for d in datas)
    data = Data(x, y, x_test, y_test, " then ".join(names), datas[0].shape, sum(classes))
    rows, rows_test = (
        torch.arange(len(v), device=v.device).split([len(getattr(d, part)) for d in datas])
        for part, v in (("x", x), ("x_test", x_test))
    )
    mask = _masks(relabel, kind, classes[0] if kind == "domain" else sum(classes))
    likelihood = Categorical() if data.labelled else Gaussian()
    return Scenario(data, rows, rows_test, relabel.to(x.device), mask.to(x.device), kind, names, likelihood=likelihood)


@checked
def reconstruct(scenario: Scenario, sigma: Positive = 0.5**0.5) -> Scenario:
    """The same tasks without their labels: the network is to give back its input, y = x.

    With the default sigma, - log p is the squared error, (y - f)^2. All outputs count in every task.

    >>> from clbook import load
    >>> s = reconstruct(split(load("digits"), 5))
    >>> s.n_outputs, bool((s[0].x == s[0].y).all())
    (64, True)
    """
    mask = torch.ones((), dtype=torch.bool, device=scenario.device).expand(*scenario.mask.shape[:2], scenario.data.x[0].numel())
    return replace(scenario, mask=mask, likelihood=Gaussian(sigma), targets="inputs")


@checked
def blurred(scenario: Scenario, width: Share = 0.5, *, n: Count | None = None, seed: Whole = 0) -> Scenario:
    """The same tasks as one stream without boundaries: each sample once, in a fixed order, one task fading into the next.

    p(next task at time t) = 1/2 + (t - t_k) / (width n), cut to [0, 1], around the middle t_k = k n of each transition

    `n` samples of each task are drawn (default: all of the smallest), so the whole stream has T n. Task k of the result is its
    k-th n samples, whichever task they come from, and the test samples of the k-th task; all outputs count from the start.
    width = 0 switches at once; at width = 1 one transition ends where the next begins. The stream depends on `seed` alone.

    Raises InputError for kind="task", which would tell every sample's task, and for more samples than a task has.
    Book: notebooks/12_streams, "A stream without boundaries".

    >>> from clbook import load
    >>> s = blurred(split(load("digits"), 5, kind="class"))
    >>> s[2].y.unique().tolist()  # 4 and 5, and what comes before and after
    [2, 3, 4, 5, 6, 7]
    """
    least, T, rng = min(len(rows) for rows in scenario.rows), len(scenario), torch.Generator().manual_seed(seed)
    n = least if n is None else n
    if scenario.kind == "task":
        raise InputError('a stream tells no sample\'s task: blurred needs kind="domain" or "class", got kind="task"')
    if n > least:
        raise InputError(f"n must be at most {least}, the samples of the smallest task, got {n}")
    task = torch.arange(T).repeat_interleave(n)
    row = torch.cat([torch.randperm(len(rows), generator=rng)[:n] for rows in scenario.rows])
    # a uniform moment of the task's own n steps, moved by up to half a width: the share of the next task rises linearly
    u, v = torch.rand(2, T * n, generator=rng, dtype=torch.float64)
    order = (task + u + width * (v - 0.5)).argsort()
    seen = scenario.batch(task[order].to(scenario.device), row[order].to(scenario.device))
    tests = [scenario.test(k) for k in range(T)]
    x_test, y_test = (torch.cat(parts) for parts in zip(*tests, strict=True))
    outputs, device = scenario.mask.shape[-1], scenario.device
    return replace(
        scenario, data=replace(scenario.data, x=seen.x, y=seen.y, x_test=x_test, y_test=y_test, n_classes=outputs),
        rows=torch.arange(T * n, device=device).split(n),
        rows_test=torch.arange(len(x_test), device=device).split([len(x) for x, _ in tests]),
        relabel=torch.arange(outputs, device=device).repeat(T, 1), mask=torch.ones_like(scenario.mask),
        view=None, in_order=True,
    )  # fmt: skip


def _numbered(data: Data, part: str, start: int) -> Tensor:
    """Labels numbered through over all data sets; real targets as they are."""
    y: Tensor = getattr(data, part)
    return y + start if data.labelled else y


def _same_labels(data: Data, names: tuple[str, ...], kind: Kind, view: View) -> Scenario:
    tasks, classes, device = len(names), data.n_classes, data.x.device
    relabel = torch.arange(classes).repeat(tasks, 1)
    if kind != "domain":  # every task has its own outputs
        relabel = relabel + classes * torch.arange(tasks)[:, None]
    mask = _masks(relabel, kind, classes if kind == "domain" else classes * tasks)
    rows, rows_test = torch.arange(len(data.x), device=device), torch.arange(len(data.x_test), device=device)
    return Scenario(data, (rows,) * tasks, (rows_test,) * tasks, relabel.to(device), mask.to(device), kind, names, view)


def _masks(relabel: Tensor, kind: Kind, outputs: int) -> Tensor:
    """mask [i, j, c]: does output c count for task j once tasks 0..i have been seen?"""
    own = torch.stack([torch.isin(torch.arange(outputs), labels) for labels in relabel])  # [T, C]
    if kind == "task":
        return own[None].repeat(len(own), 1, 1)
    seen = own.cumsum(0) > 0 if kind == "class" else torch.ones_like(own)
    newest = torch.maximum(*torch.meshgrid(torch.arange(len(own)), torch.arange(len(own)), indexing="ij"))
    return seen[newest]


def _at_least_one(tasks: int, name: str) -> None:
    if tasks < 1:
        raise InputError(f"a scenario needs at least one task, got {tasks} {name}")


def _images(data: Data, what: str) -> None:
    if data.x.dim() != 2 or not data.x.is_floating_point() or len(data.shape) < 2:
        raise InputError(f"{what} tasks need flat images [N, D], got inputs {list(data.x.shape)}, {data.x.dtype}")


def check_scenario(scenario: Scenario) -> None:
    """Raise InputError when a scenario cannot be trained on: NaN, labels out of range, an empty task, a wrong shape."""
    shape = scenario.data.shape
    for name, x in (("training", scenario.data.x), ("test", scenario.data.x_test)):
        if x[0].numel() != math.prod(shape):
            raise InputError(
                f"{name} inputs have {x[0].numel()} values each, and inputs of shape {shape} have {math.prod(shape)}"
            )
        if not finite(x):
            bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
            raise InputError(f"{bad} of {len(x)} {name} inputs hold NaN or infinity; every input must be finite")
    _check_targets(scenario)
    for k, (rows, rows_test) in enumerate(zip(scenario.rows, scenario.rows_test, strict=True)):
        for part, r in (("training", rows), ("test", rows_test)):
            if len(r) == 0:
                raise InputError(f"task {k} ({scenario.names[k]}) has no {part} samples; every task needs at least one")
        if scenario.labelled:
            _check_classes(scenario, k)


def finite(x: Tensor) -> bool:
    """Whether all values are finite. A sum is, if they are and it does not overflow, and takes a tenth of the time."""
    return bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())


def _check_targets(scenario: Scenario) -> None:
    """Targets there are, as many as inputs, and of the likelihood's sort."""
    data, classes = scenario.data, isinstance(scenario.likelihood, Categorical)
    if scenario.targets == "inputs":
        if classes or not data.x.is_floating_point():
            raise InputError(f"inputs as targets need real inputs and Gaussian(), got {data.x.dtype} and {scenario.likelihood}")
        return
    if data.y is None or data.y_test is None:
        raise InputError("these data have no labels: reconstruct(scenario) trains without, or give labels")
    if classes != data.labelled:
        raise InputError(f"{scenario.likelihood} does not fit targets of type {data.y.dtype}; use Categorical() or Gaussian()")
    for part, x, y in (("training", data.x, data.y), ("test", data.x_test, data.y_test)):
        if len(x) != len(y):
            raise InputError(f"there are {len(x)} {part} inputs and {len(y)} labels; each input needs one label")
        if data.labelled:
            _check_labels(part, y, data.n_classes)
        elif not finite(y):
            raise InputError(f"{part} targets hold NaN or infinity; every target must be finite")


def _check_labels(part: str, y: Tensor, n_classes: int) -> None:
    """All of them, not only those in a task: split() deals out the classes it knows and leaves a wrong label out."""
    wrong = y[(y < 0) | (y >= n_classes)]
    if len(wrong):
        allowed = f"allowed are 0..{n_classes - 1}"
        raise InputError(f"{len(wrong)} of {len(y)} {part} labels are out of range, such as {int(wrong[0])}; {allowed}")


def _check_classes(scenario: Scenario, k: int) -> None:
    """Every class with samples in task k must have an output there."""
    for y, rows in ((scenario.data.y, scenario.rows[k]), (scenario.data.y_test, scenario.rows_test[k])):
        if y is not None and bool((scenario.relabel[k, y[rows]] < 0).any()):
            raise InputError(f"task {k} ({scenario.names[k]}) has samples of a class that it does not list")
