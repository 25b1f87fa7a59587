"""A student's method on streams of tasks that nobody has seen, such that it can keep only what is counted.

Every task is trained in a process of its own. It gets the task's training samples, theta and what the method kept, and it
returns theta and what the method keeps. Between two tasks both lie with the teacher's process, which counts the bytes: there is
no other place where an old sample could be. The test samples never leave that process, and accuracy is computed there, from
theta. In a hidden cell this takes three functions of a line:

    from clbook.course.contest import Contest, learn
    def unseen(seed): return Contest((seed, seed + 1, seed + 2), tasks=4)
    def give(seed, earlier): return unseen(seed).give(earlier)
    def ask(student, given): return learn(student.method, given)
    def judge(answers, seed): return unseen(seed).judge(answers, floor=0.60, full=0.80, budget=80_000)

Book: book/grading, "A contest of methods".
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import clbook
from clbook import metrics
from clbook.checkpoints import Checkpoint
from clbook.checks import Count, InputError, Whole, check, checked, short
from clbook.course.cells import Cell, needed, statements
from clbook.course.grade.child import told
from clbook.course.hooks import answering
from clbook.course.judging import Verdict
from clbook.course.kinds.method import watched
from clbook.course.lines import count_lines, text_to_code
from clbook.course.properties import Told
from clbook.data import Data
from clbook.evaluate import Record
from clbook.likelihood import Categorical
from clbook.loop import Training, train
from clbook.method import Method
from clbook.net import Net
from clbook.runs import Runs
from clbook.sampling import generator
from clbook.scenarios import Batch, Permute, Scenario, sequence

Answers = dict[str, Any]
CLASSES, SIDE, MOST, ENTRIES = 10, 8, 2**24, 100
CLOSE = 1e-4
NOISE = 0.2
LEARNS = 0.3  # of the first task's training samples, where guessing gets a tenth
WAYS = ("alone", "once more", "together")


# the streams ------------------------------------------------------------------------------------------------------------------


@checked
def glyphs(seed: Whole, n: Count = 500, n_test: Count = 300, task: Whole = 0) -> Data:
    """Ten made-up letters of 8 by 8 pixels: each picture is a blend of two ways to write one, and noise.

    Letters and pictures are drawn from `seed` and `task`, with as many pictures of each letter, in an order by chance. There is
    no file of them, so a method cannot have seen them before. x [n, 64] in [0, 1], y [n].
    """
    rng = _rng(seed, task)
    ways = _strokes(2 * CLASSES, rng).flatten(1)
    parts = []
    for size in (n, n_test):
        y = torch.from_numpy(rng.permutation(size) % CLASSES)
        blended = torch.lerp(ways[y], ways[y + CLASSES], torch.from_numpy(rng.random((size, 1), np.float32)))
        noise = torch.from_numpy(rng.standard_normal((size, SIDE * SIDE), np.float32))
        parts += [(blended + NOISE * noise).clamp(0, 1), y]
    x, y, x_test, y_test = parts
    return Data(x, y, x_test, y_test, "glyphs", (1, SIDE, SIDE), CLASSES)


def _rng(seed: int, *what: int) -> np.random.Generator:
    """numpy's generator takes all of a seed, and torch's 32 bits of it, few enough to try them all."""
    return np.random.default_rng(np.random.SeedSequence(seed % 2**63, spawn_key=what))


def _strokes(n: int, rng: np.random.Generator) -> Tensor:
    """Pictures of three straight strokes between random points [n, 8, 8]."""
    at = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"), -1).float()  # [8, 8, 2]
    ends = 1 + (SIDE - 3) * torch.from_numpy(rng.random((n, 3, 2, 2), np.float32))  # [n, stroke, end, coordinate]
    along = torch.linspace(0, 1, 12)
    points = ends[:, :, :1] + along[:, None] * (ends[:, :, 1:] - ends[:, :, :1])  # [n, stroke, 12, 2]
    square = (at[None, :, :, None] - points.flatten(1, 2)[:, None, None]).square().sum(-1)  # [n, 8, 8, 36]
    return (-square / 0.7).exp().amax(-1)


@cache
def _stream(seed: int, tasks: int, samples: int, test_samples: int) -> Scenario:
    """Ten letters of its own for each task, its pixels in an order of their own: no task is another one rearranged."""
    parts = sequence([glyphs(seed, samples, test_samples, k) for k in range(tasks)], kind="domain")
    pixels = np.stack([_rng(seed, k, 1).permutation(SIDE * SIDE) for k in range(tasks)])
    return replace(parts, names=tuple(f"task {k}" for k in range(tasks)), view=Permute(torch.from_numpy(pixels)))


def _net(hidden: tuple[int, ...], example: Tensor) -> Net:
    return clbook.mlp(SIDE * SIDE, CLASSES, hidden).told(Categorical(), example)


# in the teacher's process -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contest:
    """One stream of glyphs for each seed, the network that learns them, and how it is trained.

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
        given: Answers = {"task": k, "streams": len(self.seeds), "hidden": list(self.hidden)}
        given |= {name: getattr(self, name) for name in ("steps", "batch_size", "lr")}
        for s, stream in enumerate(self.streams):
            task = stream[k]
            theta = self.theta(earlier[-1], s) if earlier else self.net.init(s)
            given |= {f"{s}/x": task.x, f"{s}/y": task.y, f"{s}/theta": theta}
            given |= {f"{s}/state/{n}": v for n, v in (kept(earlier[-1], s) if earlier else {}).items()}
        return given

    def theta(self, answer: Answers, s: int) -> Tensor:
        """The parameters [P] that a process returned for stream s. Raises InputError for anything else."""
        wanted = f"theta must have {self.net.n_params} numbers of type float32 after each task"
        diverged = "the parameters are no longer finite: the method diverged. Take a smaller strength or step"
        return torch.from_numpy(_parameters(answer.get(f"{s}/theta"), (self.net.n_params,), wanted, diverged))

    def R(self, answers: list[Answers]) -> np.ndarray:
        """R [streams, T, T]: accuracy on task j after task i, computed here from theta; NaN above the diagonal."""
        R = np.full((len(self.seeds), self.tasks, self.tasks), np.nan)
        for s, stream in enumerate(self.streams):
            tests = [stream.test(j) for j in range(self.tasks)]
            for i, answer in enumerate(answers):
                theta = self.theta(answer, s)
                for j, (x, y) in enumerate(tests[: i + 1]):
                    R[s, i, j] = right(self.net, theta, x, y)
        return R

    def judge(
        self, answers: list[Answers], *, floor: float, full: float, budget: int | None = None, lines: int | None = 20
    ) -> list[Verdict]:
        """Accuracy, from nothing at `floor` to all at `full`; and each limit, on memory and on lines, that was not kept.

        A method that breaks a limit gets nothing for its accuracy either, and does not enter the leaderboard.
        """
        accuracy = np.asarray(metrics.average_accuracy(self.R(answers)))
        limits = [memory(answers, budget)] if budget is not None else []
        limits += [length(answers, lines)] if lines is not None else []
        broken = [v for v in limits if v.share < 1]
        mean, half = (float(v) for v in metrics.interval(accuracy))
        share = min(1.0, max(0.0, (mean - floor) / (full - floor)))
        spread = f" ± {100 * half:.1f}" if math.isfinite(half) else ""
        said = f"{100 * mean:.1f}{spread} % on {len(accuracy)} streams"
        said += f"; points begin at {100 * floor:g} % and end at {100 * full:g} %"
        said += f". It does not count, because of: {', '.join(v.criterion for v in broken)}" if broken else ""
        data: dict[str, Any] = {"accuracy": [float(a) for a in accuracy], "counts": not broken}
        data |= {"memory_bytes": measured(answers), "lines": count_lines(source(answers))}
        return [Verdict("accuracy after the last task", 0.0 if broken else share, said, data), *broken]


@dataclass(frozen=True)
class Contract:
    """What a method must keep to in order to be trained at all: two small runs, three times, each time in a process of its own.

    The two are trained one after the other, once more in the other order, and as one batch. The parameters after each task come
    back, and everything that can be seen from them is judged here. What cannot, whether a hook changes in place what it is
    given, the process says of itself.
    """

    seed: int

    @cached_property
    def game(self) -> Contest:
        return Contest((self.seed,), tasks=2, samples=60, test_samples=10, hidden=(16,), steps=60, batch_size=16)

    def give(self, earlier: list[Answers]) -> Answers | None:
        """What a process gets for the next of the three times, None after the last one."""
        return {"seed": self.seed, "way": WAYS[len(earlier)]} if len(earlier) < len(WAYS) else None

    def judge(self, answers: list[Answers]) -> list[Verdict]:
        """Whether a first task is learned, the same run ends in the same place, and a run in a stack ends where it ends alone.

        Raises InputError where the two runs alone brought no parameters.
        """
        alone, task = self.thetas(answers[0]), self.game.streams[0][0]
        learned = min(right(self.game.net, torch.from_numpy(theta), task.x, task.y) for theta in alone[:, 0])
        said = f"after {self.game.steps} steps {100 * learned:.0f} % of its training samples are right"
        few = learned < LEARNS
        verdicts = [Verdict("it learns a first task", float(not few), f"{said}, hardly more than by guessing" if few else "")]
        once, stacked = "the same run ends in the same place", "a run in a stack ends where it ends alone"
        cases = {
            once: (answers[1], "something is remembered outside of the state, or drawn without `rng`"),
            stacked: (answers[2], "a hook draws random numbers without `rng`, or runs talk to each other"),
        }
        for criterion, (answer, why) in cases.items():
            try:
                trouble = "" if np.allclose(self.thetas(answer), alone, rtol=CLOSE, atol=CLOSE) else f"it does not: {why}"
            except InputError as error:
                trouble = str(error)
            verdicts.append(Verdict(criterion, float(not trouble), trouble))
        told = str(answers[0].get("in place", "nothing was said"))
        said = f"{told}. Return the new value instead" if told else ""
        return [*verdicts, Verdict("hooks change nothing in place", float(not told), said)]

    def thetas(self, answer: Answers) -> np.ndarray:
        """The parameters [2, T, P] of both runs after each task. Raises InputError for anything else, NaN among it."""
        if trouble := answer.get("trouble"):
            raise InputError(str(trouble))
        shape = (2, self.game.tasks, self.game.net.n_params)
        wanted = f"the small runs must bring parameters {list(shape)} of type float32"
        diverged = "the small runs end with numbers that are not finite: the method diverged"
        return _parameters(answer.get("thetas"), shape, wanted, diverged)


def _parameters(found: Any, shape: tuple[int, ...], wanted: str, diverged: str) -> np.ndarray:
    """What a process returned as parameters. Raises InputError, in these words, where it is none or not finite."""
    if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != np.float32:
        raise InputError(f"{wanted}, got {short(found, 60)}")
    if not np.isfinite(found).all():
        raise InputError(diverged)
    return found


def right(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> float:
    """The share of samples that the plain network with these parameters gets right."""
    return float((net(theta, x).argmax(-1) == y).float().mean())


def kept(answer: Answers, s: int) -> dict[str, Tensor]:
    """The state of the method on stream s, as tensors, by name. Raises InputError for more than can be meant."""
    found = _state(answer, s)
    for name, value in found.items():
        if not isinstance(value, np.ndarray):
            raise InputError(f"state[{short(name, 40)}] is {short(value, 60)}; what is kept between tasks must be tensors")
    if len(found) > ENTRIES or any(len(name) > ENTRIES for name in found):
        raise InputError(f"the state has {len(found)} entries; at most {ENTRIES}, with names of at most {ENTRIES} letters")
    if (size := sum(v.nbytes for v in found.values())) > MOST:
        raise InputError(f"the method keeps {size:,} bytes between tasks, and more than {MOST:,} are not even tried")
    return {name: torch.as_tensor(found[name]) for name in sorted(found)}  # sorted, as an order would say something, too


def _state(message: Answers, s: int) -> dict[str, Any]:
    """The entries of stream s's state in what goes to a process or comes from it, by name."""
    return {n.removeprefix(f"{s}/state/"): v for n, v in message.items() if n.startswith(f"{s}/state/")}


def measured(answers: list[Answers]) -> int:
    """The most bytes that the method kept of one stream between two tasks, counted here. All of the state counts.

    An entry is its numbers, its name, 8 bytes for each dimension of its shape, and one for its type. The numbers of a second
    copy, of theta or of another entry, count nothing, and where all are the same, bit for bit, such as sums that were set to
    zero, they count as one.
    """
    streams = {n.partition("/")[0] for answer in answers for n in answer if "/state/" in n}
    return max((_bytes(a, int(s)) for a in answers for s in streams if s.isdecimal()), default=0)


def _bytes(answer: Answers, s: int) -> int:
    theta, total = answer.get(f"{s}/theta"), 0
    known = {theta.tobytes()} if isinstance(theta, np.ndarray) and theta.dtype == np.float32 else set()
    for name, tensor in kept(answer, s).items():
        value = tensor.numpy()
        content, one = value.tobytes(), value.itemsize
        total += len(name.encode()) + 8 * value.ndim + 1
        if content not in known:
            total += one if content == content[:one] * value.size else len(content)
        known.add(content)
    return total


def memory(answers: list[Answers], budget: int) -> Verdict:
    """Whether what was kept between tasks fits the budget in bytes."""
    size = measured(answers)
    said = f"it keeps {size:,} bytes between tasks besides theta, and {budget:,} are allowed"
    return Verdict("memory budget", float(size <= budget), said, {"memory_bytes": size})


def length(answers: list[Answers], most: int = 20) -> Verdict:
    """Whether the method has at most so many lines, and none of them makes code of text."""
    n, word = count_lines(source(answers)), text_to_code(source(answers))
    said = f"it has {n} lines, and {most} are allowed (imports, docstrings and comments are not counted)"
    if word:
        said = f"it says {word}, which can make code of text, and such code has no lines to count: write it out"
    return Verdict(f"at most {most} lines", float(n <= most and not word), said, {"lines": n})


def source(answers: Answers | list[Answers]) -> str:
    """The statements of the notebook that were run, which the teacher's process adds to every answer under this name."""
    first = answers[0] if isinstance(answers, list) else answers
    return str(first["source"])


# in the student's process -----------------------------------------------------------------------------------------------------


def learn(method: Any, given: Answers) -> Answers:
    """Train one task of every stream from theta and the state; theta and the new state.

    Raises InputError for what is no method, and for one that changes the network or how it predicts: only theta is judged.
    """
    method, k, found = answering(instance(method)), int(given["task"]), {}
    training = Training.of(_how(given) | {"on_divergence": "nan"})
    for s in range(int(given["streams"])):
        x, y = torch.as_tensor(given[f"{s}/x"]), torch.as_tensor(given[f"{s}/y"])
        scenario, net = _one_task(x, y, k), _net(tuple(int(n) for n in given["hidden"]), x[:1])
        runs = Runs([(method, s)], net, scenario, torch.float32)
        runs.method_rng = [generator(s, "method", k)]
        if k > 0:
            runs.parameter.data.copy_(torch.as_tensor(given[f"{s}/theta"]))
            runs.state = {n: torch.as_tensor(v)[None].clone() for n, v in _state(given, s).items()}
        record = Record(runs, scenario, training, keep_thetas=False, progress=False)
        record.task = k
        train(runs, scenario, training, record, Checkpoint(None, 0, runs, scenario, training))
        found[f"{s}/theta"] = runs.theta[0]
        found |= {f"{s}/state/{n}": v[0] for n, v in runs.state.items()}
    return found


def _how(given: Answers) -> dict[str, Any]:
    return {n: given[n] for n in ("steps", "batch_size", "lr")} | {"optimizer": "sgd"}


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
    """A stream of which one task alone is there, its last."""

    def batch(self, task: int | Tensor, row: Tensor, seen: int | None = None) -> Batch:
        there = len(self) - 1
        if asked := set([task] if isinstance(task, int) else task.unique().tolist()) - {there}:
            raise InputError(
                f"samples of task {min(asked)} were asked for by number while task {there} was trained. Only what lies "
                "in the state itself is left of old tasks: keep the samples there, if they fit the budget"
            )
        return super().batch(task, row, seen)


def _one_task(x: Tensor, y: Tensor, k: int) -> Scenario:
    """A stream that ends with task k, and only that task is there."""
    none, tasks = torch.zeros(0, dtype=torch.int64), k + 1
    data = Data(x, y, x[:0], y[:0], "glyphs", (1, SIDE, SIDE), CLASSES)
    mask = torch.ones(tasks, tasks, CLASSES, dtype=torch.bool)
    rows = (none,) * k + (torch.arange(len(x)),)
    relabel = torch.arange(CLASSES).repeat(tasks, 1)
    return OneTask(data, rows, (none,) * tasks, relabel, mask, "domain", tuple(f"task {j}" for j in range(tasks)))


def examine(method: Any, given: Answers) -> Answers:
    """The two small runs of a Contract in one of its ways: their parameters after each task [2, T, P], or what went wrong."""
    plain, game = instance(method), Contract(int(given["seed"])).game
    method = answering(plain)
    how = game.how | {"net": game.net, "progress": False, "keep_thetas": True, "on_divergence": "nan"}

    def thetas(one: Method, seeds: list[int]) -> Tensor:
        return torch.stack([torch.stack(run) for run in clbook.run(game.streams[0], one, seeds, **how).thetas or []])

    try:
        if given["way"] == "together":
            return {"thetas": thetas(method, [0, 1])}
        found = {s: thetas(method, [s]) for s in ((0, 1) if given["way"] == "alone" else (1, 0))}
    except InputError as error:
        return {"trouble": told(error)}
    return {"thetas": torch.cat([found[0], found[1]]), "in place": _changed(lambda: thetas(watched(plain), [0]))}


def _changed(run: Callable[[], Any]) -> str:
    try:
        run()
    except Told as told:
        return told.fault.says
    return ""


# for practice -----------------------------------------------------------------------------------------------------------------


def play(game: Contest | Contract, method: Any, cells: Iterable[str] = ()) -> list[Answers]:
    """What the grader does, here and in one process: every round of a contest or a contract.

    `cells` are those of the notebook, In, in which the definitions of `method` are looked for as the grader does it.
    """
    answers: list[Answers] = []
    body, _ = statements(Cell(n, text) for n, text in enumerate(cells) if not text.startswith("# CHECK"))
    words = {"source": "\n".join(ast.unparse(s.node) for s in needed(body, {"method"}, setters=False))}
    ask = learn if isinstance(game, Contest) else examine
    while (given := game.give(answers)) is not None:
        answers.append({n: v.numpy() if isinstance(v, Tensor) else v for n, v in ask(method, given).items()} | words)
    return answers
