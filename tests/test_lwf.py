"""LwF: the distillation loss by hand, which outputs it holds in which scenario, and what the warm-up leaves alone."""

from __future__ import annotations

import math

import pytest
import torch
from small import refused
from torch import Tensor

from clbook import Data, Net, fisher, load, metrics, mlp, run, split
from clbook.method import Method, State
from clbook.methods import Finetune, LwF
from clbook.methods.lwf import distillation, widen
from clbook.scenarios import Scenario

QUICK = {"progress": False, "dtype": torch.float64, "batch_size": 32}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def small(scenario: Scenario, hidden: tuple[int, ...] = (16,)) -> Net:
    return mlp(scenario.data.x.shape[1], scenario.n_outputs, hidden)


def rows(*values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mask(*values: int) -> Tensor:
    return torch.tensor([values], dtype=torch.bool)


# the loss ---------------------------------------------------------------------------------------------------------------


def test_distillation_by_hand() -> None:
    """Two samples, two old outputs of three; T = 2 halves the outputs before the softmax."""
    recorded, outputs = rows((2 * math.log(3), 0, 9), (0, 0, 9)), rows((0, 0, 5), (2 * math.log(4), 0, 5))
    old = mask(1, 1, 0)
    # sample 1: q = (3/4, 1/4), p = (1/2, 1/2); sample 2: q = (1/2, 1/2), p = (4/5, 1/5)
    one, two = math.log(2), -0.5 * math.log(0.8) - 0.5 * math.log(0.2)
    loss = distillation(outputs, recorded, old, old, 2.0)
    assert float(loss) == pytest.approx((one + two) / 2, abs=1e-12)
    # a second group is added, not averaged
    twice = distillation(outputs, recorded, old.repeat(2, 1), old.repeat(2, 1), 2.0)
    assert float(twice) == pytest.approx(one + two, abs=1e-12)
    # a new output that competes takes part of p, and q is zero there: p = (1, 1, e^2.5) / (2 + e^2.5) in sample 1
    wide = distillation(outputs[:1], recorded[:1], mask(1, 1, 1), old, 2.0)
    assert float(wide) == pytest.approx(math.log(2 + math.exp(2.5)), abs=1e-12)


def test_the_gradient_is_p_minus_q_over_t() -> None:
    generator = torch.Generator().manual_seed(0)
    z, v = torch.randn(2, 1, 4, dtype=torch.float64, generator=generator)
    every = mask(1, 1, 1, 1)
    for temperature in (0.5, 1.0, 2.0, 7.0):
        gradient = torch.func.grad(lambda z: distillation(z, v, every, every, temperature))(z)  # noqa: B023
        expected = ((z / temperature).softmax(-1) - (v / temperature).softmax(-1)) / temperature
        torch.testing.assert_close(gradient, expected)


def test_at_high_temperature_t_squared_makes_it_least_squares_on_the_outputs() -> None:
    """T^2 times the gradient tends to (z - v) / C for outputs of mean zero: it neither vanishes nor grows with T."""
    generator = torch.Generator().manual_seed(1)
    z, v = torch.randn(2, 1, 5, dtype=torch.float64, generator=generator)
    z, v, every = z - z.mean(), v - v.mean(), mask(1, 1, 1, 1, 1)
    gradient = torch.func.grad(lambda z: distillation(z, v, every, every, 1e4))(z)
    torch.testing.assert_close(1e8 * gradient, (z - v) / 5, rtol=1e-3, atol=1e-5)


def test_the_old_outputs_are_its_minimum() -> None:
    v = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    every = mask(1, 1, 1, 1)
    gradient = torch.func.grad(lambda z: distillation(z, v, every, every, 2.0))(v + 3)  # a constant changes no softmax
    assert gradient.abs().max() < 1e-12
    q = (v / 2).softmax(-1)
    assert float(distillation(v, v, every, every, 2.0)) == pytest.approx(float(-(q * q.log()).sum(-1).mean()), abs=1e-12)


# which outputs are held -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "old", "now"),
    [
        ("task", [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]], [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]]),
        ("domain", [[1, 1], [1, 1]], [[1, 1], [1, 1]]),
        ("class", [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]], [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]),
    ],
)
def test_it_distils_what_was_seen_before_in_each_scenario(digits: Data, kind: str, old: list, now: list) -> None:
    scenario = split(digits, 5, kind=kind).first(3)
    net, method, rng = small(scenario), LwF(), torch.Generator()
    theta = net.init(0)
    state = method.start(net, theta)
    for k in range(3):
        before, state = method.before_task(net, theta, state, scenario[k], rng)
        assert torch.equal(before, theta) and len(state["old"]) == k
        if k == 2:
            wide = len(old[0])  # the scenario has outputs for all ten classes, the last of which no task here uses
            assert state["old"][:, :wide].int().tolist() == old and not state["old"][:, wide:].any()
            assert state["now"][:, :wide].int().tolist() == now and not state["now"][:, wide:].any()
            torch.testing.assert_close(state["recorded"], net(theta, scenario[2].x))
        state = method.after_task(net, theta, state, scenario[k], rng)
        assert len(state["recorded"]) == 0, "the recorded outputs are not kept between tasks"


def test_widen() -> None:
    groups = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    assert widen(groups, mask(1, 0, 1, 0)[0]).int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
    assert widen(groups, mask(0, 0, 1, 1)[0]).int().tolist() == groups.int().tolist()


# a run ------------------------------------------------------------------------------------------------------------------


class Watch(LwF):
    """LwF that notes how far old outputs on new images moved from the recorded ones; a common shift is no move."""

    moved: list[float] = []  # noqa: RUF012

    def after_task(self, net, theta, state: State, task, rng):  # type: ignore[no-untyped-def]
        if len(state["old"]):
            change = (net(theta, task.x) - state["recorded"])[:, state["old"].any(0)]
            self.moved.append(float(change.std(1).mean()))
        return super().after_task(net, theta, state, task, rng)


def test_a_strong_lwf_holds_the_old_outputs_on_the_new_images(digits: Data) -> None:
    scenario = split(digits, 5, kind="task").first(2)
    net, moved = small(scenario), {}
    for lam in (0.0, 0.01, 1.0):
        Watch.moved.clear()
        run(scenario, Watch(lam=lam), net=net, steps=150, lr=3e-3, chunk=1, **QUICK)
        moved[lam] = Watch.moved[0]
    assert moved[1.0] < 0.8 * moved[0.01] and moved[0.01] < 0.2 * moved[0.0], moved


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_warm_up_trains_theta_n_alone(digits: Data, optimizer: str) -> None:
    """With a warm-up as long as the task, only the rows of the new classes have moved, to the last bit."""
    scenario = split(digits, 5, kind="task").first(2)
    net = small(scenario)
    result = run(scenario, LwF(warmup=20), net=net, steps=20, optimizer=optimizer, lr=1e-2, keep_thetas=True, **QUICK)
    first, second = (net.unflatten(theta) for theta in result.thetas[0])
    for name in net.names:
        change = first[name] != second[name]
        if name.startswith("3."):  # the head: classes 2 and 3 are new
            assert change[2:4].any() and not change[:2].any() and not change[4:].any()
        else:
            assert not change.any(), f"{name} moved during the warm-up"
    assert result.R[0, 0, 0] == result.R[0, 1, 0]
    # half a warm-up: afterwards everything that has a gradient moves
    after = run(scenario, LwF(warmup=10), net=net, steps=20, optimizer=optimizer, lr=1e-2, **QUICK)
    assert (net.unflatten(after.theta[0])["0.weight"] != first["0.weight"]).any()


def test_without_new_outputs_the_warm_up_does_nothing(digits: Data) -> None:
    scenario = split(digits, 5, kind="domain").first(2)
    net = small(scenario)
    with_it, without = (run(scenario, LwF(warmup=w), net=net, steps=10, **QUICK).theta[0] for w in (10, 0))
    assert torch.equal(with_it, without)


def test_t_squared_is_a_factor_on_lambda(digits: Data) -> None:
    scenario = split(digits, 5, kind="task").first(3)
    net = small(scenario)
    one = run(scenario, LwF(lam=4.0, temperature=2.0), net=net, steps=15, **QUICK)
    other = run(scenario, LwF(lam=1.0, temperature=2.0, t_squared=True), net=net, steps=15, **QUICK)
    torch.testing.assert_close(one.theta[0], other.theta[0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        run(scenario, LwF(lam=9.0, temperature=3.0), net=net, steps=15, **QUICK).theta[0],
        run(scenario, LwF(lam=1.0, temperature=3.0, t_squared=True), net=net, steps=15, **QUICK).theta[0],
        rtol=1e-6, atol=1e-9,
    )  # fmt: skip
    assert not torch.allclose(one.theta[0], run(scenario, LwF(lam=4.0, temperature=3.0), net=net, steps=15, **QUICK).theta[0])


def test_the_weight_decay_is_half_the_squared_length(digits: Data) -> None:
    scenario = split(digits.subset(50), 5, kind="task").to("cpu", torch.float64)
    net = small(scenario)
    theta, batch = net.init(0).double(), scenario.batch(0, torch.arange(4))
    state = LwF().start(net, theta)
    difference = LwF(weight_decay=0.3).loss(net, theta, state, batch) - LwF().loss(net, theta, state, batch)
    torch.testing.assert_close(difference, 0.15 * theta.square().sum())


def test_one_run_that_diverges_leaves_the_others_alone(digits: Data) -> None:
    """Between tasks the state changes its shape; a dead run in the stack must not stop the living one."""
    scenario = split(digits, 5, kind="task").first(3)
    net = small(scenario)
    methods: list[Method] = [LwF(lam=1.0), LwF(lam=1e300)]
    settings = QUICK | {"optimizer": "sgd", "lr": 0.1, "on_divergence": "nan"}
    both = run(scenario, methods, net=net, steps=30, chunk=2, **settings)
    alone = run(scenario, methods[0], net=net, steps=30, **settings)
    torch.testing.assert_close(both.theta[0], alone.theta[0], rtol=1e-7, atol=1e-9)
    assert torch.isnan(torch.tensor(both.R[1, -1])).all()


@pytest.mark.parametrize("kind", ["task", "domain"])
def test_lwf_forgets_less_than_fine_tuning(digits: Data, kind: str) -> None:
    scenario = split(digits, 5, kind=kind)
    net = small(scenario, (32,))
    settings = {"steps": 100, "batch_size": 32, "progress": False}
    free, kept = (run(scenario, m, 4, net=net, **settings) for m in (Finetune(), LwF(lam=2.0)))
    f0, f = metrics.forgetting(free.R).mean(), metrics.forgetting(kept.R).mean()
    assert f0 > 0.01 and f < 0.75 * f0, (f0, f)


def test_bad_fields_are_refused() -> None:
    for name, value in (("temperature", 0.0), ("lam", -1.0), ("warmup", -1), ("warmup", 0.5), ("weight_decay", float("nan"))):
        with refused(rf"LwF\.{name} must be .*, got {value}"):
            LwF(**{name: value})


# what the chapter says --------------------------------------------------------------------------------------------------


def test_a_higher_temperature_has_a_higher_entropy() -> None:
    """dH/dT = Var_p(z) / T^3."""
    z = torch.tensor([2.0, -1.0, 0.5, 0.3], dtype=torch.float64)

    def entropy(T: Tensor) -> Tensor:
        p = (z / T).softmax(-1)
        return -(p * p.log()).sum()

    for T in torch.tensor([0.4, 1.0, 2.0, 10.0], dtype=torch.float64):
        p = (z / T).softmax(-1)
        variance = (p * z**2).sum() - (p * z).sum() ** 2
        torch.testing.assert_close(torch.func.grad(entropy)(T), variance / T**3)


def test_the_exercise_on_temperature() -> None:
    v, z, every = rows((math.log(16), math.log(4), 0)), rows((0, 0, 0)), mask(1, 1, 1)
    for T, expected in ((1.0, rows((-9, 3, 6)) / 21), (2.0, rows((-5, 1, 4)) / 42)):
        torch.testing.assert_close(torch.func.grad(lambda z: distillation(z, v, every, every, T))(z), expected)  # noqa: B023


def test_for_small_moves_it_is_the_fisher_on_the_new_images(digits: Data) -> None:
    """The Hessian of the distillation loss at the old theta has the exact Fisher of the softened head as its diagonal."""
    net = Net(lambda: torch.nn.Sequential(torch.nn.Linear(64, 3), torch.nn.Tanh(), torch.nn.Linear(3, 4)))
    theta, x, T = net.init(0).double(), digits.x[:30].double(), 2.0
    soft = Net(lambda: torch.nn.Sequential(*net.factory(), Divide(T)))
    old = torch.tensor([[True, True, True, False]])
    recorded = net(theta, x)
    H = torch.autograd.functional.hessian(lambda t: distillation(net(t, x), recorded, old, old, T), theta)
    torch.testing.assert_close(H.diagonal(), fisher(soft, theta, x, mask=old[0], algorithm="definition"), rtol=1e-8, atol=1e-12)


class Divide(torch.nn.Module):
    def __init__(self, T: float) -> None:
        super().__init__()
        self.T = T

    def forward(self, z: Tensor) -> Tensor:
        return z / self.T
