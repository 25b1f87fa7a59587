"""SI, MAS, RWalk and L2 against numbers computed by hand, and against plain training where they must agree with it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import refused
from torch import Tensor, nn

import clbook
from clbook import Data, Net, load, mas_importance, metrics, mlp, permuted, run, split
from clbook.method import Method, State, Update
from clbook.methods import EWC, IMM, L2, MAS, SI, FeatureExtraction, Finetune, LwF, RWalk
from clbook.methods.mas import local_importance
from clbook.methods.rwalk import unit
from clbook.scenarios import Scenario

QUICK = {"progress": False, "dtype": torch.float64, "batch_size": 32}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def small(scenario: Scenario, hidden: tuple[int, ...] = (16,)) -> Net:
    return mlp(scenario.data.x.shape[1], scenario.n_outputs, hidden)


def linear() -> Net:
    return Net(lambda: nn.Linear(2, 2, bias=False))


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def steps_by_hand(method: Method, state: State, theta: Tensor, gradients: list[Tensor], eta: float) -> tuple[Tensor, State]:
    """Plain gradient steps with the gradients given, each followed by the method's own."""
    for g in gradients:
        theta, state = method.after_step(theta - eta * g, state, Update(theta, g, torch.tensor(eta, dtype=theta.dtype)))
    return theta, state


# synaptic intelligence --------------------------------------------------------------------------------------------------


def test_si_path_and_importance_by_hand() -> None:
    method, net = SI(lam=1.0, xi=0.1), linear()
    start = t(1, 2, 0, 0)
    state = method.start(net, start)
    theta, state = steps_by_hand(method, state, start, [t(3, -1, 0, 1), t(1, 1, 0, -2)], eta=0.1)
    # no spring yet: the step is -eta g, so the path is eta (g1^2 + g2^2)
    torch.testing.assert_close(state["path"], t(1.0, 0.2, 0.0, 0.5))
    torch.testing.assert_close(theta, t(0.6, 2.0, 0.0, 0.1))
    omega = method.importance(net, theta, state, task(0), torch.Generator())
    torch.testing.assert_close(omega, t(1.0 / (0.16 + 0.1), 0.2 / 0.1, 0.0, 0.5 / (0.01 + 0.1)))
    after = method.after_task(net, theta, state, task(0), torch.Generator())
    assert torch.equal(after["path"], torch.zeros(4, dtype=torch.float64)) and torch.equal(after["theta_star"], theta)


def test_si_never_makes_a_spring_that_pushes() -> None:
    method, net = SI(lam=1.0), linear()
    state = method.start(net, t(0, 0, 0, 0)) | {"path": t(-1, 2, -3, 0)}
    omega = method.importance(net, t(0, 0, 0, 0), state, task(0), torch.Generator())
    torch.testing.assert_close(omega, t(0, 20, 0, 0))


@pytest.mark.parametrize("pull", ["implicit", "explicit"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_si_path_sums_to_the_fall_of_the_task_s_own_loss(digits: Data, pull: str, optimizer: str) -> None:
    """On the whole task as one batch, with small steps, also where a spring pulls (task 2); halving lr halves the error."""
    scenario = split(digits.subset(200), 5, kind="task").first(2)
    n = min(len(r) for r in scenario.rows)
    scenario = replace(scenario, rows=tuple(r[:n] for r in scenario.rows))
    net, errors, falls = small(scenario), [], []
    for halvings in range(2):
        paths: list[Tensor] = []

        class Spy(SI):
            def after_task(self, net, theta, state, task, rng):  # type: ignore[no-untyped-def]
                paths.append(state["path"])  # noqa: B023
                return super().after_task(net, theta, state, task, rng)

        lr, steps = (0.02 if optimizer == "sgd" else 1e-3) / 2**halvings, 80 * 2**halvings
        result = run(
            scenario, Spy(lam=0.5, pull=pull), net=net, steps=steps, lr=lr, optimizer=optimizer, keep_thetas=True,
            progress=False, dtype=torch.float64, batch_size=n, chunk=1,
        )  # fmt: skip
        thetas = [net.init(0).double(), *result.thetas[0]]
        batches = [scenario.to("cpu", torch.float64).batch(k, torch.arange(n)) for k in range(2)]
        fall = [float(net.loss(thetas[k], b) - net.loss(thetas[k + 1], b)) for k, b in enumerate(batches)]
        falls.append(fall)
        errors.append([abs(float(p.sum()) - f) for p, f in zip(paths, fall, strict=True)])
    assert min(falls[0]) > 0.05, f"the loss must fall for this test to mean something: {falls}"
    for coarse, fine, fall in zip(*errors, falls[1], strict=True):
        assert fine < 0.05 * fall, f"path differs from the fall by {fine:.2g} of {fall:.2g}"
        assert fine < 0.7 * coarse, f"halving the step should halve the error: {coarse:.2g} -> {fine:.2g}"


# memory aware synapses --------------------------------------------------------------------------------------------------


def test_mas_of_a_linear_map_by_hand() -> None:
    net, theta = linear(), t(1, 2, -1, 0.5)  # W = [[1, 2], [-1, 0.5]]
    x = torch.tensor([[1.0, 1.0], [2.0, 0.0]], dtype=torch.float64)  # f = (3, -0.5) and (2, -2)
    expected = t((6 + 8) / 2, (6 + 0) / 2, (1 + 8) / 2, (1 + 0) / 2)  # mean of 2 |f_i x_j|
    torch.testing.assert_close(mas_importance(net, theta, x), expected)
    torch.testing.assert_close(local_importance_of_linear(theta, x), expected)
    # per output the weights do not matter: d f_c / d W_cj = x_j
    torch.testing.assert_close(mas_importance(net, theta, x, per_output=True), t(1.5, 0.5, 1.5, 0.5))
    only_first = torch.tensor([True, False])
    torch.testing.assert_close(mas_importance(net, theta, x, mask=only_first), expected * t(1, 1, 0, 0))
    torch.testing.assert_close(mas_importance(net, theta, x, mask=only_first, per_output=True), t(1.5, 0.5, 0, 0))


def local_importance_of_linear(theta: Tensor, x: Tensor) -> Tensor:
    net = mlp(2, 2, ())  # one layer: the local and the global form are the same
    return local_importance(net, torch.cat([theta, torch.zeros(2, dtype=theta.dtype)]), x)[:4]


@pytest.mark.parametrize("per_output", [False, True])
def test_mas_by_outer_product_is_the_definition(per_output: bool) -> None:
    net, x = mlp(5, 4, (7, 6)), torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theta, mask = net.init(0).double(), torch.tensor([True, False, True, True])
    by = {
        how: mas_importance(net, theta, x, mask=mask, algorithm=how, per_output=per_output) for how in ("outer", "definition")
    }
    torch.testing.assert_close(by["outer"], by["definition"])
    assert by["outer"].min() >= 0 and by["outer"].max() > 0


def test_mas_with_one_output_is_twice_the_output_times_its_gradient() -> None:
    net, x = mlp(3, 1, (4,)), torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theta = net.init(0).double()
    f = float(net(theta, x))
    torch.testing.assert_close(mas_importance(net, theta, x), 2 * abs(f) * mas_importance(net, theta, x, per_output=True))


def test_mas_is_the_first_order_change_of_the_output() -> None:
    """f(theta + delta) - f(theta) = sum_i g_i delta_i: one weight moved by a little changes ||f||^2 by Omega_i times that."""
    net, x = mlp(3, 2, (4,)), torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    theta, h = net.init(1).double(), 1e-6
    omega = mas_importance(net, theta, x)
    for i in range(net.n_params):
        moved = theta.clone()
        moved[i] += h
        change = (net(moved, x).square().sum() - net(theta, x).square().sum()).abs() / h
        assert abs(float(change - omega[i])) < 1e-4


def test_local_mas_is_each_layer_s_own_gradient() -> None:
    """Against autograd on the squared length of each layer's activity with respect to its own weights, sample by sample."""
    net, x = mlp(4, 3, (5,)), torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theta = net.init(0).double()
    p = net.unflatten(theta)
    expected = {n: torch.zeros_like(v) for n, v in p.items()}
    for xn in x:
        a = xn
        for name, relu in (("0", True), ("3", False)):
            w, b = p[f"{name}.weight"].clone().requires_grad_(), p[f"{name}.bias"].clone().requires_grad_()
            y = w @ a + b
            y = y.relu() if relu else y
            gw, gb = torch.autograd.grad(y.square().sum(), (w, b))
            expected[f"{name}.weight"] += gw.abs() / len(x)
            expected[f"{name}.bias"] += gb.abs() / len(x)
            a = y.detach()
    torch.testing.assert_close(local_importance(net, theta, x), net.flatten(expected))


def test_mas_looks_only_at_the_images_it_is_told(digits: Data) -> None:
    scenario = split(digits, 5, kind="task").to("cpu", torch.float64)
    net, task, rng = small(scenario), scenario[0], torch.Generator().manual_seed(0)
    theta = net.init(0).double()
    state = MAS(lam=1.0).start(net, theta)
    subset = MAS(lam=1.0, only=(1,), n_samples=10_000).importance(net, theta, state, task, rng)
    torch.testing.assert_close(subset, mas_importance(net, theta, task.x[task.y == 1], mask=task.mask))
    test = MAS(lam=1.0, source="test", n_samples=10_000).importance(net, theta, state, task, rng)
    torch.testing.assert_close(test, mas_importance(net, theta, task.x_test, mask=task.mask))
    assert not torch.allclose(subset, test)


def test_mas_sums_over_tasks_at_the_latest_theta() -> None:
    net, method, theta = linear(), MAS(lam=1.0, n_samples=10_000), t(5, 6, -1, 0.5)
    x, y = torch.tensor([[1.0, 1.0], [2.0, 0.0]], dtype=torch.float64), torch.tensor([0, 1])
    images = replace(task(0), x=x, y=y, x_test=x, y_test=y, mask=torch.tensor([True, True]))
    state = {"omega": t(1, 2, 3, 4), "theta_star": t(0, 0, 0, 0)}
    new = method.after_task(net, theta, state, images, torch.Generator())
    torch.testing.assert_close(new["omega"], t(1, 2, 3, 4) + mas_importance(net, theta, images.x))
    torch.testing.assert_close(new["theta_star"], theta)


# Riemannian walk --------------------------------------------------------------------------------------------------------


def test_rwalk_by_hand() -> None:
    method, net = RWalk(lam=1.0, alpha=0.5, xi=0.5, every=2), linear()
    start = t(0, 0, 0, 0)
    theta, state = steps_by_hand(method, method.start(net, start), start, [t(2, 1, 0, 1), t(2, -1, 0, -3)], eta=0.5)
    torch.testing.assert_close(theta, t(-2, 0, 0, 1))
    fisher = t(0.25 * 4 + 0.5 * 4, 0.25 + 0.5, 0, 0.25 + 0.5 * 9)  # 0.5 (0.5 g1^2) + 0.5 g2^2
    torch.testing.assert_close(state["fisher"], fisher)
    fall = t(4, 1, 0, 5)  # eta (g1^2 + g2^2)
    score = fall / (fisher * theta.square() / 2 + 0.5)
    torch.testing.assert_close(state["new_score"], score)
    assert torch.equal(state["fall"], torch.zeros(4, dtype=torch.float64)) and torch.equal(state["anchor"], theta)

    first = method.after_task(net, theta, state, task(0), torch.Generator())
    torch.testing.assert_close(first["omega"], fisher / fisher.max() + score / score.max())
    # a second task: its score is averaged with the first one's, the Fisher runs on
    _, state = steps_by_hand(replace(method, lam=0.0), first, theta, [t(1, 0, 0, 0), t(1, 0, 0, 0)], eta=0.5)
    fisher = 0.25 * fisher + t(0.75, 0, 0, 0)
    second = method.after_task(net, theta, state, task(1), torch.Generator())
    score = (score + t(1, 0, 0, 0) / (fisher * t(1, 0, 0, 0) / 2 + 0.5)) / 2
    torch.testing.assert_close(second["omega"], fisher / fisher.max() + score / score.max())


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6, 7])
def test_the_last_stretch_of_rwalk_counts_though_it_is_not_over(steps: int) -> None:
    """Stretches of three steps; what is left over at the end of a task makes one more, and none where nothing is left."""
    every, eta, alpha, xi = 3, 0.5, 0.5, 0.5
    method, net, start = RWalk(lam=1.0, alpha=alpha, xi=xi, every=every), linear(), t(0, 0, 0, 0)
    gradients = [t(1, -2, 0, 0.5 * i) for i in range(steps)]
    theta, state = steps_by_hand(method, method.start(net, start), start, gradients, eta)
    fisher, score, anchor, at = t(0, 0, 0, 0), t(0, 0, 0, 0), start, start
    for i in range(0, steps, every):
        fall = t(0, 0, 0, 0)
        for g in gradients[i : i + every]:
            fisher, fall, at = alpha * g.square() + (1 - alpha) * fisher, fall + eta * g.square(), at - eta * g
        score, anchor = score + fall / (fisher * (at - anchor).square() / 2 + xi), at
    torch.testing.assert_close(theta, at)
    assert score.max() > 0
    after = method.after_task(net, theta, state, task(0), torch.Generator())
    torch.testing.assert_close(after["omega"], fisher / fisher.max() + score / score.max())
    torch.testing.assert_close(after["score"], score)


def test_rwalk_over_tasks_shorter_than_a_stretch_protects_by_its_path(digits: Data) -> None:
    """With 4 steps a task and stretches of 1000, the score is that of the whole task and not zero everywhere."""
    states: list[State] = []

    class Spy(RWalk):
        def after_task(self, net, theta, state, task, rng):  # type: ignore[no-untyped-def]
            states.append(super().after_task(net, theta, state, task, rng))
            return states[-1]

    scenario = split(digits, 5, kind="task").first(2)
    run(scenario, Spy(lam=1.0, every=1000), net=small(scenario), steps=4, **QUICK)
    for state in states:
        assert state["score"].max() > 0 and float(state["omega"].max()) > 1, "neither part alone is above 1"


def task(index: int):  # type: ignore[no-untyped-def]
    scenario = split(load("digits").subset(100), 5)
    return scenario[index]


def test_unit_scales_to_one_and_keeps_zero() -> None:
    torch.testing.assert_close(unit(t(0, 1, 4)), t(0, 0.25, 1))
    assert torch.equal(unit(t(0, 0)), t(0, 0))


# all springs ------------------------------------------------------------------------------------------------------------

ALL = [
    L2(lam=1.0), EWC(lam=100.0), SI(lam=3.0), MAS(lam=3.0), MAS(lam=1.0, form="local"), RWalk(lam=30.0),
    LwF(lam=1.0), LwF(lam=1.0, warmup=5), FeatureExtraction(),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
@pytest.mark.parametrize("method", ALL[:-2], ids=lambda m: m.label)  # a warm-up is more than a strength
def test_no_strength_is_fine_tuning(digits: Data, method: Method, kind: str) -> None:
    scenario = split(digits, 5, kind=kind).first(3)
    net = small(scenario)
    plain = run(scenario, Finetune(), net=net, steps=15, **QUICK)
    none = run(scenario, replace(method, lam=0.0), net=net, steps=15, **QUICK)
    assert torch.equal(plain.theta[0], none.theta[0])
    some = run(scenario, method, net=net, steps=15, **QUICK)
    assert not torch.allclose(plain.theta[0], some.theta[0])


@pytest.mark.parametrize("kind", ["task", "class"])
@pytest.mark.parametrize("method", ALL, ids=lambda m: f"{m.label}{getattr(m, 'form', '')}")
def test_stacked_is_what_each_run_is_alone(digits: Data, method: Method, kind: str) -> None:
    scenario = split(digits, 5, kind=kind).first(3)
    net = small(scenario)
    methods = [method, replace(method, lam=5 * method.lam)] if method.hyper else [method]
    together = run(scenario, methods, 2, net=net, steps=12, chunk=4, **QUICK)
    for i, r in enumerate(together.runs):
        alone = run(scenario, methods[i // 2], [r["seed"]], net=net, steps=12, chunk=1, **QUICK)
        torch.testing.assert_close(alone.theta[0], together.theta[i], rtol=1e-7, atol=1e-9)
        np.testing.assert_array_equal(alone.R[0], together.R[i])
        assert alone.memory_bytes[0] == together.memory_bytes[i]


NO_LABELS = [
    L2(lam=1.0),
    EWC(lam=1.0),
    SI(lam=1.0),
    RWalk(lam=1.0),
    *(MAS(lam=1.0, form=f) for f in ("norm", "local", "outputs")),
]


@pytest.mark.parametrize("method", NO_LABELS, ids=lambda m: m.label)
def test_springs_without_labels_learn_to_reconstruct(digits: Data, method: Method, error_rise: float) -> None:
    """A spring without end of strength keeps what it knows about: task 1 is reconstructed as well as when it was new."""
    held = reconstruct(digits, replace(method, lam=1e9))
    assert error_rise > 0.003
    assert abs(held) < 0.1 * error_rise, f"the error rose by {held:.4f}, without springs by {error_rise:.4f}"


@pytest.fixture(scope="module")
def error_rise(digits: Data) -> float:
    return reconstruct(digits, Finetune())


def reconstruct(digits: Data, method: Method) -> float:
    """How much the squared error on the first task rises while an autoencoder learns the second."""
    scenario = clbook.reconstruct(split(digits, 5, kind="domain").first(2))
    result = run(scenario, method, net=mlp(64, 64, (16,)), steps=300, lr=5e-3, **QUICK)
    return -float(metrics.backward_transfer(result.R)[0])


@pytest.mark.parametrize(
    ("method", "vectors"),
    [(L2(lam=1.0), 1), (SI(lam=1.0), 2), (MAS(lam=1.0), 2), (EWC(lam=1.0), 2), (RWalk(lam=1.0), 3), (LwF(), 0),
     (FeatureExtraction(), 0)],
    ids=lambda m: getattr(m, "label", ""),
)  # fmt: skip
def test_memory_is_counted_in_vectors_of_the_length_of_theta(digits: Data, method: Method, vectors: int) -> None:
    scenario = split(digits, 5, kind="task")
    net = small(scenario)
    for tasks in (2, 4):  # and does not grow with the tasks
        result = run(scenario.first(tasks), method, net=net, steps=2, progress=False)
        assert result.memory_bytes[0] == vectors * 4 * net.n_params


def test_springs_forget_less_than_fine_tuning(digits: Data) -> None:
    scenario = permuted(digits, 3, seed=1)
    net = small(scenario, (64,))
    settings = {"steps": 200, "batch_size": 32, "progress": False}
    free = run(scenario, Finetune(), 2, net=net, **settings)
    f0, a0 = metrics.forgetting(free.R).mean(), metrics.average_accuracy(free.R).mean()
    assert f0 > 0.1, f0
    for method in (EWC(lam=20.0), SI(lam=10.0), MAS(lam=0.1), RWalk(lam=1.0)):
        r = run(scenario, method, 2, net=net, **settings)
        f, a = metrics.forgetting(r.R).mean(), metrics.average_accuracy(r.R).mean()
        assert f < 0.7 * f0, f"{method.label}: forgetting {f:.3f} against {f0:.3f}"
        assert a > a0 + 0.01, f"{method.label}: accuracy {a:.3f} against {a0:.3f}"


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (SI, {"lam": -1.0}), (SI, {"xi": 0.0}), (MAS, {"form": "l1"}), (MAS, {"source": "validation"}), (MAS, {"n_samples": 0}),
        (MAS, {"n_samples": 2.5}), (MAS, {"only": (-1,)}), (MAS, {"only": 3}), (RWalk, {"alpha": 2.0}), (RWalk, {"every": 0}),
        (RWalk, {"xi": 0.0}),
    ],
)  # fmt: skip
def test_bad_fields_are_refused(make: type, field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with refused(rf"{make.__name__}\.{name}.* must be .*, got {re.escape(repr(value))}"):
        make(**{"lam": 1.0} | field)


def test_ways_to_carry_a_spring_that_do_not_go_with_what_it_measures() -> None:
    """SI's path starts at the latest theta, and what IMM ties theta to is the network before alone."""
    with refused(r'SI measures the way from the latest theta, so carry must be "latest", "online" or "newest"'):
        SI(lam=1.0, carry="separate")
    with refused(r'IMM ties theta to the network before alone: carry must be "newest", got \'latest\''):
        IMM(carry="latest")


def test_the_local_form_needs_a_chain_of_layers() -> None:
    net = Net(lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)))
    with pytest.raises(ValueError, match="chain"):
        local_importance(net, net.init(0), torch.ones(1, 2))
