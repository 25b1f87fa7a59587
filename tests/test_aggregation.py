"""Averages of networks and networks of one's own: against the formulas, and bit by bit where nothing may change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import refused
from torch import Tensor

from clbook import Data, Net, cnn, fisher, load, metrics, mlp, reconstruct, run, split
from clbook.likelihood import masked
from clbook.methods import IMM, Average, FeatureExtraction, Finetune, Progressive, Separate, imm
from clbook.methods.progressive import Columns
from clbook.scenarios import Scenario

QUICK = {"progress": False, "dtype": torch.float64, "batch_size": 32}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def small(scenario: Scenario, hidden: tuple[int, ...] = (16,)) -> Net:
    return mlp(scenario.data.x.shape[1], scenario.n_outputs, hidden)


def accuracies(net: Net, theta: Tensor, scenario: Scenario) -> list[float]:
    """The accuracy of one theta on every task once all have been seen."""
    scenario = scenario.to("cpu", torch.float64)
    found = []
    for j in range(len(scenario)):
        x, y = scenario.test(j)
        found.append(float((masked(net(theta, x), scenario.mask[-1, j]).argmax(-1) == y).double().mean()))
    return found


# incremental moment matching --------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), tasks=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_the_merged_network_is_the_weighted_mean(seed: int, tasks: int) -> None:
    """Carried along task by task, it is sum_k F_k theta_k / sum_k F_k, which is where the gradient of all springs vanishes."""
    generator = torch.Generator().manual_seed(seed)
    thetas, fishers = torch.randn(2, tasks, 6, dtype=torch.float64, generator=generator)
    fishers = fishers.square()
    state = {"omega": torch.zeros(6, dtype=torch.float64), "theta_star": torch.zeros(6, dtype=torch.float64)}
    for theta, f in zip(thetas, fishers, strict=True):
        state = imm.merge(state, f, theta)
    torch.testing.assert_close(state["theta_star"], (fishers * thetas).sum(0) / fishers.sum(0))
    pull = sum(f * (state["theta_star"] - theta) for theta, f in zip(thetas, fishers, strict=True))
    assert pull.abs().max() < 1e-12


def test_mode_with_equal_fishers_is_the_mean(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = split(digits, 5, kind="domain").first(4)
    net = small(scenario)
    mean = run(scenario, IMM(matching="mean"), net=net, steps=30, **QUICK)
    mode = run(scenario, IMM(matching="mode"), net=net, steps=30, **QUICK)
    monkeypatch.setattr(imm, "fisher", lambda net, theta, x, **_: torch.full_like(theta, 0.37))
    equal = run(scenario, IMM(matching="mode"), net=net, steps=30, **QUICK)
    np.testing.assert_array_equal(equal.R, mean.R)
    assert (mode.R != mean.R).any()


@pytest.mark.parametrize("how", ["mean", "mode"])
def test_imm_is_judged_by_the_merged_network_and_trains_like_fine_tuning(digits: Data, how: str) -> None:
    scenario = split(digits, 5, kind="domain").first(3)
    net = small(scenario)
    plain = run(scenario, Finetune(), net=net, steps=30, keep_thetas=True, **QUICK)
    result = run(scenario, IMM(matching=how, n_samples=10_000), net=net, steps=30, keep_thetas=True, **QUICK)
    for a, b in zip(plain.thetas[0], result.thetas[0], strict=True):
        assert torch.equal(a, b)
    thetas, weights = torch.stack(result.thetas[0]), torch.ones(3, net.n_params, dtype=torch.float64)
    if how == "mode":
        tasks = scenario.to("cpu", torch.float64)
        weights = torch.stack([fisher(net, theta, task.x, mask=task.mask) for theta, task in zip(thetas, tasks, strict=True)])
    merged = torch.where(weights.sum(0) > 0, (weights * thetas).sum(0) / weights.sum(0), thetas[-1])
    np.testing.assert_allclose(result.R[0, -1], accuracies(net, merged, scenario), atol=1e-12)
    assert (result.R[0, 0] == plain.R[0, 0])[0], "after one task there is nothing to merge"


def test_the_l2_transfer_ties_each_network_to_the_one_before(digits: Data) -> None:
    scenario = split(digits, 5, kind="domain").first(3)
    net, moved = small(scenario), []
    for lam in (0.0, 1.0, 1e9):
        thetas = run(scenario, IMM(matching="mean", lam=lam), net=net, steps=30, keep_thetas=True, **QUICK).thetas[0]
        moved.append(float((thetas[2] - thetas[1]).norm()))
    assert moved[0] > 2 * moved[1] > 0 and moved[2] < 1e-6 * moved[0], moved


def test_the_plain_average_starts_every_task_at_the_same_network(digits: Data) -> None:
    scenario = split(digits, 5, kind="domain").first(3)
    net, method, rng = small(scenario), Average(), torch.Generator()
    theta = net.init(0)
    state = method.start(net, theta)
    for k in range(3):
        start, state = method.before_task(net, theta + k, state, scenario[k], rng)
        assert torch.equal(start, theta)
        state = method.after_task(net, start + k, state, scenario[k], rng)
    torch.testing.assert_close(state["merged"], theta + 1)  # the mean of theta, theta + 1, theta + 2
    result = run(scenario, method, net=net, steps=30, keep_thetas=True, **QUICK)
    mean = torch.stack(result.thetas[0]).mean(0)
    np.testing.assert_allclose(result.R[0, -1], accuracies(net, mean, scenario), atol=1e-12)


def test_during_a_task_imm_is_the_network_in_training(digits: Data) -> None:
    scenario = split(digits, 5, kind="domain").first(2)
    net = small(scenario)
    plain, merged = (
        run(scenario, m, net=net, steps=20, eval_every=10, **QUICK).curve for m in (Finetune(), IMM(matching="mean"))
    )  # fmt: skip
    np.testing.assert_array_equal(plain, merged)


# new models -------------------------------------------------------------------------------------------------------------


def test_feature_extraction_keeps_the_features_and_the_old_heads_bit_by_bit(digits: Data) -> None:
    scenario = split(digits, 5, kind="task").first(3)
    net = small(scenario)
    plain = run(scenario.first(1), Finetune(), net=net, steps=30, **QUICK)
    result = run(scenario, FeatureExtraction(), net=net, steps=30, keep_thetas=True, **QUICK)
    thetas = [net.unflatten(theta) for theta in result.thetas[0]]
    assert torch.equal(result.thetas[0][0], plain.theta[0]), "the first task is trained like any other"
    for theta in thetas[1:]:
        for name in ("0.weight", "0.bias"):
            assert torch.equal(theta[name], thetas[0][name])
        assert torch.equal(theta["3.weight"][:2], thetas[0]["3.weight"][:2])
    assert not torch.equal(thetas[1]["3.weight"][2:4], thetas[0]["3.weight"][2:4])
    for j in range(3):
        assert len(set(result.R[0, j:, j])) == 1, "no task may be forgotten"


def test_more_trainable_layers_learn_more_and_forget(digits: Data) -> None:
    scenario = split(digits, 5, kind="task")
    net = small(scenario, (16, 16))
    learned, forgot = [], []
    for method in (FeatureExtraction(), FeatureExtraction(trainable=2), FeatureExtraction(trainable=3)):
        result = run(scenario, method, net=net, steps=80, batch_size=32, progress=False)
        learned.append(metrics.learning_accuracy(result.R).mean())
        forgot.append(metrics.forgetting(result.R).mean())
    assert learned[0] < learned[1] - 0.01, learned
    assert forgot[0] == 0 and forgot[2] > 0.01, forgot
    everything = run(scenario, Finetune(), net=net, steps=80, batch_size=32, progress=False)
    assert torch.equal(everything.theta[0], result.theta[0]), "all layers trainable is fine-tuning"
    with pytest.raises(ValueError, match="3 layers"):
        run(scenario, FeatureExtraction(trainable=4), net=net, steps=1, progress=False)


def test_separate_networks_forget_nothing_and_memory_grows(digits: Data) -> None:
    scenario = split(digits, 5, kind="task")
    net = small(scenario)
    result = run(scenario, Separate(), 2, net=net, steps=30, keep_thetas=True, chunk=2, **QUICK)
    for j in range(5):
        assert (result.R[:, j:, j] == result.R[:, j : j + 1, j]).all()
    assert list(result.memory_bytes) == [4 * 8 * net.n_params] * 2  # four networks besides the latest, in float64
    for r, thetas in enumerate(result.thetas):
        for j, theta in enumerate(thetas):
            np.testing.assert_allclose(result.R[r, -1, j], accuracies(net, theta, scenario)[j], atol=1e-12)


def test_a_fresh_network_is_a_new_initialisation(digits: Data) -> None:
    """Of another seed than the first, the same for the same generator; one tiny step leaves each task near its own start."""
    scenario = split(digits, 5, kind="task").first(3)
    net = small(scenario)
    settings = QUICK | {"optimizer": "sgd", "lr": 1e-9}
    a, b = (run(scenario, Separate(), net=net, steps=1, keep_thetas=True, **settings).thetas[0] for _ in range(2))
    for j in range(3):
        assert torch.equal(a[j], b[j])
        assert abs(float(a[j].norm() / a[0].norm()) - 1) < 0.1, "drawn from the same distribution"
        for i in range(j):
            assert float((a[j] - a[i]).norm()) > float(a[0].norm()), f"networks {i} and {j} start at the same place"


def test_duplicate_and_fine_tune_trains_as_fine_tuning_does(digits: Data) -> None:
    scenario = split(digits, 5, kind="task").first(3)
    net = small(scenario)
    plain = run(scenario, Finetune(), net=net, steps=30, keep_thetas=True, **QUICK)
    copies = run(scenario, Separate(begin="previous"), net=net, steps=30, keep_thetas=True, **QUICK)
    for a, b in zip(plain.thetas[0], copies.thetas[0], strict=True):
        assert torch.equal(a, b)
    np.testing.assert_array_equal(np.diagonal(plain.R[0]), np.diagonal(copies.R[0]))


@pytest.mark.parametrize("kind", ["domain", "class"])
def test_separate_networks_must_be_told_the_task(digits: Data, kind: str) -> None:
    with pytest.raises(ValueError, match='needs kind="task"'):
        run(split(digits, 5, kind=kind), Separate(), steps=1, progress=False)


# progressive networks ---------------------------------------------------------------------------------------------------


def test_two_columns_by_hand() -> None:
    """Widths 3-4-5, tasks with outputs (0, 2) and (1,): every matrix product written out."""
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net = Net(lambda: Columns([3, 4, 5], [[0, 2], [1]], 3))
    theta = net.init(0).double()
    p = net.unflatten(theta)
    w = lambda k, i: (p[f"columns.{k}.layers.{i}.weight"], p[f"columns.{k}.layers.{i}.bias"])  # noqa: E731
    linear = lambda h, wb: h @ wb[0].T + wb[1]  # noqa: E731
    a1 = linear(x, w(0, 0)).relu()
    a2 = linear(a1, w(0, 1)).relu()
    a = linear(a2, w(0, 2))
    b1 = linear(x, w(1, 0)).relu()
    b2 = (linear(b1, w(1, 1)) + a1 @ p["columns.1.laterals.0.0.weight"].T).relu()
    b = linear(b2, w(1, 2)) + a2 @ p["columns.1.laterals.1.0.weight"].T
    torch.testing.assert_close(net(theta, x), torch.stack([a[:, 0], b[:, 0], a[:, 1]], -1))
    columns = 3 * 4 + 4 + 4 * 5 + 5
    assert net.n_params == 2 * columns + (5 * 2 + 2) + (5 * 1 + 1) + (4 * 5 + 5 * 1)
    gradient = net.unflatten(torch.func.grad(lambda t: net(t, x)[:, 1].square().sum())(theta))
    for name, g in gradient.items():
        assert bool(g.abs().max() > 0) == name.startswith("columns.1."), f"task 1 must train its own column alone, not {name}"


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_progressive_networks_leave_old_columns_bit_identical(digits: Data, optimizer: str) -> None:
    scenario = split(digits, 5, kind="task").first(3)
    net, method = small(scenario), Progressive()
    settings = QUICK | {"optimizer": optimizer, "lr": 1e-2, "keep_optimizer": True}
    result = run(scenario, method, net=net, steps=20, keep_thetas=True, **settings)
    built = method.extend(net, scenario)
    thetas = [built.unflatten(theta) for theta in [built.init(0).double(), *result.thetas[0]]]
    for k in range(3):
        for name in built.names:
            moved = not torch.equal(thetas[k][name], thetas[k + 1][name])
            assert moved == name.startswith(f"columns.{k}."), f"task {k}: {name} {'moved' if moved else 'stood still'}"
    for j in range(3):
        assert len(set(result.R[0, j:, j])) == 1
    newer = sum(v.numel() for n, v in thetas[0].items() if not n.startswith("columns.0."))
    assert result.memory_bytes[0] == 8 * newer


def test_progressive_networks_stacked_are_what_each_is_alone(digits: Data) -> None:
    scenario = split(digits, 5, kind="task").first(3)
    net = small(scenario)
    for method in (Progressive(), Separate(), Separate(begin="previous"), IMM(matching="mode"), Average()):
        together = run(scenario, method, 2, net=net, steps=10, chunk=2, **QUICK)
        for seed in range(2):
            alone = run(scenario, method, [seed], net=net, steps=10, chunk=1, **QUICK)
            torch.testing.assert_close(alone.theta[0], together.theta[seed], rtol=1e-7, atol=1e-9)
            np.testing.assert_array_equal(alone.R[0], together.R[seed])


def test_columns_are_refused_where_they_do_not_fit(digits: Data) -> None:
    task, domain = split(digits, 5, kind="task"), split(digits, 5, kind="domain")
    for scenario, net, words in (
        (domain, small(domain), "outputs of its own"),
        (task, cnn((1, 8, 8), 10), "chain of Linear"),
        (task, mlp(64, 10, (8,), dropout=(0.0, 0.5)), "dropout"),
        (reconstruct(domain), mlp(64, 64, (8,)), "outputs of its own"),
    ):
        with pytest.raises(ValueError, match=words):
            run(scenario, Progressive(), net=net, steps=1, progress=False)


def test_bad_fields_are_refused(digits: Data) -> None:
    for make, words in (
        (lambda: IMM(matching="median"), "IMM.matching must be 'mean' or 'mode', got 'median'"),
        (lambda: IMM(transfer="all"), "IMM.transfer must be 'weights' or 'none', got 'all'"),
        (lambda: IMM(lam=-1.0), "IMM.lam must be .*, got -1.0"),
        (lambda: Separate(begin="best"), "Separate.begin must be 'fresh' or 'previous', got 'best'"),
        (lambda: FeatureExtraction(trainable=0), "FeatureExtraction.trainable must be greater than or equal to 1, got 0"),
    ):
        with refused(words):
            make()


def test_the_mode_of_a_regression_weighs_by_its_fisher(digits: Data) -> None:
    """Outputs are linear in the last bias, so its Fisher is 1 / (sigma^2 D) in every task, and the mode its plain mean."""
    scenario = reconstruct(split(digits, 5, kind="domain").first(3))
    net = mlp(64, 64, (8,))
    thetas = run(scenario, IMM(), net=net, steps=20, keep_thetas=True, **QUICK).thetas[0]
    state, tasks = IMM().start(net, thetas[0]), scenario.to("cpu", torch.float64)
    net = net.told(scenario.likelihood)
    for theta, task in zip(thetas, tasks, strict=True):
        state = IMM().after_task(net, theta, state, task, torch.Generator().manual_seed(0))
    torch.testing.assert_close(state["merged"][-64:], torch.stack(thetas)[:, -64:].mean(0))
    torch.testing.assert_close(state["weight"][-64:], torch.full((64,), 3 * 2 / 64, dtype=torch.float64))
    assert (state["merged"][:-64] - torch.stack(thetas)[:, :-64].mean(0)).abs().max() > 1e-6
