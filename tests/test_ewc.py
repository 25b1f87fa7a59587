"""EWC and L2 against penalties written out one by one, against fine-tuning, and where explicit steps break."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from small import clouds, drawn, flat_grad, module_with, net_for, train
from torch import Tensor, nn

from clbook import DivergedError, Net, Scenario, fisher, load, loop, mlp, permuted
from clbook.methods import EWC, L2, Finetune

LAMBDAS = [10.0**k for k in range(-3, 11)]


def stream(tasks: int = 3, kind: str = "domain") -> Scenario:
    return permuted(clouds(n=24), tasks, kind=kind).to("cpu", torch.float64)


# how the springs of several tasks are carried --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
def test_carrying_springs_on_by_hand(kind: str) -> None:
    s = stream(kind=kind)
    net = net_for(s)
    thetas = [net.init(k).double() for k in range(3)]
    F = [fisher(net, t, task.x, mask=task.mask) for t, task in zip(thetas, s, strict=True)]
    states = {}
    for m in (EWC(lam=1.0), EWC(lam=1.0, carry="latest"), EWC(lam=1.0, carry="online", gamma=0.3)):
        state = m.start(net, net.init(9).double())
        for theta, task in zip(thetas, s, strict=True):
            state = m.after_task(net, theta, state, task, torch.Generator().manual_seed(0))
        states[m.carry] = state
    total = sum(F)
    mean = sum(f * t for f, t in zip(F, thetas, strict=True)) / total
    torch.testing.assert_close(states["separate"]["omega"], total)
    torch.testing.assert_close(states["separate"]["theta_star"], torch.where(total > 0, mean, thetas[-1]))
    torch.testing.assert_close(states["latest"], {"omega": total, "theta_star": thetas[-1]})
    torch.testing.assert_close(states["online"], {"omega": 0.09 * F[0] + 0.3 * F[1] + F[2], "theta_star": thetas[-1]})


def test_the_ends_of_gamma() -> None:
    s = stream()
    all_sum, last_only, latest = train(
        s, [*(EWC(lam=5.0, carry="online", gamma=g) for g in (1.0, 0.0)), EWC(lam=5.0, carry="latest")]
    ).theta
    torch.testing.assert_close(all_sum, latest, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(last_only, latest, rtol=1e-3)


@pytest.mark.parametrize("n_samples", [1, 7, 1000])
def test_n_samples_are_drawn_without_repeats(n_samples: int) -> None:
    s = stream()
    net = net_for(s)
    theta, task = net.init(0).double(), s[1]
    rows = torch.randperm(len(task.x), generator=torch.Generator().manual_seed(4))[:n_samples]
    found = EWC(lam=1.0, n_samples=n_samples).importance(net, theta, {}, task, torch.Generator().manual_seed(4))
    torch.testing.assert_close(found, fisher(net, theta, task.x[rows]))


# a whole run against penalties written out -----------------------------------------------------------------------------


def exact_fisher(module: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    f: Any = 0
    for xn in x:
        for log_p in module(xn[None])[0, mask].log_softmax(0):
            f = f + log_p.exp().detach() * flat_grad(log_p, module).square()
    return f / len(x)


def by_hand(net: Net, s: Scenario, lam: float, carry: str, gamma: float, steps: int, size: int, lr: float) -> list[Tensor]:
    """EWC as in a textbook: a module, an optimiser, and one penalty for each old task."""
    module = module_with(net, net.init(0).double())
    opt = torch.optim.SGD(module.parameters(), lr=lr)
    flat = lambda: torch.cat([p.flatten() for p in module.parameters()])  # noqa: E731
    old: list[tuple[Tensor, Tensor]] = []  # (Fisher, theta*) of each old task
    ends = []
    for task in s:
        for rows in drawn(len(task.x), steps, size, seed=0, task=task.index):
            logits = module(task.x[rows]).masked_fill(~task.mask, -math.inf)
            loss = nn.functional.cross_entropy(logits, task.y[rows])
            for f, star in old:
                loss = loss + lam / 2 * (f * (flat() - star).square()).sum()
            opt.zero_grad()
            loss.backward()
            opt.step()
        ends.append(flat().detach().clone())
        new = exact_fisher(module, task.x, task.mask)
        if carry == "online":  # Schwarz et al. 2018: the old sum fades, and all of it moves to the newest optimum
            old = [(gamma * sum(f for f, _ in old) + new, ends[-1])]
        elif carry == "latest":  # Huszar 2018: nothing fades
            old = [(sum(f for f, _ in old) + new, ends[-1])]
        else:
            old = [*old, (new, ends[-1])]
    return ends


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
@pytest.mark.parametrize("carry", ["separate", "latest", "online"])
def test_a_run_is_the_textbook_loop(carry: str, kind: str) -> None:
    """Above all: one merged spring is the sum of one penalty per task, step for step, over four tasks."""
    s, sizes = stream(4, kind), {"steps": 7, "lr": 0.3}
    net = net_for(s, (5,))
    wanted = by_hand(net, s, 40.0, carry, 0.5, size=8, **sizes)
    method = EWC(lam=40.0, pull="explicit", carry=carry, gamma=0.5 if carry == "online" else None)
    found = train(s, method, net=net, optimizer="sgd", keep_thetas=True, **sizes).thetas[0]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_the_ways_to_carry_springs_on_differ() -> None:
    s = stream(4)
    methods = [EWC(lam=40.0), EWC(lam=40.0, carry="latest"), EWC(lam=40.0, carry="online", gamma=0.5)]
    found = train(s, [*methods, EWC(lam=40.0, carry="newest")]).theta
    assert all((a - b).abs().max() > 1e-4 for a, b in itertools.combinations(found, 2))


# lambda, small and large -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("pull", ["implicit", "explicit"])
def test_lambda_zero_is_fine_tuning_to_the_bit(pull: str, optimizer: str, dtype: torch.dtype) -> None:
    s = stream()
    for make in (EWC, L2):
        plain = train(s, Finetune(), 2, optimizer=optimizer, lr=0.05, dtype=dtype)
        zero = train(s, make(lam=0.0, pull=pull), 2, optimizer=optimizer, lr=0.05, dtype=dtype)
        assert all(torch.equal(a, b) for a, b in zip(plain.theta, zero.theta, strict=True))
        assert np.array_equal(plain.R, zero.R, equal_nan=True)


@pytest.mark.parametrize("make", [EWC, L2])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_no_lambda_makes_an_implicit_run_diverge(optimizer: str, make: type) -> None:
    s = stream()
    result = train(s, [make(lam=lam) for lam in LAMBDAS], optimizer=optimizer, lr=0.3, dtype=torch.float32, keep_thetas=True)
    assert all(torch.isfinite(t).all() for t in result.theta) and not np.isnan(result.R[:, -1]).any()
    moved = [float((thetas[-1] - thetas[0]).norm()) for thetas in result.thetas]
    if make is L2:  # the stiffer the spring, the closer theta stays to where task 0 left it
        assert all(b <= a * 1.05 for a, b in itertools.pairwise(moved)) and moved[-1] < 1e-4 < moved[0]


def test_explicit_steps_diverge_beyond_two() -> None:
    """Along a spring a step multiplies the way to theta* by 1 - eta lam Omega: L2 with lr = 0.1 stands 15 and not 25."""
    sizes = {"optimizer": "sgd", "lr": 0.1, "steps": 400, "dtype": torch.float32}
    train(stream(2), L2(lam=15.0, pull="explicit"), **sizes)
    with pytest.raises(DivergedError):
        train(stream(2), L2(lam=25.0, pull="explicit"), **sizes)


@pytest.mark.parametrize("stacked", [False, True])
def test_what_the_error_says(stacked: bool) -> None:
    methods = [L2(lam=1.0, pull="explicit"), L2(lam=4e4, pull="explicit")][0 if stacked else 1 :]
    with pytest.raises(DivergedError) as error:
        train(stream(), methods, [5], optimizer="sgd", lr=0.05, steps=60, dtype=torch.float32)
    text = str(error.value)
    for part in (
        "L2(lam=40000.0, pull='explicit', carry='newest', gamma=None) with seed 5", "step 26 of task 1 (permutation 1)",
        "lr = 0.05", "lambda = 40000",
        "eta*lambda*max(Omega) = 2e+03", "less than 2", 'pull="implicit"',
    ):  # fmt: skip
        assert part in text


def test_the_error_quotes_the_largest_omega_of_ewc() -> None:
    s, lam = stream(), 1e7
    first = train(s.first(1), Finetune(), optimizer="sgd", lr=0.1, steps=60, keep_thetas=True)
    largest = float(fisher(net_for(s), first.thetas[0][0], s[0].x).max())
    with pytest.raises(DivergedError) as error:
        train(s, EWC(lam=lam, pull="explicit"), optimizer="sgd", lr=0.1, steps=60)
    assert f"eta*lambda*max(Omega) = {0.1 * lam * largest:.3g}" in str(error.value)


def test_a_learning_rate_that_is_too_large_is_named_as_such() -> None:
    for method in (Finetune(), L2(lam=1.0)):
        with pytest.raises(DivergedError, match=r"lr = 1e\+38") as error:
            train(stream(), method, optimizer="sgd", lr=1e38, dtype=torch.float32)
        assert "smaller lr" in str(error.value) and "lambda, or" not in str(error.value)


def test_the_others_go_on_when_one_run_diverges() -> None:
    sizes = {"optimizer": "sgd", "lr": 0.1, "steps": 30, "dtype": torch.float32, "eval_every": 10, "on_divergence": "nan"}
    good, bad = EWC(lam=3.0, pull="explicit"), EWC(lam=1e9, pull="explicit")
    mixed, calm = train(stream(), [good, bad], 2, **sizes), train(stream(), [good, EWC(lam=4.0, pull="explicit")], 2, **sizes)
    assert np.array_equal(mixed.R[:2], calm.R[:2], equal_nan=True) and np.array_equal(
        mixed.curve[:2], calm.curve[:2], equal_nan=True
    )
    assert all(torch.equal(mixed.theta[r], calm.theta[r]) for r in range(2))
    assert not np.isnan(mixed.R[2:, 0, 0]).any()  # task 0 has no spring yet
    assert np.isnan(mixed.R[2:, 1:]).all()
    during = mixed.curve_steps[:, 0] == 1
    assert np.isnan(mixed.curve[2:, during][:, -1]).all()
    alone = train(stream(), bad, **sizes)  # and a stack that has nobody left comes to an end
    assert np.array_equal(alone.R[0], mixed.R[2], equal_nan=True) and alone.curve.shape == mixed.curve[:1].shape


def test_small_steps_implicit_against_explicit() -> None:
    """In a run: half the step size, a quarter of the difference after two steps away from theta*."""
    s, differences = stream(2), []
    for lr in (0.04, 0.02, 0.01):
        a, b = (train(s, L2(lam=3.0, pull=pull), optimizer="sgd", lr=lr, steps=2).theta[0] for pull in ("implicit", "explicit"))
        differences.append(float((a - b).norm()))
    assert differences[0] > 1e-6
    assert [a / b for a, b in itertools.pairwise(differences)] == pytest.approx([4, 4], rel=0.15)


def test_adams_spring_pulls_in_adams_metric() -> None:
    """theta <- (theta + eta lam Omega theta*) / (1 + eta lam Omega) with eta = lr / (sqrt(v_hat) + eps), by torch.optim."""
    s = stream(2)
    net, lr, lam = net_for(s), 0.05, 2.0
    found = train(s, L2(lam=lam), net=net, lr=lr, steps=3, keep_thetas=True).thetas[0]
    theta = found[0].clone().requires_grad_()
    opt = torch.optim.Adam([theta], lr=lr)
    for rows in drawn(24, 3, 8, seed=0, task=1):
        theta.grad = torch.autograd.grad(net.loss(theta, s.batch(1, rows)), theta)[0]
        opt.step()
        kept = opt.state[theta]
        v_hat = kept["exp_avg_sq"] / (1 - 0.999 ** float(kept["step"]))
        strength = lr / (v_hat.sqrt() + 1e-8) * lam
        with torch.no_grad():
            theta.copy_((theta + strength * found[0]) / (1 + strength))
    torch.testing.assert_close(found[1], theta.detach(), rtol=1e-10, atol=1e-12)


# what it is good for, and what it costs --------------------------------------------------------------------------------


def test_ewc_remembers_where_sgd_forgets() -> None:
    """Three permutations of the digits: EWC keeps much more of task A and pays for it with a little of task C."""
    s, sizes = permuted(load("digits"), 3), {"optimizer": "sgd", "lr": 0.1, "batch_size": 32, "epochs": 10}
    result = train(s, [Finetune(), EWC(lam=30.0)], net=mlp(64, 10, (100,)), dtype=torch.float32, **sizes)
    sgd, ewc = result.R[:, -1]
    assert ewc[0] > sgd[0] + 0.2 and ewc[2] > sgd[2] - 0.15 and ewc.mean() > sgd.mean() + 0.05


def tensor_bytes(*roots: Any) -> int:
    """Bytes of all storages that can be reached from these objects, each counted once."""
    seen: set[int] = set()
    storages: dict[int, int] = {}
    queue = list(roots)
    while queue:
        thing = queue.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(thing, dict):
            queue.extend(thing.values())
        elif isinstance(thing, (list, tuple)):
            queue.extend(thing)
        elif hasattr(thing, "__dict__") and not isinstance(thing, type):
            queue.extend(vars(thing).values())
    return sum(storages.values())


def test_fifty_tasks_take_the_memory_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    d = clouds(n=400, n_test=10, shape=(1, 5, 5))
    held, stacks = {}, []
    train_all = loop.train

    def watched(runs: Any, scenario: Scenario, *args: Any) -> None:
        stacks.append((runs, scenario))
        train_all(runs, scenario, *args)

    monkeypatch.setattr(loop, "train", watched)
    for tasks in (5, 50):
        s = permuted(d, tasks)
        result = train(s, EWC(lam=1.0, n_samples=4), steps=1, dtype=torch.float32)
        runs, stream_held = stacks[-1]
        learner = tensor_bytes(runs.theta, runs.state, runs.optimizer)
        held[tasks] = (int(result.memory_bytes[0]), learner, tensor_bytes(stream_held))
    assert held[5][0] == held[50][0] == 2 * 4 * net_for(permuted(d, 1)).n_params
    assert held[5][1] == held[50][1]
    # the stream itself: 45 permutations of 25 pixels, labels of 4 classes, and masks, but no further image
    assert held[50][2] - held[5][2] == 45 * 8 * (25 + 4) + (50**2 - 5**2) * 4
    assert held[5][2] < 1.2 * tensor_bytes(d)
