"""Few neurons: what XdG, HAT and PackNet promise to protect stays the same to the last bit; k-WTA counts its winners."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from small import refused
from torch import Tensor, nn

from clbook import Data, Net, cnn, load, mlp, run, split
from clbook.method import Method
from clbook.methods import HAT, KWTA, Finetune, PackNet, XdG
from clbook.methods.gating import hidden_gates, lock
from clbook.methods.kwta import Winners
from clbook.methods.packnet import smallest
from clbook.scenarios import Scenario

QUICK = {"progress": False, "batch_size": 32, "steps": 30, "lr": 5e-3}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


@pytest.fixture(scope="module")
def scenario(digits: Data) -> Scenario:
    return split(digits, 5, kind="task")


def small(scenario: Scenario, hidden: tuple[int, ...] = (32, 24), dropout: tuple[float, float] = (0.0, 0.0)) -> Net:
    return mlp(64, scenario.n_outputs, hidden, dropout)


def spy(method: Method) -> tuple[Method, list]:
    """The same method, and a list that fills with (theta, state) after every task."""
    seen: list = []

    class Spy(type(method)):
        def after_task(self, net, theta, state, task, rng):
            state = super().after_task(net, theta, state, task, rng)
            seen.append((theta.clone(), state))
            return state

    return Spy(**{f.name: getattr(method, f.name) for f in fields(method)}), seen


def blocks(net: Net, units: list[Tensor]) -> Tensor:
    """Which parameters of an mlp touch one of the hidden `units` (a mask a layer): weights in, biases, weights out [P]."""
    around = [torch.zeros(net.shapes[0][1], dtype=torch.bool), *units, torch.zeros(net.shapes[-1][0], dtype=torch.bool)]
    parts = {}
    for weight, bias, below, above in zip(net.names[::2], net.names[1::2], around[:-1], around[1:], strict=True):
        parts[weight], parts[bias] = above[:, None] | below, above
    return net.flatten(parts)


# XdG --------------------------------------------------------------------------------------------------------------------


def test_xdg_draws_its_share_of_units_for_each_task_and_run(scenario: Scenario) -> None:
    method, seen = spy(XdG(drop=0.75))
    run(scenario, method, 2, net=small(scenario), **QUICK)
    runs = [seen[-2][1]["gates"], seen[-1][1]["gates"]]  # [T, W] of both seeds
    for gates in runs:
        assert gates.shape == (5, 56) and set(gates.unique().tolist()) == {0.0, 1.0}
        assert gates[:, :32].sum(1).tolist() == [8.0] * 5 and gates[:, 32:].sum(1).tolist() == [6.0] * 5
        assert len({tuple(g.tolist()) for g in gates}) == 5
    assert not torch.equal(*runs)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_xdg_leaves_all_weights_of_gated_units_alone(scenario: Scenario, optimizer: str) -> None:
    """In task k: weights into and out of a unit that is off, and its bias, and no others among the hidden layers' all alike."""
    method, seen = spy(XdG(drop=0.5))
    net = small(scenario)
    run(scenario, method, net=net, optimizer=optimizer, **QUICK)
    for k in range(1, 5):
        gates = seen[k][1]["gates"][k]
        touched = blocks(net, [g == 0 for g in gates.split([32, 24])])
        same = seen[k][0] == seen[k - 1][0]
        assert bool(same[touched].all()), "a weight of a unit that is off was changed"
        assert float(same[~touched].float().mean()) < 0.5, "hardly any of the other weights learned"


def test_xdg_without_gating_is_fine_tuning(scenario: Scenario) -> None:
    plain, gated = (run(scenario, m, net=small(scenario), dtype=torch.float64, **QUICK) for m in (Finetune(), XdG(drop=0.0)))
    assert np.array_equal(plain.R, gated.R, equal_nan=True) and torch.equal(plain.theta[0], gated.theta[0])


def test_xdg_goes_with_dropout(scenario: Scenario) -> None:
    """A unit counts if the task lets it and dropout does; the gate of the input is dropout's alone."""
    net, method = small(scenario, dropout=(0.2, 0.5)), XdG(drop=0.5)
    own, drop = (torch.arange(56) % 2).float()[None], net.dropout((4,), torch.Generator().manual_seed(0))
    batch = scenario.batch(0, torch.arange(4))._replace(gates=drop)
    gates = method.gates(net, net.init(0), {"gates": own.bool()}, batch)
    first, second = hidden_gates(net, method)
    assert list(hidden_gates(net, method).values()) == [32, 24] and len(gates) == 3
    assert torch.equal(gates[first], drop[first] * own[:, :32]) and torch.equal(gates[second], drop[second] * own[:, 32:])
    for name in set(gates) - {first, second}:
        assert torch.equal(gates[name], drop[name]) and drop[name].shape == (4, 64)


def test_few_neurons_a_task_forget_less_than_fine_tuning(scenario: Scenario) -> None:
    many = {"net": small(scenario, (100, 100)), "steps": 80, "batch_size": 32, "lr": 5e-3, "progress": False}
    plain = run(scenario, Finetune(), 2, **many).R[:, -1].mean()
    for method in (XdG(drop=0.8), HAT(), PackNet()):
        assert run(scenario, method, 2, **many).R[:, -1].mean() > max(0.96, plain + 0.02), method.label


# HAT --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_hat_locks_weights_and_answers_bit_by_bit(scenario: Scenario, optimizer: str) -> None:
    method, seen = spy(HAT())
    settings = QUICK | ({"lr": 0.05} if optimizer == "sgd" else {})
    result = run(scenario, method, net=small(scenario), optimizer=optimizer, **settings)
    net = method.extend(small(scenario), scenario).told(example=scenario.data.x[:1])
    for k in range(5):
        theta, state = seen[k]
        locked = state["locked"]
        assert 0.02 < float(locked.float().mean()) < 1
        for later, _ in seen[k + 1 :]:
            assert torch.equal(theta[locked], later[locked])
        if k:
            assert not torch.equal(theta[~seen[k - 1][1]["locked"]], seen[k - 1][0][~seen[k - 1][1]["locked"]])
        x, _ = scenario.test(k)
        batch = scenario.batch(k, torch.zeros(len(x), dtype=torch.int64))._replace(x=x)
        own = scenario.mask[k, k]
        answers = [method.predict(net, later, s, batch)[:, own] for later, s in seen[k:]]
        assert all(torch.equal(answers[0], a) for a in answers)
        assert len(set(result.R[0, k:, k])) == 1, "the accuracy of an earlier task has changed"
    assert float(seen[-1][1]["used"].mean()) < 1, "all units are taken: nothing is left to test"


def test_hat_locks_by_hand() -> None:
    """2 inputs, 2 hidden units of which only the second is used, 2 outputs of which the first is an old one."""
    net = mlp(2, 2, (2,))
    net = HAT().extend(net, split_of_two())
    one, two = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    parts = net.unflatten(lock(net, one, two, torch.tensor([1.0, 0.0])))
    assert {name: part.int().tolist() for name, part in parts.items()} == {
        "embedding": [[1, 1], [0, 0]],
        "inner.0.weight": [[0, 0], [1, 1]],
        "inner.0.bias": [0, 1],
        "inner.3.weight": [[0, 1], [0, 0]],
        "inner.3.bias": [1, 0],
    }


def split_of_two() -> Scenario:
    x, y = torch.rand(8, 2), torch.tensor([0, 1] * 4)
    return split(Data(x, y, x, y, "two", (1, 1, 2), 2), 2, kind="task")


def test_hat_attention_and_its_gradient_by_hand(scenario: Scenario) -> None:
    method = HAT(c=0.9, s_max=50.0)
    net = method.extend(small(scenario), scenario).told(example=scenario.data.x[:1])
    theta = net.init(0)
    state = method.start(net, theta) | {"s": torch.tensor(3.0), "used": (torch.arange(56) % 3 == 0).float()}
    batch = scenario.batch(2, torch.arange(16))

    def loss(e: Tensor, s: float) -> Tensor:
        a = torch.sigmoid(s * e)
        gates = dict(zip(hidden_gates(net, method), a.split([32, 24]), strict=True))
        free = 1 - state["used"]
        return net.loss(theta, batch._replace(gates=gates)) + 0.9 * (a * free).sum() / free.sum()

    e = net.unflatten(theta)["embedding"][2].clone().requires_grad_()
    torch.testing.assert_close(method.loss(net, theta, state, batch), loss(e, 3.0))
    raw = torch.autograd.grad(loss(e, 3.0), e)[0]
    expected = raw * 50 * (torch.cosh(3 * e.detach()) + 1) / (3 * (torch.cosh(e.detach()) + 1))  # Serra et al., eq. 5
    found = net.unflatten(method.direction(net, theta, state, batch))["embedding"]
    torch.testing.assert_close(found[2], expected)
    assert torch.equal(found[[0, 1, 3, 4]], torch.zeros(4, 56))


def test_hat_anneals_s(scenario: Scenario) -> None:
    method, seen = spy(HAT(s_max=100.0))
    run(scenario.first(2), method, net=small(scenario), **QUICK)
    assert [float(s["s"]) for _, s in seen] == [100.0, 100.0]
    net = method.extend(small(scenario), scenario).told(example=scenario.data.x[:1])
    state = method.start(net, net.init(0))
    assert float(method.before_task(net, net.init(0), state, scenario[1], torch.Generator())[1]["s"]) == pytest.approx(0.01)


# PackNet ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_packnet_keeps_what_a_task_owns_bit_by_bit(scenario: Scenario, optimizer: str) -> None:
    method, seen = spy(PackNet(prune=0.6))
    net = small(scenario)
    result = run(scenario, method, net=net, optimizer=optimizer, **QUICK)
    for k, (theta, state) in enumerate(seen):
        owner = state["owner"]
        for later, after in seen[k + 1 :]:
            mine = (owner > 0) & (owner <= k + 1)
            assert torch.equal(after["owner"][mine], owner[mine]) and torch.equal(theta[mine], later[mine])
        assert len(set(result.R[0, k:, k])) == 1, "the accuracy of an earlier task has changed"
        body = (owner == 0) & ~net.last()
        assert bool((theta[body] == 0).all()), "a freed weight is not zero"
        for name, part in net.unflatten(owner).items():
            if name in ("0.weight", "3.weight"):  # 0.6 of what was free is free again
                free = part.numel()
                for _ in range(k + 1):
                    free = round(0.6 * free)
                assert int((part == 0).sum()) == free
    biases = net.unflatten(seen[-1][1]["owner"])
    assert bool((biases["0.bias"] == 1).all()) and biases["6.bias"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_packnet_retrains_what_it_kept(scenario: Scenario) -> None:
    """Right after pruning, then at the end: the kept weights have moved on, the freed ones have not."""
    first, seen = spy(PackNet(prune=0.5, train=0.5))
    run(scenario.first(1), first, net=small(scenario), **QUICK)
    last, seen_last = spy(PackNet(prune=0.5, train=1.0))
    run(scenario.first(1), last, net=small(scenario), **QUICK)
    (a, state_a), (b, state_b) = seen[0], seen_last[0]
    assert bool((a[state_a["layer"] >= 0] == 0).float().mean() == 0.5) and not torch.equal(state_a["owner"], state_b["owner"])
    assert float((a - b).abs().max()) > 1e-3


def test_smallest_by_hand() -> None:
    theta = torch.tensor([3.0, -1.0, 2.0, 0.5, -9.0, 8.0, 0.0])
    layer = torch.tensor([0, 0, 0, 0, 2, 2, -1])
    mine = torch.tensor([True, True, True, False, True, True, True])
    assert smallest(theta, mine, layer, 0.67).tolist() == [False, True, True, False, False, True, False]


# k winners take all -----------------------------------------------------------------------------------------------------


def test_winners() -> None:
    h = torch.tensor([[5.0, 1.0, 0.0, 3.0], [0.0, 0.0, 2.0, 0.0]])
    assert Winners(2)(h).tolist() == [[5.0, 0.0, 0.0, 3.0], [0.0, 0.0, 2.0, 0.0]]
    assert torch.equal(Winners(4)(h), h)


def test_kwta_leaves_k_units_and_touches_only_their_weights(scenario: Scenario) -> None:
    net = KWTA(k=5).extend(small(scenario, (32,)), scenario)
    theta, x = net.init(0), scenario[0].x[:1]
    hidden = torch.relu(x @ theta[: 32 * 64].view(32, 64).T + theta[32 * 64 : 32 * 65])[0]
    won = torch.zeros(32, dtype=torch.bool).index_fill(0, hidden.topk(5).indices, True)
    last, bias = (net.unflatten(theta)[name] for name in ("3.weight", "3.bias"))
    torch.testing.assert_close(net(theta, x)[0], last[:, won] @ hidden[won] + bias)
    gradient = torch.func.grad(lambda t: net.loss(t, scenario.batch(0, torch.tensor([0]))))(theta)
    parts = net.unflatten(gradient)
    assert bool((parts["0.weight"][~won] == 0).all()) and bool((parts["0.weight"][won].abs().sum(1) > 0).all())
    assert bool((parts["3.weight"][:, ~won] == 0).all())


@pytest.mark.parametrize("k", [32, 100])
def test_kwta_with_enough_winners_is_fine_tuning(scenario: Scenario, k: int) -> None:
    many = QUICK | {"net": small(scenario, (32, 32)), "dtype": torch.float64}
    plain, all_win = (run(scenario, m, **many) for m in (Finetune(), KWTA(k=k)))
    assert np.array_equal(plain.R, all_win.R, equal_nan=True) and torch.equal(plain.theta[0], all_win.theta[0])


# all --------------------------------------------------------------------------------------------------------------------

STACKED = [
    [XdG(drop=d) for d in (0.5, 0.8)],
    [HAT(c=c) for c in (0.1, 1.0)],
    [PackNet(prune=p) for p in (0.5, 0.8)],
    [KWTA(k=8)],
]


@pytest.mark.parametrize("methods", STACKED, ids=lambda m: m[0].label)
def test_stacked_equals_alone(scenario: Scenario, methods: list[Method]) -> None:
    quick = QUICK | {"steps": 12, "dtype": torch.float64, "net": small(scenario)}
    both = run(scenario.first(3), methods, [0, 3], **quick)
    for i, (m, seed) in enumerate([(m, s) for m in methods for s in (0, 3)]):
        alone = run(scenario.first(3), m, [seed], **quick)
        torch.testing.assert_close(both.theta[i], alone.theta[0], rtol=0, atol=1e-10)
        np.testing.assert_array_equal(both.R[i], alone.R[0])


@pytest.mark.parametrize("kind", ["domain", "class"])
@pytest.mark.parametrize("method", [XdG(), HAT(), PackNet()], ids=repr)
def test_needs_the_task_at_test_time(digits: Data, method: Method, kind: str) -> None:
    with pytest.raises(ValueError, match=f'must be told the task at test time: it needs kind="task", got kind="{kind}"'):
        run(split(digits, 5, kind=kind), method, steps=1, progress=False)


def test_bad_input(scenario: Scenario) -> None:
    bare = Net(lambda: nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)))
    for method in (XdG(), HAT(), KWTA()):
        with pytest.raises(ValueError, match="this network has no Gate behind a layer"):
            run(scenario, method, net=bare, steps=1, progress=False)
    with pytest.raises(ValueError, match="HAT needs a fully connected network"):
        run(scenario, HAT(), net=cnn((1, 8, 8), 10), steps=1, progress=False)
    for make, words in (
        (lambda: XdG(drop=1.0), "XdG.drop must be less than 1, got 1.0"),
        (lambda: HAT(s_max=0.5), "HAT.s_max must be greater than or equal to 1, got 0.5"),
        (lambda: HAT(c=-1.0), "HAT.c must be greater than or equal to 0, got -1.0"),
        (lambda: PackNet(prune=1.5), "PackNet.prune must be less than or equal to 1, got 1.5"),
        (lambda: KWTA(k=0), "KWTA.k must be greater than or equal to 1, got 0"),
        (lambda: XdG(drop=math.nan), "XdG.drop must be .*, got nan"),
    ):
        with refused(words):
            make()
