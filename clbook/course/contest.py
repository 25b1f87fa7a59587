"""A student's method on streams of tasks that nobody has seen, such that it can keep only what is counted.

Every task is trained in a process of its own. It gets the task's training samples, theta and what the method kept, and it
returns theta and what the method keeps. Between two tasks both lie with the teacher's process, which counts the bytes: there is
no other place where an old sample could be. The test samples never leave that process, and accuracy is computed there, from
theta. So nothing that a student's code says about itself is believed. In a hidden cell this takes three lines:

    from clbook.course.contest import Contest, learn
    def hidden_contest(seed): return Contest((seed, seed + 1, seed + 2))
    def give(seed, earlier): return hidden_contest(seed).give(earlier)
    def ask(student, given): return learn(student.method, given)
    def judge(answers, seed): return hidden_contest(seed).judge(answers, floor=0.4, full=0.8, budget=100_000)

Book: book/grading.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import clbook
from clbook import metrics
from clbook.checks import Count, InputError, Whole, check, checked, short
from clbook.course.judging import Verdict
from clbook.course.kinds.method import watched
from clbook.course.properties import Told
from clbook.data import Data
from clbook.likelihood import Categorical
from clbook.loop import Training
from clbook.method import Method
from clbook.net import Net
from clbook.runs import Runs
from clbook.sampling import batches, generator
from clbook.scenarios import Batch, Scenario, permuted

Answers = dict[str, Any]
CLASSES, SIDE, LINE, MOST, ENTRIES = 10, 8, 120, 2**24, 100
CLOSE = 1e-4
NOISE = 0.2


@checked
def glyphs(seed: Whole, n: Count = 500, n_test: Count = 300) -> Data:
    """Ten made-up letters of 8 by 8 pixels, drawn with `seed`: each picture is a blend of two ways to write one, and noise.

    There is no file of them, so a method cannot have seen them before. x [n, 64] in [0, 1], y [n].
    """
    g = torch.Generator().manual_seed(seed % 2**63)
    ways = _strokes(2 * CLASSES, g).flatten(1)
    parts = []
    for size in (n, n_test):
        y = torch.arange(size) % CLASSES
        blended = torch.lerp(ways[y], ways[y + CLASSES], torch.rand(size, 1, generator=g))
        parts += [(blended + NOISE * torch.randn(size, SIDE * SIDE, generator=g)).clamp(0, 1), y]
    x, y, x_test, y_test = parts
    return Data(x, y, x_test, y_test, "glyphs", (1, SIDE, SIDE), CLASSES)


def _strokes(n: int, g: torch.Generator) -> Tensor:
    """Pictures of three straight strokes between random points [n, 8, 8]."""
    at = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"), -1).float()  # [8, 8, 2]
    ends = 1 + (SIDE - 3) * torch.rand(n, 3, 2, 2, generator=g)  # [n, stroke, end, coordinate]
    along = torch.linspace(0, 1, 12)
    points = ends[:, :, :1] + along[:, None] * (ends[:, :, 1:] - ends[:, :, :1])  # [n, stroke, 12, 2]
    square = (at[None, :, :, None] - points.flatten(1, 2)[:, None, None]).square().sum(-1)  # [n, 8, 8, 36]
    return (-square / 0.7).exp().amax(-1)


@dataclass(frozen=True)
class Contest:
    """One stream of permuted glyphs for each seed, the network that learns them, and how it is trained.

    Accuracy on a stream is the mean over its tasks after the last one. The seeds of the hidden streams are the teacher's.
    """

    seeds: tuple[int, ...]
    tasks: int = 5
    samples: int = 500
    test_samples: int = 300
    hidden: tuple[int, ...] = (128,)
    steps: int = 150
    batch_size: int = 32
    lr: float = 0.3

    def __post_init__(self) -> None:
        check(self.seeds, tuple[Whole, ...], "seeds")
        if not self.seeds:
            raise InputError("a contest needs at least one seed, got none")
        for name in ("tasks", "samples", "test_samples", "steps", "batch_size"):
            check(getattr(self, name), Count, name)

    @cached_property
    def streams(self) -> list[Scenario]:
        """The streams, test samples included: they stay with the teacher. For practice: clbook.run(contest.streams[0], ...)."""
        return [_stream(s, self.tasks, self.samples, self.test_samples) for s in self.seeds]

    @cached_property
    def net(self) -> Net:
        return _net(self.hidden, self.streams[0].data.x[:1])

    @property
    def how(self) -> dict[str, Any]:
        """What `clbook.run` is given to train in the same way."""
        return {"steps": self.steps, "batch_size": self.batch_size, "lr": self.lr, "optimizer": "sgd", "device": "cpu"}

    def give(self, earlier: list[Answers]) -> Answers | None:
        """What a process gets for the next task of every stream, None after the last one.

        Raises InputError, with words for the student, where what came back is no theta or no state.
        """
        k = len(earlier)
        if k == self.tasks:
            return None
        given: Answers = {"task": k, "streams": len(self.seeds), "tasks": self.tasks, "hidden": list(self.hidden)}
        given |= {name: getattr(self, name) for name in ("steps", "batch_size", "lr")}
        for s, stream in enumerate(self.streams):
            task = stream[k]
            theta = self.theta(earlier[-1], s) if earlier else self.net.init(s)
            given |= {f"{s}/x": task.x, f"{s}/y": task.y, f"{s}/theta": theta}
            given |= {f"{s}/state/{n}": v for n, v in (kept(earlier[-1], s) if earlier else {}).items()}
        return given

    def theta(self, answer: Answers, s: int) -> Tensor:
        """The parameters [P] that a process returned for stream s. Raises InputError for anything else."""
        found = answer.get(f"{s}/theta")
        if not isinstance(found, np.ndarray) or found.shape != (self.net.n_params,) or found.dtype.kind != "f":
            raise InputError(f"theta must have {self.net.n_params} numbers after each task, got {short(found, 60)}")
        if not np.isfinite(found).all():
            raise InputError("the parameters are no longer finite: the method diverged. Take a smaller strength or step")
        return torch.from_numpy(found.astype(np.float32))

    def R(self, answers: list[Answers]) -> np.ndarray:
        """R [streams, T, T]: accuracy on task j after task i, computed here from theta; NaN above the diagonal."""
        R = np.full((len(self.seeds), self.tasks, self.tasks), np.nan)
        for s, stream in enumerate(self.streams):
            tests = [stream.test(j) for j in range(self.tasks)]
            for i, answer in enumerate(answers):
                theta = self.theta(answer, s)
                for j, (x, y) in enumerate(tests[: i + 1]):
                    R[s, i, j] = float((self.net(theta, x).argmax(-1) == y).float().mean())
        return R

    def judge(
        self, answers: list[Answers], *, floor: float, full: float, budget: int | None = None, lines: int | None = 20
    ) -> list[Verdict]:
        """Accuracy, from nothing at `floor` to all at `full`; and the limits on memory and on lines, where there are some.

        A method that breaks a limit gets nothing for its accuracy either, and does not enter the leaderboard.
        """
        accuracy = np.asarray(metrics.average_accuracy(self.R(answers)))
        limits = [memory(answers, budget)] if budget is not None else []
        limits += [length(answers, lines)] if lines is not None else []
        broken = [v.criterion for v in limits if v.share < 1]
        mean, half = (float(v) for v in metrics.interval(accuracy))
        share = min(1.0, max(0.0, (mean - floor) / (full - floor)))
        spread = f" ± {100 * half:.1f}" if math.isfinite(half) else ""
        said = f"{100 * mean:.1f}{spread} % on {len(accuracy)} streams"
        said += f"; points begin at {100 * floor:g} % and end at {100 * full:g} %"
        said += f". It does not count, because of: {', '.join(broken)}" if broken else ""
        data: dict[str, Any] = {"accuracy": [float(a) for a in accuracy], "counts": not broken}
        data |= {"memory_bytes": measured(answers), "lines": count_lines(source(answers))}
        return [Verdict("accuracy after the last task", 0.0 if broken else share, said, data), *limits]


@cache
def _stream(seed: int, tasks: int, samples: int, test_samples: int) -> Scenario:
    return permuted(glyphs(seed, samples, test_samples), tasks, seed=seed % 2**63, first_identity=False)


def _net(hidden: tuple[int, ...], example: Tensor) -> Net:
    return clbook.mlp(SIDE * SIDE, CLASSES, hidden).told(Categorical(), example)


# in the student's process -----------------------------------------------------------------------------------------------------


def learn(method: Any, given: Answers) -> Answers:
    """Train one task of every stream from theta and the state; theta and the new state.

    Raises InputError for what is no method, and for one that changes the network or how it predicts: only theta is judged.
    """
    method, k, found = instance(method), int(given["task"]), {}
    for s in range(int(given["streams"])):
        x, y = torch.as_tensor(given[f"{s}/x"]), torch.as_tensor(given[f"{s}/y"])
        scenario = _one_task(x, y, k, int(given["tasks"]))
        net = _net(tuple(int(n) for n in given["hidden"]), x[:1])
        state = {n.removeprefix(f"{s}/state/"): torch.as_tensor(v) for n, v in given.items() if n.startswith(f"{s}/state/")}
        training = Training.of({n: given[n] for n in ("steps", "batch_size", "lr")} | {"optimizer": "sgd"})
        runs = _begun(method, s, k, net, scenario, torch.as_tensor(given[f"{s}/theta"]), state)
        _train(runs, scenario, k, training)
        found[f"{s}/theta"] = runs.theta[0]
        found |= {f"{s}/state/{n}": v[0] for n, v in runs.state.items()}
    return found


def instance(target: Any) -> Method:
    """The method, made of its class where that needs no argument. Raises InputError for anything else."""
    if inspect.isclass(target) and issubclass(target, Method):
        needs = [n for n, p in inspect.signature(target).parameters.items() if p.default is p.empty]
        if needs:
            raise InputError(f"hand in an instance, method = {target.__name__}({', '.join(f'{n}=...' for n in needs)})")
        target = target()
    if not isinstance(target, Method):
        raise InputError(f"method must be an instance of a subclass of clbook.Method, got {short(target, 60)}")
    for hook in ("extend", "predict"):
        if getattr(type(target), hook) is not getattr(Method, hook):
            raise InputError(
                f"{type(target).__name__}.{hook} is not used here: a method is judged by theta in the plain network"
            )
    if target.sees != "task":
        raise InputError(f"{type(target).__name__} sees {target.sees!r} data, and here only the current task is there")
    return target


@dataclass(frozen=True, eq=False)
class OneTask(Scenario):
    """A stream of which one task alone is there."""

    def batch(self, task: int | Tensor, row: Tensor, seen: int | None = None) -> Batch:
        there = [k for k, rows in enumerate(self.rows) if len(rows)]
        if asked := set([task] if isinstance(task, int) else task.unique().tolist()) - set(there):
            raise InputError(
                f"samples of task {min(asked)} were asked for by number while task {there[0]} was trained. Only what lies "
                "in the state itself is left of old tasks: keep the samples there, if they fit the budget"
            )
        return super().batch(task, row, seen)


def _one_task(x: Tensor, y: Tensor, k: int, tasks: int) -> Scenario:
    """A stream of which only task k is there."""
    none, every = torch.zeros(0, dtype=torch.int64), torch.arange(len(x))
    data = Data(x, y, x[:1], y[:1], "glyphs", (1, SIDE, SIDE), CLASSES)
    rows, untested = tuple(every if j == k else none for j in range(tasks)), (none,) * tasks
    relabel = torch.arange(CLASSES).repeat(tasks, 1)
    mask = torch.ones(tasks, tasks, CLASSES, dtype=torch.bool)
    return OneTask(data, rows, untested, relabel, mask, "domain", tuple(f"task {j}" for j in range(tasks)))


def _begun(method: Method, seed: int, k: int, net: Net, scenario: Scenario, theta: Tensor, state: dict[str, Tensor]) -> Runs:
    runs = Runs([(method, seed)], net, scenario, torch.float32)
    runs.parameter.data.copy_(theta[None])
    fresh = method.start(net, theta.clone()) | state
    runs.state = {name: value[None].clone() for name, value in fresh.items()}
    runs.method_rng = [generator(seed, "method", k)]
    return runs


def _train(runs: Runs, scenario: Scenario, k: int, training: Training) -> None:
    """One task, as clbook.loop.train trains it."""
    task = scenario[k]
    steps = training.steps
    assert steps is not None
    runs.before_task(task, training)
    for s, batch in batches(scenario, task, "task", runs.seeds, steps, training.batch_size):
        batch = runs.prepare(scenario, k, batch)
        runs.descend(runs.direction(batch), training.lr_at(s / steps), done=(s + 1) / steps)
    runs.after_task(task)


def examine(method: Any, seed: int) -> Answers:
    """Small runs of a method: two alone, the same once more, and both as one batch; and what a hook changed in place."""
    method = instance(method)
    small = Contest((seed,), tasks=2, samples=60, test_samples=10, hidden=(8,), steps=6, batch_size=8)
    how = small.how | {"net": small.net, "progress": False, "keep_thetas": True, "on_divergence": "nan"}

    def thetas(one: Method, seeds: list[int], chunk: int) -> Tensor:
        found = clbook.run(small.streams[0], one, seeds, chunk=chunk, **how).thetas
        return torch.stack([torch.stack(run) for run in found])

    found: Answers = {"alone": torch.cat([thetas(method, [s], 1) for s in (0, 1)])}
    found |= {"again": thetas(method, [0], 1), "together": thetas(method, [0, 1], 2), "in place": ""}
    try:
        thetas(watched(method), [0], 1)
    except Told as told:
        found["in place"] = told.fault.says
    return found


# in the teacher's process -----------------------------------------------------------------------------------------------------


def contract(answers: Answers) -> list[Verdict]:
    """Whether hooks change nothing in place, the same run ends in the same place, and a run in a stack where it ends alone."""
    told = str(answers.get("in place", "nothing was said"))
    verdicts = [
        Verdict("hooks change nothing in place", float(not told), f"{told}. Return the new value instead" if told else "")
    ]
    alone = np.asarray(answers["alone"], dtype=float)
    once, stacked = "the same run ends in the same place", "a run in a stack ends where it ends alone"
    cases = {
        once: (alone[:1], "again", "something is remembered outside of the state, or drawn without `rng`"),
        stacked: (alone, "together", "a hook draws random numbers without `rng`, or runs talk to each other"),
    }
    for criterion, (right, name, why) in cases.items():
        got = np.asarray(answers[name], dtype=float)
        same = got.shape == right.shape and np.allclose(got, right, rtol=CLOSE, atol=CLOSE, equal_nan=True)
        verdicts.append(Verdict(criterion, float(same), "" if same else f"it does not: {why}"))
    return verdicts


def kept(answer: Answers, s: int) -> dict[str, Tensor]:
    """The state of the method on stream s, as tensors. Raises InputError for more than can be meant."""
    found = {n.removeprefix(f"{s}/state/"): v for n, v in answer.items() if n.startswith(f"{s}/state/")}
    for name, value in found.items():
        if not isinstance(value, np.ndarray):
            raise InputError(f"state[{short(name, 40)}] is {short(value, 60)}; what is kept between tasks must be tensors")
    if len(found) > ENTRIES or any(len(name) > ENTRIES for name in found):
        raise InputError(f"the state has {len(found)} entries; at most {ENTRIES}, with names of at most {ENTRIES} letters")
    if (size := sum(v.nbytes for v in found.values())) > MOST:
        raise InputError(f"the method keeps {size:,} bytes between tasks, and more than {MOST:,} are not even tried")
    return {name: torch.as_tensor(value) for name, value in found.items()}


def measured(answers: list[Answers]) -> int:
    """The most bytes that the method kept of one stream between two tasks, counted here. All of the state counts.

    What says nothing does not: a second copy of an entry or of theta, and a tensor that holds one number throughout, such as
    sums that were set to zero, which counts as that number and its shape.
    """
    streams = {n.partition("/")[0] for answer in answers for n in answer if "/state/" in n}
    return max((_bytes(a, int(s)) for a in answers for s in streams if s.isdecimal()), default=0)


def _bytes(answer: Answers, s: int) -> int:
    theta = answer.get(f"{s}/theta")
    known = {theta.tobytes()} if isinstance(theta, np.ndarray) else set()
    total = 0
    for tensor in kept(answer, s).values():
        value = tensor.numpy()
        if (content := value.tobytes()) not in known:
            same = value.size > 0 and bool((value == value.flat[0]).all())
            total += min(value.nbytes, value.itemsize + 8 * value.ndim) if same else value.nbytes
        known.add(content)
    return total


def memory(answers: list[Answers], budget: int) -> Verdict:
    """Whether what was kept between tasks fits the budget in bytes."""
    size = measured(answers)
    said = f"it keeps {size:,} bytes between tasks besides theta, and {budget:,} are allowed"
    return Verdict("memory budget", float(size <= budget), said, {"memory_bytes": size})


def length(answers: list[Answers], most: int = 20) -> Verdict:
    """Whether the method has at most so many lines."""
    n = count_lines(source(answers))
    said = f"it has {n} lines, and {most} are allowed (imports, docstrings and comments are not counted)"
    return Verdict(f"at most {most} lines", float(n <= most), said, {"lines": n})


def source(answers: Answers | list[Answers]) -> str:
    """The statements of the notebook that were run, which the teacher's process adds to every answer under this name."""
    first = answers[0] if isinstance(answers, list) else answers
    return str(first["source"])


def count_lines(text: str) -> int:
    """Lines of code as Python writes them anew: one statement each, without imports, docstrings and comments.

    A statement of more than 120 characters counts as several, and so does one with a long text in it.
    """
    tree = ast.parse(text)
    tree.body = [n for n in tree.body if not isinstance(n, ast.Import | ast.ImportFrom)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return sum(math.ceil(len(line) / LINE) for line in _lines(ast.unparse(tree)))


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip())
