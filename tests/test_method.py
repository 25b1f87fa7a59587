"""Springs: the sum of many is one, the implicit step is the exact one, and what a method's fields may be."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from small import clouds, net_for, refused, train, users_meet_it
from torch import Tensor

from clbook import Method, Spring, split
from clbook.method import Update, merge, proximal
from clbook.methods import EWC, L2, MAS, SI, Finetune, RWalk

POWERS = st.one_of(st.just(0.0), st.floats(1e-8, 1e8))
PLACES = st.floats(-10, 10)


def vectors(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# the sum of springs ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(springs=st.lists(st.tuples(POWERS, PLACES), min_size=1, max_size=12), a=PLACES, b=PLACES)
def test_many_springs_are_one(springs: list[tuple[float, float]], a: float, b: float) -> None:
    """Same gradient everywhere and same differences in energy: equal up to a constant."""
    state = {"omega": vectors([0.0]), "theta_star": vectors([3.0])}
    for omega, star in springs:
        state = merge(state, vectors([omega]), vectors([star]))
    stiffness, at = state["omega"].item(), state["theta_star"].item()
    gradient = lambda t: sum(w * (t - s) for w, s in springs)  # noqa: E731
    energy = lambda t: sum(w * (t - s) ** 2 / 2 for w, s in springs)  # noqa: E731
    scale = 1 + sum(w for w, _ in springs) * 400
    for t in (a, b):
        assert stiffness * (t - at) == pytest.approx(gradient(t), abs=1e-13 * scale)
    merged = stiffness * ((a - at) ** 2 - (b - at) ** 2) / 2
    assert merged == pytest.approx(energy(a) - energy(b), abs=1e-12 * scale)


@settings(max_examples=50, deadline=None)
@given(springs=st.lists(st.tuples(POWERS, PLACES), min_size=2, max_size=8), seed=st.integers(0, 99))
def test_the_order_of_springs_does_not_matter(springs: list[tuple[float, float]], seed: int) -> None:
    ends = []
    for order in (range(len(springs)), torch.randperm(len(springs), generator=torch.Generator().manual_seed(seed)).tolist()):
        state = {"omega": vectors([0.0]), "theta_star": vectors([0.0])}
        for i in order:
            state = merge(state, vectors([springs[i][0]]), vectors([springs[i][1]]))
        ends.append(state)
    torch.testing.assert_close(ends[0]["omega"], ends[1]["omega"])
    pulls = ends[0]["omega"] > 0
    torch.testing.assert_close(ends[0]["theta_star"][pulls], ends[1]["theta_star"][pulls], rtol=1e-6, atol=1e-9)


def test_two_springs_by_hand() -> None:
    """Stiffness 1 at 0 and 3 at 4 make 4 at 3; where nothing pulls, the newest place; other state is kept."""
    old = {"omega": vectors([1, 0, 2]), "theta_star": vectors([0, 5, 1]), "other": vectors([7])}
    new = merge(old, vectors([3, 0, 0]), vectors([4, 6, 9]))
    assert new["omega"].tolist() == [4, 0, 2] and new["theta_star"].tolist() == [3, 6, 1] and new["other"].tolist() == [7]
    assert old["omega"].tolist() == [1, 0, 2]  # nothing is changed in place


# the implicit step -------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(theta=PLACES, star=PLACES, omega=st.floats(0, 50), strength=st.floats(0, 50))
def test_the_proximal_step_is_the_argmin(theta: float, star: float, omega: float, strength: float) -> None:
    state = {"omega": vectors([omega]), "theta_star": vectors([star])}
    found = proximal(vectors([theta]), state, vectors([strength])).item()
    energy = lambda t: (t - theta) ** 2 / 2 + strength * omega * (t - star) ** 2 / 2  # noqa: E731
    best = minimize_scalar(energy, bounds=sorted((theta - 1e-3, star + 1e-3)), method="bounded", options={"xatol": 1e-9})
    assert energy(found) <= best.fun + 1e-9
    assert found == pytest.approx((theta + strength * omega * star) / (1 + strength * omega))


@settings(max_examples=100, deadline=None)
@given(theta=PLACES, star=PLACES, power=st.floats(-30, 30))
def test_the_implicit_step_stays_between_theta_and_theta_star(theta: float, star: float, power: float) -> None:
    for dtype in (torch.float32, torch.float64):
        state = {"omega": torch.ones(1, dtype=dtype), "theta_star": torch.tensor([star], dtype=dtype)}
        start = torch.tensor([theta], dtype=dtype)
        found = proximal(start, state, torch.tensor(10.0**power, dtype=dtype))
        assert min(start, state["theta_star"]) <= found <= max(start, state["theta_star"])
        if power > 20:
            assert found == state["theta_star"]


@pytest.mark.parametrize("adam", [False, True])
def test_one_step_implicit_against_explicit(adam: bool) -> None:
    """Both steps agree up to eta^2: a step ten times smaller leaves a difference a hundred times smaller."""
    g = torch.Generator().manual_seed(0)
    theta, star, gradient, omega = torch.randn(4, 6, generator=g, dtype=torch.float64)
    state, lam = {"omega": omega.abs(), "theta_star": star}, 0.7
    metric = torch.rand(6, generator=g, dtype=torch.float64) + 0.5 if adam else torch.ones(6).double()
    differences = []
    for lr in (1e-2, 1e-3, 1e-4):
        eta = lr * metric  # Adam has a step size of its own for each parameter
        explicit = theta - eta * (gradient + lam * state["omega"] * (theta - star))
        taken = Update(theta, gradient, eta)
        implicit, _ = L2(lam=lam).after_step(theta - eta * gradient, state, taken)
        differences.append(float((implicit - explicit).norm()))
        assert torch.equal(L2(lam=lam, pull="explicit").after_step(theta, state, taken)[0], theta)
    assert differences[0] / differences[1] == pytest.approx(100, rel=0.05)
    assert differences[1] / differences[2] == pytest.approx(100, rel=0.05)


def test_the_penalty_is_zero_at_theta_star_and_positive_beside_it() -> None:
    state = {"omega": vectors([1, 0, 4]), "theta_star": vectors([1, 2, 3])}
    m = L2(lam=10.0)
    assert m.penalty(state["theta_star"], state) == 0
    assert m.penalty(vectors([1, 9, 3]), state) == 0  # no spring on the second parameter
    assert m.penalty(vectors([1.5, 2, 3]), state).item() == pytest.approx(10 / 2 * 1 * 0.25)
    assert m.penalty(vectors([1, 2, 2]), state).item() == pytest.approx(10 / 2 * 4 * 1)
    gradient = torch.func.grad(lambda t: m.penalty(t, state))(vectors([2, 2, 2]))
    assert gradient.tolist() == pytest.approx([10, 0, -40])  # lam Omega (theta - theta*)


def test_the_loss_of_each_step() -> None:
    s = split(clouds(), 2)
    net = net_for(s)
    theta, batch = net.init(0), s.batch(0, torch.arange(8))
    state = {"omega": torch.ones_like(theta), "theta_star": theta + 1}
    data_loss = float(net.loss(theta, batch))
    assert float(L2(lam=2.0).loss(net, theta, state, batch)) == data_loss
    explicit = float(L2(lam=2.0, pull="explicit").loss(net, theta, state, batch))
    assert explicit == pytest.approx(data_loss + net.n_params)  # 2 / 2 * P * 1^2


# fields ----------------------------------------------------------------------------------------------------------------


def test_the_hyper_parameters_are_the_float_fields() -> None:
    m = EWC(lam=3, carry="online", gamma=0.5, n_samples=7)
    assert m.hyper == {"lam": 3.0, "gamma": 0.5} and all(type(v) is float for v in m.hyper.values())
    bound = m.bind({"lam": torch.tensor(8.0)})
    assert bound.lam == 8 and bound.gamma == 0.5 and bound.n_samples == 7 and m.lam == 3
    assert (m.label, Finetune().hyper) == ("EWC", {})


@pytest.mark.parametrize("value", [-1.0, -1e-30, float("nan"), float("inf"), np.float64(-2)])
def test_negative_strengths(value: float) -> None:
    for make in (L2, EWC):
        with refused(rf"{make.__name__}\.lam must be .*, got {re.escape(repr(value))}"):
            make(lam=value)
    with refused(r"EWC\.gamma must be"):
        EWC(lam=1.0, carry="online", gamma=value)


@pytest.mark.parametrize("value", ["3", None, torch.tensor([3.0, 4.0]), [1.0], True, np.True_, torch.tensor(True), 3j])
def test_strengths_that_are_no_numbers(value: object) -> None:
    with refused(rf"L2\.lam must be a valid number, got {re.escape(repr(value))}"):
        L2(lam=value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pull": "both"}, r"EWC\.pull must be 'implicit' or 'explicit', got 'both'"),
        ({"carry": "sum"}, r"EWC\.carry must be 'separate', 'latest', 'online' or 'newest', got 'sum'"),
        ({"estimator": "true"}, r"EWC\.estimator must be 'exact', 'sampled', 'empirical' or 'batched', got 'true'"),
        ({"gamma": 1.5}, r"EWC\.gamma must be less than or equal to 1, got 1.5"),
        ({"n_samples": 0}, r"EWC\.n_samples must be greater than or equal to 1, got 0"),
        ({"gamma": 0.5}, r'EWC\.gamma belongs to carry="online", got gamma=0\.5 and carry=\'separate\''),
        ({"carry": "online"}, r'EWC\.gamma belongs to carry="online", got gamma=None and carry=\'online\''),
    ],
)
def test_bad_fields(fields: dict, message: str) -> None:
    with refused(message):
        EWC(**{"lam": 1.0} | fields)


def test_what_a_spring_remembers_does_not_grow() -> None:
    s = split(clouds(), 2)
    net = net_for(s)
    theta = net.init(0)
    online = EWC(lam=1.0, n_samples=5, carry="online", gamma=0.9)
    for m, vectors_kept in (
        (L2(lam=1.0), 1),
        (EWC(lam=1.0, n_samples=5), 2),
        (online, 2),
    ):  # theta*, and Omega where it is not all ones
        state = m.start(net, theta)
        for _ in range(3):
            assert m.memory_bytes(state, s) == vectors_kept * net.n_params * 4
            state = m.after_task(net, theta, state, s[0], torch.Generator().manual_seed(0))


def test_a_spring_must_say_how_stiff_it_is() -> None:
    with refused("Spring must say how stiff its springs are"):
        Spring(lam=1.0)

    class Soft(Spring):
        pass

    with refused("Soft must say how stiff its springs are: give it a method `importance`"):
        Soft(lam=1.0)


def test_a_spring_has_no_strength_of_its_own() -> None:
    """What protects best differs by orders of magnitude from method to method, so nobody gets one by chance."""
    for make in (L2, EWC, SI, MAS, RWalk):
        with users_meet_it(), pytest.raises(TypeError, match="missing 1 required positional argument: 'lam'"):
            make()


def test_a_method_of_twenty_lines_runs() -> None:
    """The hooks that a reader overrides are called with what their signatures say, once a step or a task."""
    calls: list[str] = []

    @dataclass(frozen=True)
    class Mine(Method):
        rate: float = 0.0

        def before_task(self, net, theta, state, task, rng):
            calls.append(f"before {task.index} {tuple(theta.shape) == (net.n_params,)}")
            return theta, state

        def after_task(self, net, theta, state, task, rng):
            calls.append(f"after {task.index} {len(task.x)}")
            return {"last": theta}

        def after_step(self, theta, state, step):
            return theta * (1 - self.rate * step.eta), state

    s = split(clouds(), 2)
    plain, shrunk = train(s, [Mine(), Mine(rate=50.0)], 1, lr=1e-2, optimizer="sgd").theta
    assert shrunk.abs().sum() < plain.abs().sum()
    assert calls == ["before 0 True"] * 2 + ["after 0 30"] * 2 + ["before 1 True"] * 2 + ["after 1 30"] * 2
