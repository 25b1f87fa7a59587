"""Runs: a stack gives what its runs give alone, and what cannot be stacked is refused by name, with one seed as with two."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import NAMES, example, other, stream
from small import net_for, refused, train
from torch import Tensor, nn

from clbook import Method, Net, Result, loop
from clbook.methods import ER, EWC, L2, Finetune
from clbook.result import PER_RUN
from clbook.scenarios import Batch

DRY = {"Progressive"}  # methods that refuse a network with dropout


def same(a: Result, b: Result, rtol: float = 0.0, atol: float = 0.0) -> None:
    for x, y in zip(a.theta, b.theta, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol)
    np.testing.assert_allclose(a.R, b.R, atol=1e-9)
    np.testing.assert_allclose(a.curve, b.curve, atol=1e-9)
    assert np.array_equal(a.curve_steps, b.curve_steps) and np.array_equal(a.memory_bytes, b.memory_bytes)


def part(result: Result, r: int) -> Result:
    return replace(result, **{n: getattr(result, n)[r : r + 1] for n in (*PER_RUN, "runs", "theta", "thetas")})


# a stack gives what its runs give alone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_stacked_equals_alone(name: str) -> None:
    """Two strengths and two seeds in one batch, in double precision: the same numbers as four runs one by one."""
    s, m = stream(name), example(name)
    dropout = (0.0, 0.0) if name in DRY else (0.1, 0.2)
    sizes = {"net": net_for(s, (6,), dropout=dropout), "steps": 5, "lr": 0.01, "eval_every": 4, "future": True}
    stacked = train(s, [m, other(m)], 2, chunk=4, **sizes)
    alone = [train(s, one, [seed], **sizes) for one in (m, other(m)) for seed in (0, 1)]
    assert len(stacked.runs) == 4 and [r["seed"] for r in stacked.runs] == [0, 1, 0, 1]
    for r, one in enumerate(alone):
        same(part(stacked, r), one, rtol=1e-10, atol=1e-10)
    assert not torch.equal(stacked.theta[0], stacked.theta[1])


@pytest.mark.parametrize("name", NAMES)
def test_other_strengths_are_other_runs(name: str) -> None:
    """Otherwise the test above would not see a strength that is taken from the first run of a stack."""
    m = example(name)
    assert other(m) == m or other(m).hyper != m.hyper
    floats = {f.name for f in fields(m) if isinstance(getattr(m, f.name), float)}
    assert floats == set(m.hyper), "a float field that is no hyper-parameter is not stacked"


@pytest.mark.parametrize("method", [Finetune(), EWC(lam=1.0), L2(lam=1.0)], ids=repr)
def test_stacked_equals_alone_in_single_precision(method: Method) -> None:
    s = stream()
    sizes = {"optimizer": "sgd", "lr": 0.1, "dtype": torch.float32, "steps": 20}
    stacked = train(s, method, 3, chunk=3, **sizes)
    for r in range(3):
        same(part(stacked, r), train(s, method, [r], **sizes), rtol=1e-4, atol=1e-6)


def stacks_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that fills with how many runs are trained together."""
    sizes: list[int] = []
    train_all = loop.train
    monkeypatch.setattr(loop, "train", lambda runs, *args: sizes.append(len(runs)) or train_all(runs, *args))
    return sizes


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_give_the_same_as_one_stack(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = stacks_of(monkeypatch)
    s, methods = stream(), [EWC(lam=1.0), EWC(lam=5.0), L2(lam=2.0), EWC(lam=1.0, carry="latest")]
    whole = train(s, methods, 2, chunk=100)
    assert sizes == [4, 2, 2]  # EWC of one kind; L2; EWC of another kind
    sizes.clear()
    pieces = train(s, methods, 2, chunk=chunk)
    assert max(sizes) == chunk if chunk < 3 else max(sizes) == 3
    same(pieces, whole, rtol=1e-10, atol=1e-11)
    assert [(r["method"], r["lam"], r["seed"]) for r in pieces.runs] == [
        (m.label, m.lam, seed) for m in methods for seed in (0, 1)
    ]  # the order of the call, whatever the stacks


def test_a_whole_number_stacks_with_a_float(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = stacks_of(monkeypatch)
    both = train(stream(), [ER(lam=1), ER(lam=2.0)], chunk=10)
    assert sizes == [2] and [type(r["lam"]) for r in both.runs] == [float, float]
    same(part(both, 0), train(stream(), ER(lam=1.0)), rtol=1e-10, atol=1e-10)


def test_a_field_that_is_left_out_is_no_hyper_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """gamma=None and gamma=0.5 cannot be numbers of one batch."""
    sizes = stacks_of(monkeypatch)
    methods = [EWC(lam=1.0), EWC(lam=1.0, carry="online", gamma=0.5), EWC(lam=1.0, carry="online", gamma=0.1)]
    both = train(stream(), methods, chunk=10)
    assert sizes == [1, 2] and [r["gamma"] for r in both.runs] == [None, 0.5, 0.1]


# what cannot be stacked --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clipped(Method):
    """A gradient of at most this length, written with an `if`."""

    most: float = 0.1

    def direction(self, net: Any, theta: Tensor, state: Any, batch: Batch) -> Tensor:
        g = super().direction(net, theta, state, batch)
        return g * self.most / g.norm() if g.norm() > self.most else g


class Alone(Clipped):
    stacks = False


class Branching(Method):
    def loss(self, net: Any, theta: Tensor, state: Any, batch: Batch) -> Tensor:
        loss = net.loss(theta, batch)
        return loss * 2 if loss > 1 else loss


class Stepping(Method):
    def after_step(self, theta: Tensor, state: Any, update: Any) -> tuple[Tensor, Any]:
        return theta / max(1.0, float(theta.norm())), state


class Judging(Method):
    def predict(self, net: Any, theta: Tensor, state: Any, batch: Batch) -> Tensor:
        return net(theta, batch.x) if theta.sum().item() > 0 else -net(theta, batch.x)


class Drawing(Method):
    """Random numbers in a hook that is called for all runs at once."""

    def loss(self, net: Any, theta: Tensor, state: Any, batch: Batch) -> Tensor:
        return net.loss(theta, batch) + torch.randn(()) * theta.sum()


class LateBranching(Method):
    """Only the second task comes where the value of a tensor is asked for."""

    def start(self, net: Any, theta: Tensor) -> Any:
        return {"old": theta.new_zeros((0,))}

    def loss(self, net: Any, theta: Tensor, state: Any, batch: Batch) -> Tensor:
        loss = net.loss(theta, batch)
        return loss if len(state["old"]) == 0 or loss > 0.1 else 2 * loss

    def after_task(self, net: Any, theta: Tensor, state: Any, task: Any, rng: Any) -> Any:
        return {"old": theta}


HOOKS = [
    (Clipped(), "direction"), (Branching(), "loss"), (Stepping(), "after_step"), (Judging(), "predict"), (Drawing(), "loss"),
    (LateBranching(), "loss"),
]  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(("method", "hook"), HOOKS, ids=lambda v: getattr(v, "label", v))
def test_a_hook_that_asks_for_values_is_refused_with_one_seed_as_with_two(method: Method, hook: str, seeds: int) -> None:
    hook = "direction" if seeds == 2 and hook == "loss" else hook  # the gradient of the loss is what is called for a stack
    with refused(rf"{method.label}\.{hook} cannot be computed for several runs at once.*stacks = False"):
        train(stream(), method, seeds, chunk=seeds)


def test_it_runs_where_it_says_that_it_does_not_stack() -> None:
    """Each run by itself, and as a reader would write it: an SGD step is never longer than lr times the bound."""
    s = stream()
    both = train(s, Alone(most=0.1), 2, chunk=10, optimizer="sgd", lr=1.0, steps=1, keep_thetas=True)
    for r in range(2):
        same(part(both, r), train(s, Alone(most=0.1), [r], optimizer="sgd", lr=1.0, steps=1))
    lengths = [float((b - a).norm()) for a, b in zip(both.thetas[0][:-1], both.thetas[0][1:], strict=True)]
    assert max(lengths) == pytest.approx(0.1)


class Uneven(Method):
    """A state that is as long as the seed's own draw says."""

    keeps = ()

    def after_task(self, net: Any, theta: Tensor, state: Any, task: Any, rng: torch.Generator) -> Any:
        return {"kept": theta[: 1 + int(torch.randint(40, (), generator=rng))]}


class UnevenStart(Method):
    keeps = ()

    def start(self, net: Any, theta: Tensor) -> Any:
        return {"large": theta[theta > 0.3]}


@pytest.mark.parametrize(("make", "hook"), [(Uneven, "after_task"), (UnevenStart, "start")])
def test_states_of_different_lengths_are_refused_by_name(make: type[Method], hook: str) -> None:
    with refused(rf"{make.__name__}\.{hook} gives the runs different things.*alike in names, shapes and types.*stacks = False"):
        train(stream(), make(), 5, chunk=5)

    class Single(make):  # type: ignore[misc,valid-type]
        stacks = False

    same(part(train(stream(), Single(), 5, chunk=5), 3), train(stream(), Finetune(), [3]))


class OtherNames(Method):
    """A state whose names hang on what the run itself drew."""

    keeps = ()

    def after_task(self, net: Any, theta: Tensor, state: Any, task: Any, rng: torch.Generator) -> Any:
        return {f"seen {int(torch.randint(1000, (), generator=rng))}": theta}


def test_states_of_different_names_are_refused_by_name() -> None:
    with refused(r"OtherNames\.after_task gives the runs different things.*stacks = False"):
        train(stream(), OtherNames(), 2, chunk=2)


class Recurrent(nn.Module):
    """A layer that PyTorch computes for one theta at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x.unflatten(-1, (3, 2)))[0][..., -1, :])


@pytest.mark.parametrize("method", [Finetune(), L2(lam=1.0), ER(size=2)], ids=lambda m: m.label)
def test_a_network_that_cannot_be_stacked_is_trained_run_by_run(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to say so; and each run is what it is alone."""
    sizes = stacks_of(monkeypatch)
    both = train(stream(), method, 2, net=Net(Recurrent), chunk=2)
    assert sizes == [1, 1] and not torch.equal(both.theta[0], both.theta[1])
    for r in range(2):
        same(part(both, r), train(stream(), method, [r], net=Net(Recurrent)))


def test_an_error_of_the_methods_own_is_not_taken_for_one_of_stacking() -> None:
    class Wrong(Method):
        def loss(self, net: Any, theta: Tensor, state: Any, batch: Batch) -> Tensor:
            return (theta @ batch.x.flatten()).sum()

    for seeds in (1, 2):
        with pytest.raises(RuntimeError, match="size"):
            train(stream(), Wrong(), seeds, chunk=seeds)


# what a state holds ------------------------------------------------------------------------------------------------------


class Shadow(Method):
    """Remembers theta itself, and writes down how far it went since."""

    keeps = ()
    seen: list[tuple[Tensor, Tensor]] = []  # noqa: RUF012

    def start(self, net: Any, theta: Tensor) -> Any:
        return {"prev": theta, "gone": torch.zeros_like(theta)}

    def after_step(self, theta: Tensor, state: Any, update: Any) -> tuple[Tensor, Any]:
        return theta, {"prev": theta, "gone": state["gone"] + (update.before - state["prev"]).abs()}

    def after_task(self, net: Any, theta: Tensor, state: Any, task: Any, rng: Any) -> Any:
        self.seen.append((theta.clone(), state["gone"].clone()))
        return state


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_state_that_shares_thetas_memory_does_not_move_with_it(optimizer: str, seeds: int) -> None:
    """What is kept after a step is where the next one starts: nothing lies between."""
    Shadow.seen.clear()
    result = train(stream(), Shadow(), seeds, optimizer=optimizer, lr=0.1, chunk=seeds)
    same(result, train(stream(), Finetune(), seeds, optimizer=optimizer, lr=0.1, chunk=seeds))
    assert len(Shadow.seen) == 3 * seeds and all(torch.equal(gone, torch.zeros_like(gone)) for _, gone in Shadow.seen)


def test_the_hooks_see_the_step_that_was_made() -> None:
    """update.before, direction, eta and done against torch's own SGD: theta = before - eta direction."""
    seen: list[Any] = []

    class Watched(Method):
        stacks = False

        def after_step(self, theta: Tensor, state: Any, update: Any) -> tuple[Tensor, Any]:
            seen.append((theta.clone(), update))
            return theta, state

    train(stream(), Watched(), optimizer="sgd", lr=0.3, steps=4, lr_decay=True)
    assert len(seen) == 12 and [float(u.done) for _, u in seen] == [0.25, 0.5, 0.75, 1.0] * 3
    assert [float(u.eta) for _, u in seen[:4]] == pytest.approx([0.3, 0.225, 0.15, 0.075])
    for (theta, u), (after, v) in itertools.pairwise(seen):
        torch.testing.assert_close(theta, u.before - u.eta * u.direction)
        assert torch.equal(v.before, theta) and not torch.equal(after, theta)
