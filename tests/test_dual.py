"""Dual memories: averages and fast weights against their recursions by hand, and the bounds they have in common with replay."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from small import refused

from clbook import Data, Net, load, metrics, mlp, run, split
from clbook.method import Method, Update
from clbook.methods import CLSER, ER, FastWeights, Finetune
from clbook.scenarios import Scenario

QUICK = {"progress": False, "batch_size": 32, "steps": 12, "dtype": torch.float64}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def small(scenario: Scenario, hidden: tuple[int, ...] = (16,)) -> Net:
    return mlp(scenario.data.x.shape[1], scenario.n_outputs, hidden)


def walk(method: Method, net: Net, steps: int) -> tuple[list, list]:
    """theta and state along a random walk of the optimiser."""
    theta = net.init(0).double()
    state, generator = method.start(net, theta), torch.Generator().manual_seed(0)
    thetas, states = [theta], [state]
    for _ in range(steps):
        delta = 0.1 * torch.randn(len(theta), generator=generator, dtype=torch.float64)
        theta, state = method.after_step(theta + delta, state, Update(theta, -delta, torch.tensor(0.1, dtype=torch.float64)))
        thetas.append(theta)
        states.append(state)
    return thetas, states


# CLS-ER -----------------------------------------------------------------------------------------------------------------


def test_clser_averages_by_hand(digits: Data) -> None:
    net = small(split(digits, 5))
    thetas, states = walk(CLSER(fast=0.6, slow=0.9), net, 30)
    for name, decay in (("theta_fast", 0.6), ("theta_slow", 0.9)):
        mean = thetas[0]
        for n, theta in enumerate(thetas[1:], start=1):
            weight = max(1 / (n + 1), 1 - decay)
            mean = (1 - weight) * mean + weight * theta
        torch.testing.assert_close(states[-1][name], mean)
    torch.testing.assert_close(states[4]["theta_slow"], torch.stack(thetas[:5]).mean(0))  # at first a plain mean
    torch.testing.assert_close(thetas[-1] - thetas[0], sum(b - a for a, b in pairwise(thetas)))


def test_clser_asks_the_memory_that_knows_better(digits: Data) -> None:
    scenario = split(digits, 5, kind="class")
    net, method = small(scenario), CLSER(beta=0.7)
    theta, fast, slow = (net.init(s) for s in range(3))
    rows = torch.arange(12)
    old = scenario.batch(torch.zeros_like(rows), rows, 2)
    batch = scenario.batch(2, rows)._replace(old=old)
    state = {"theta_fast": fast, "theta_slow": slow}
    gaps, picked = [], set()
    for n in range(12):
        six = slice(0, 6)  # the classes seen so far
        z_fast, z_slow, z = (net(t, old.x[n][None])[0, six] for t in (fast, slow, theta))
        knows = [float(v.softmax(0)[old.y[n]]) for v in (z_fast, z_slow)]
        picked.add(knows[1] > knows[0])
        gaps.append((z - (z_slow if knows[1] > knows[0] else z_fast)).square().mean())
    assert picked == {True, False}
    expected = ER().loss(net, theta, {}, batch) + 0.7 * torch.stack(gaps).mean()
    torch.testing.assert_close(method.loss(net, theta, state, batch), expected)


def test_clser_answers_with_the_slow_memory(digits: Data) -> None:
    scenario = split(digits, 5, kind="class")
    net = small(scenario)
    state = {"theta_fast": net.init(1), "theta_slow": net.init(2)}
    batch = scenario.batch(0, torch.arange(5))
    assert torch.equal(CLSER().predict(net, net.init(0), state, batch), net(net.init(2), batch.x))


# fast weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rho", "decay"), [(0.1, 0.99), (0.5, 0.5), (0.0, 0.9)])
def test_fast_weights_by_hand(digits: Data, rho: float, decay: float) -> None:
    """Two weights a connection with a share of the step each: slow += rho Delta, fast <- decay (fast + (1 - rho) Delta)."""
    net = small(split(digits, 5))
    thetas, states = walk(FastWeights(rho=rho, decay=decay), net, 20)
    slow, fast, generator = thetas[0].clone(), torch.zeros_like(thetas[0]), torch.Generator().manual_seed(0)
    for theta, state in zip(thetas[1:], states[1:], strict=True):
        delta = 0.1 * torch.randn(len(theta), generator=generator, dtype=torch.float64)
        slow, fast = slow + rho * delta, decay * (fast + (1 - rho) * delta)
        torch.testing.assert_close(theta, slow + fast)
        torch.testing.assert_close(state["fast"], fast)


def test_what_fast_weights_learned_fades(digits: Data) -> None:
    """With steps of zero, theta goes back to what the slow weights know: a share rho of the change."""
    net, method = small(split(digits, 5)), FastWeights(rho=0.2, decay=0.9)
    start = net.init(0).double()
    state, zero = method.start(net, start), torch.tensor(0.1, dtype=torch.float64)
    theta, state = method.after_step(start + 1, state, Update(start, start, zero))
    for _ in range(400):
        theta, state = method.after_step(theta, state, Update(theta, torch.zeros_like(theta), zero))
    torch.testing.assert_close(theta, start + 0.2)


# in training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [CLSER(size=4, beta=0.0, fast=0.0, slow=0.0), FastWeights(size=4, decay=1.0)], ids=repr)
def test_with_one_speed_it_is_experience_replay(digits: Data, method: Method) -> None:
    scenario = split(digits, 5, kind="class")
    plain, other = (run(scenario, m, 2, net=small(scenario), **QUICK) for m in (ER(size=4), method))
    assert np.array_equal(plain.R, other.R, equal_nan=True)
    for a, b in zip(plain.theta, other.theta, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_memory(digits: Data) -> None:
    scenario, quick = split(digits, 5, kind="class"), {**QUICK, "steps": 1}
    net = small(scenario)
    assert run(scenario, CLSER(size=2), net=net, **quick).memory_bytes[0] == 20 * 65 + 2 * 8 * net.n_params
    assert run(scenario, FastWeights(size=2), net=net, **quick).memory_bytes[0] == 20 * 65 + 8 * net.n_params


def test_dual_memories_forget_less_than_fine_tuning(digits: Data) -> None:
    scenario = split(digits, 5, kind="class")
    many = {"net": small(scenario, (64,)), "steps": 60, "batch_size": 32, "lr": 5e-3, "progress": False}
    for method in (CLSER(size=10, fast=0.9, slow=0.97), FastWeights(size=10)):
        result = run(scenario, method, **many)
        assert result.R[0, -1].mean() > 0.65, method.label
        assert metrics.forgetting(result.R)[0] < 0.4, method.label
    assert run(scenario, Finetune(), **many).R[0, -1].mean() < 0.25


STACKED = [
    [CLSER(size=3, fast=0.5, slow=s, beta=b) for s, b in ((0.9, 0.1), (0.7, 1.0))],
    [FastWeights(size=3, rho=r, decay=0.9) for r in (0.1, 0.5)],
]


@pytest.mark.parametrize("methods", STACKED, ids=lambda m: m[0].label)
def test_stacked_equals_alone(digits: Data, methods: list[Method]) -> None:
    scenario = split(digits, 5, kind="class").first(3)
    both = run(scenario, methods, [0, 3], net=small(scenario), **QUICK)
    for i, (m, seed) in enumerate([(m, s) for m in methods for s in (0, 3)]):
        alone = run(scenario, m, [seed], net=small(scenario), **QUICK)
        torch.testing.assert_close(both.theta[i], alone.theta[0], rtol=0, atol=1e-10)
        np.testing.assert_array_equal(both.R[i], alone.R[0])


def test_bad_input() -> None:
    for kind, name, value in (
        (CLSER, "slow", 1.5), (CLSER, "fast", -5), (FastWeights, "rho", 2.0), (FastWeights, "decay", 1.1),
        (FastWeights, "decay", -1e12),
    ):  # fmt: skip
        with refused(rf"{kind.__name__}\.{name} must be .* than or equal to [01], got {value}"):
            kind(**{name: value})
