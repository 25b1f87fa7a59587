"""A Method of the package's own kind: its hooks change nothing they are given, and a run is the same however it is computed.

Nothing here says whether a method is good. It says whether `run` may stack it, interrupt it and count its memory.
Book: notebooks/01_forgetting, "The same by run".
"""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import clbook
from clbook import Data, InputError, Method, Net, Scenario, Spring, split
from clbook.checkpoints import Checkpoint
from clbook.course.calling import CannotCheck, Subject, gradient, theta_of
from clbook.course.hooks import with_members
from clbook.course.kinds import fisher, mas, penalty
from clbook.course.properties import Fault, Noted, Property, Section, Told
from clbook.scenarios import Task

SAME = Section("notebooks/01_forgetting", "The same by run")
SPRINGS = Section("book/ewc", "The springs")
ASKS = Section("book/summary", "What each one asks of you")
HOOKS = (
    "start", "before_task", "prepare", "observe", "loss", "direction", "after_step", "after_task", "predict", "importance",
    "penalty",
)  # fmt: skip
HOW: dict[str, Any] = {
    "steps": 4, "batch_size": 8, "lr": 0.05, "optimizer": "sgd", "dtype": torch.float64, "device": "cpu", "progress": False,
    "keep_thetas": True, "on_divergence": "nan",
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """Three small tasks of two classes each, and the network for them."""

    scenario: Scenario
    net: Net

    def __str__(self) -> str:
        return f"three tasks of two classes, {self.net.n_params} parameters, four steps each"

    def thetas(self, method: Method | list[Method], seeds: Any = 1, **more: Any) -> Tensor:
        """theta after every task of every run, one after the other; zeros where a run has diverged."""
        try:
            result = clbook.run(self.scenario, method, seeds, net=self.net, **HOW | more)
        except InputError as error:
            if "several runs at once" in str(error) or "different things" in str(error):
                raise Told(replace(NOT_STACKABLE, says=str(error).split(". ")[0])) from error
            raise
        assert result.thetas is not None
        found = torch.cat([torch.as_tensor(t).double().reshape(-1) for run in result.thetas for t in run])
        return found.nan_to_num(0.0, 0.0, 0.0)


def problems(subject: Subject) -> list[Problem]:
    g = torch.Generator().manual_seed(0)
    y, y_test = torch.arange(72) % 6, torch.arange(24) % 6
    centres = torch.rand(6, 6, generator=g)
    x, x_test = ((centres[i] + 0.2 * torch.randn(len(i), 6, generator=g)).clamp(0, 1) for i in (y, y_test))
    data = Data(x, y, x_test, y_test, "clouds", (1, 2, 3), 6)
    scenario = split(data, 3, kind="task" if subject.target.needs_task else "class")
    return [Problem(scenario, clbook.mlp(6, 6, (10,)))]


def nothing(q: Any) -> Tensor:
    """No difference."""
    return torch.zeros(1).double()


def differ(a: Tensor, b: Tensor) -> Tensor:
    """The largest difference, relative to the largest number."""
    return ((a - b).abs().max() / a.abs().max().clamp_min(1e-12)).reshape(1)


# hooks change nothing they are given ------------------------------------------------------------------------------------------


def tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors within an argument, by name."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from tensors(f"{name}[{k!r}]", v)
    elif isinstance(value, Task):
        yield from tensors("task.x", value.x)
        yield from tensors("task.y", value.y)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for k, v in zip(value._fields, value, strict=True):
            yield from tensors(f"{name}.{k}", v)


def watched(method: Method) -> Method:
    """The method with hooks that raise Told when they change what they are given, the method itself included."""
    owner = type(method)

    def watch(hook: str) -> Callable[..., Any]:
        original = getattr(owner, hook)

        @functools.wraps(original)
        def call(self: Method, *args: Any, **named: Any) -> Any:
            names = original.__code__.co_varnames[1:]
            given = {**dict(zip(names, args, strict=False)), **named}
            before = {n: t.detach().clone() for k, v in given.items() for n, t in tensors(k, v)}
            keys = {k: set(v) for k, v in given.items() if isinstance(v, dict)}
            own = {k: id(v) for k, v in vars(self).items()}
            answer = original(self, *args, **named)
            after = {n: t for k, v in given.items() for n, t in tensors(k, v)}
            changed = [n for n, t in before.items() if n not in after or not _same(t, after[n])]
            changed += [k for k, found in keys.items() if set(given[k]) != found]
            changed += [f"self.{k}" for k, v in vars(self).items() if own.get(k) != id(v)]
            if changed:
                raise Told(impure(owner.__name__, hook, changed[0]))
            return answer

        return call

    hooks = {h: watch(h) for h in HOOKS if hasattr(owner, h) and getattr(owner, h) is not getattr(Method, h, None)}
    return with_members(method, {**hooks, "stacks": False})


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b.detach()) | (a != a)).all())


def impure(owner: str, hook: str, what: str) -> Fault:
    return Fault(
        "impure", f"{owner}.{hook} changes {what} in place",
        "A hook's arguments belong to the loop: what another run, the optimiser or a checkpoint still needs is "
        "overwritten. Return "
        "the new value: state | {'name': new}, theta + step, and keep what must be remembered in the state.", None, SAME,
    )  # fmt: skip


def observe_pure(subject: Subject, q: Problem) -> Tensor:
    q.thetas(watched(subject.target))
    return nothing(q)


PURE = Property("method.pure", "has hooks that change nothing they are given", problems, observe_pure, nothing, SAME)

# stacked, resumed, counted ----------------------------------------------------------------------------------------------------


def observe_stacked(subject: Subject, q: Problem) -> Tensor:
    """The difference between runs that train as one batch and the same runs alone."""
    method = subject.target
    other = replace(method, **{name: value / 2 or 0.3 for name, value in method.hyper.items()})
    both = [method, other] if method.hyper else [method]
    together = q.thetas(both, 2, chunk=4)
    alone = torch.cat([q.thetas(m, [seed], chunk=1) for m in both for seed in (0, 1)])
    return differ(alone, together)


NOT_STACKABLE = Fault(
    "not-stackable",
    "",
    "Each seed trains by itself or not at all. Write torch.where instead of if, draw random numbers "
    "in `prepare`, "
    "or declare stacks = False.",
    None,
    SAME,
)
STACKED = Property(
    "method.stacked",
    "gives each run in a stack what it gets alone",
    problems,
    observe_stacked,
    nothing,
    SAME,
    (
        Fault(
            "not-alone",
            "a run in a stack ends elsewhere than alone",
            "Runs talk to each other, or a hook depends on how often it was called: results change with how many seeds are "
            "asked for.",
            None,
            SAME,
            tells=lambda q, got: bool(got[0] > 1e-6),
        ),
    ),
    applies=lambda subject: subject.target.stacks,
    needs="method.resumed",
)


class Stopped(Exception):
    """A run that was interrupted on purpose."""


def observe_resumed(subject: Subject, q: Problem) -> Tensor:
    """The difference between a run, and one that was stopped after its first task and went on from its checkpoint."""
    whole = q.thetas(subject.target, chunk=1)
    again = q.thetas(subject.target, chunk=1)
    if differ(whole, again) > 1e-6:
        raise Told(REMEMBERS)
    save = Checkpoint.save

    def stop(self: Checkpoint, *args: Any) -> None:
        save(self, *args)
        raise Stopped

    with tempfile.TemporaryDirectory() as folder:
        try:
            Checkpoint.save = stop  # type: ignore[method-assign,assignment]
            q.thetas(subject.target, chunk=1, checkpoint=folder)
        except Stopped:
            pass
        finally:
            Checkpoint.save = save  # type: ignore[method-assign]
        return differ(whole, q.thetas(copy.copy(subject.target), chunk=1, checkpoint=folder))


REMEMBERS = Fault(
    "remembers",
    "the same run, started again, ends elsewhere: something is remembered outside of the state",
    "A second seed, a resumed run and a second method in the same program see what the first one left. Keep it in the state.",
    None,
    SAME,
)
RESUMED = Property(
    "method.resumed",
    "ends in the same place when a run is stopped and goes on",
    problems,
    observe_resumed,
    nothing,
    SAME,
    (
        Fault(
            "not-resumed",
            "a run that was stopped and went on ends elsewhere: something is remembered outside of the state",
            "A run that is cut short by a cluster's time limit gives other numbers. Keep what is needed in the state.",
            None,
            SAME,
            tells=lambda q, got: bool(got[0] > 1e-6),
        ),
    ),
    needs="method.pure",
)


def observe_memory(subject: Subject, q: Problem) -> Tensor:
    """The difference that it makes to lose, at the end of each task, what is not declared in `keeps`.

    What says nothing of its own may be lost: constants, masks, and theta itself. Raises Told where it holds samples.
    """
    owner, keeps = type(subject.target), subject.target.keeps or ()
    lost: dict[str, None] = {}

    def after_task(self: Method, net: Net, theta: Tensor, state: dict[str, Tensor], task: Task, rng: Any) -> dict[str, Tensor]:
        new = owner.after_task(self, net, theta, state, task, rng)
        fresh = self.start(net, torch.zeros_like(theta))
        rest = {k: v for k, v in new.items() if k not in keeps and k in fresh and tells_something(v, theta)}
        for name, value in rest.items():
            if holds(value, task.x):
                raise Told(stores(owner.__name__, name))
        lost.update(dict.fromkeys(rest))
        return new | {k: fresh[k] for k in rest}

    forgets = with_members(subject.target, {"after_task": after_task})
    difference = differ(q.thetas(subject.target, chunk=1), q.thetas(forgets, chunk=1))
    if difference > 1e-6:
        raise Noted(
            f"training depends on {', '.join(lost)} of the state, and `keeps` does not name it. That is right only if it can "
            "be computed again from theta and from what is kept; otherwise memory_bytes counts too little"
        )
    return nothing(q)


def tells_something(value: Tensor, theta: Tensor) -> bool:
    """Whether a part of the state says more than a few flags do, and something else than theta."""
    if not value.is_floating_point() or value.numel() < len(theta) // 2:
        return False
    return not torch.equal(value, theta) and bool((value != value.flatten()[0]).any())


def holds(value: Tensor, x: Tensor) -> bool:
    """Whether a tensor contains a sample of x [N, D], number by number."""
    rows = x.flatten(1)
    windows = (
        value.detach().flatten().to(rows.dtype).unfold(0, rows.shape[1], 1) if value.numel() >= rows.shape[1] else rows[:0]
    )
    return bool((windows[:, None] == rows[None]).all(-1).any())


def stores(owner: str, name: str) -> Fault:
    return Fault(
        "stores-samples", f"{owner} keeps samples of an old task in the state, {name!r}, and `keeps` does not name it",
        "A method that keeps old data is compared with methods that keep none, and its memory is counted as nothing.",
        None, ASKS,
    )  # fmt: skip


MEMORY = Property(
    "method.memory",
    "declares what it keeps between tasks",
    problems,
    observe_memory,
    nothing,
    ASKS,
    applies=lambda subject: subject.target.keeps is not None and type(subject.target).memory_bytes is Method.memory_bytes,
    needs="method.pure",
)

# what its springs are ---------------------------------------------------------------------------------------------------------


def observe_importance(subject: Subject, q: fisher.Problem) -> Tensor:
    """Omega of one finished task, as the method gives it [P]."""
    net, theta = Net(lambda: copy.deepcopy(q.model), example=q.x[:1]), theta_of(q.model)
    classes = tuple(q.mask.nonzero().flatten().tolist())
    task = Task(q.x, q.y, q.x, q.y, classes, "checked", q.mask, 0)
    method = subject.target
    found = method.importance(net, theta, method.start(net, theta), task, torch.Generator().manual_seed(0))
    if not isinstance(found, Tensor) or found.shape != theta.shape:
        raise CannotCheck(
            f"{subject.name}.importance must return one number for each parameter, [{len(theta)}]; it returned {found!r:.60}"
        )
    return found


def importance_problems(subject: Subject) -> list[fisher.Problem]:
    """Two networks and some of their outputs."""
    return fisher.problems(replace(subject, target=lambda mask: None))


IMPORTANCE = Property(
    "method.importance",
    "has springs that are not a known mistake",
    importance_problems,
    observe_importance,
    fisher.right,
    SPRINGS,
    tuple(f for f in fisher.FAULTS if f.id != "zero")
    + tuple(f for f in mas.FAULTS if f.id in ("abs-after-mean", "all-outputs")),
    (fisher.ESTIMATOR,),
    own="an importance of its own",
    applies=lambda subject: isinstance(subject.target, Spring),
    needs="method.pure",
)


def observe_penalty(subject: Subject, q: penalty.Problem) -> Tensor:
    """The energy and its gradient [1 + P]."""
    method = replace(subject.target, lam=q.lam)
    theta = q.theta.clone().requires_grad_()
    state = method.start(Net(lambda: copy.deepcopy(q.model)), q.star) | {"omega": q.omega.clone(), "theta_star": q.star.clone()}
    value = method.penalty(theta, state)
    return torch.cat([value.reshape(1), gradient(value, [theta])]).detach()


ENERGY = replace(
    penalty.VALUE, id="method.penalty", observe=observe_penalty,
    applies=lambda subject: isinstance(subject.target, Spring) and type(subject.target).penalty is not Spring.penalty,
)  # fmt: skip

TEMPLATE = '''"""A method of your own. Change it, and run: clbook check {file}"""

from dataclasses import dataclass

from clbook import Spring, fisher


@dataclass(frozen=True)
class Mine(Spring):
    """Springs of your own stiffness."""

    def importance(self, net, theta, state, task, rng):
        """Omega [P] >= 0, how stiff the springs of this task are."""
        return fisher(net, theta, task.x, mask=task.mask)


method = Mine(lam=1.0)  # what is checked
'''
