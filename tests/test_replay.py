"""Buffers and replay: uniform draws, weights by hand, nothing kept = fine-tuning, everything kept = near joint training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from small import refused
from torch import Tensor

from clbook import Data, Net, load, metrics, mlp, reconstruct, run, split
from clbook.likelihood import masked
from clbook.method import Method
from clbook.methods import AGEM, CLSER, ER, GEM, DERpp, FastWeights, Finetune, Joint
from clbook.methods.replay import balanced, reservoir
from clbook.scenarios import Scenario

QUICK = {"progress": False, "batch_size": 32, "steps": 12, "dtype": torch.float64}
KINDS = ("task", "domain", "class")


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def small(scenario: Scenario, hidden: tuple[int, ...] = (16,)) -> Net:
    return mlp(scenario.data.x.shape[1], scenario.n_outputs, hidden)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# which samples are kept -------------------------------------------------------------------------------------------------


def chi_square(size: int, sizes: list[int], draws: int) -> tuple[float, int]:
    """Pearson's statistic of how often each item of a stream of tasks is kept, and its degrees of freedom."""
    generator, total = rng(1), sum(sizes)
    starts, counts = np.cumsum([0, *sizes]), np.zeros(total)
    for _ in range(draws):
        kept, seen = torch.zeros((0, 2), dtype=torch.int64), 0
        for task, n in enumerate(sizes):
            new = torch.stack([torch.full((n,), task), torch.arange(n)], 1)
            kept, seen = reservoir(kept, new, seen, size, generator), seen + n
        counts[starts[kept[:, 0]] + kept[:, 1].numpy()] += 1
    share = size / total
    assert counts.sum() == size * draws, "an item was kept twice, or a place stayed empty"
    # drawn without replacement: the variance of a count is draws p (1 - p), and the counts add up to a constant
    return float(((counts - draws * share) ** 2).sum() / (draws * share * (1 - share)) * (total - 1) / total), total - 1


def test_reservoir_is_uniform() -> None:
    statistic, freedom = chi_square(size=12, sizes=[30, 10, 40], draws=1500)
    assert 1e-3 < chi2.sf(statistic, freedom) < 1 - 1e-3


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_reservoir_holds_distinct_items_of_the_stream(sizes: list[int], size: int) -> None:
    kept, seen = torch.zeros((0, 2), dtype=torch.int64), 0
    for task, n in enumerate(sizes):
        new = torch.stack([torch.full((n,), task), torch.arange(n)], 1)
        before, kept, seen = kept, reservoir(kept, new, seen, size, rng(n)), seen + n
        assert len(kept) == min(size, seen) == len({tuple(item) for item in kept.tolist()})
        old = kept[: len(before)][:, 0] < task
        assert torch.equal(kept[: len(before)][old], before[old]), "an old item changed its place"
        assert all(row < sizes[t] for t, row in kept.tolist())


def test_balanced_takes_the_same_from_every_class() -> None:
    y = torch.tensor([3] * 50 + [1] * 7 + [8] * 2)
    rows = balanced(y, 5, rng())
    assert len(set(rows.tolist())) == 12 and torch.bincount(y[rows])[[1, 3, 8]].tolist() == [5, 5, 2]
    assert not torch.equal(rows, balanced(y, 5, rng(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_replayed_samples_have_the_mask_of_now(digits: Data, kind: str) -> None:
    """Class-incremental: all classes seen so far; task-incremental: the sample's own; domain-incremental: all."""
    scenario, method = split(digits, 5, kind=kind), ER(size=4)
    theta, net = torch.zeros(1), small(scenario)
    state = method.start(net, theta)
    for k in range(3):
        state = method.after_task(net, theta, state, scenario[k], rng(k))
    replayed = method.prepare(state, scenario, 3, scenario.batch(3, torch.arange(64)), rng()).old
    old, own = replayed.task, [scenario.mask[k, k] for k in range(3)]
    assert set(old.tolist()) == {0, 1, 2} and len(old) == 64
    for k in range(3):
        expected = {"task": own[k], "class": torch.arange(10) < 8, "domain": torch.ones(2, dtype=torch.bool)}[kind]
        assert bool((replayed.mask[old == k] == expected).all())
        assert torch.equal(replayed.x[old == k], scenario[k].x[replayed.row[old == k]])
        assert torch.equal(replayed.y[old == k], scenario[k].y[replayed.row[old == k]])


def test_memory_is_one_byte_a_pixel_and_one_a_label(digits: Data) -> None:
    scenario, quick = split(digits, 5, kind="class"), {**QUICK, "steps": 1}
    assert run(scenario, ER(size=3), net=small(scenario), **quick).memory_bytes[0] == 10 * 3 * (64 + 1)
    assert run(scenario, DERpp(size=30), net=small(scenario), **quick).memory_bytes[0] == 30 * (64 + 1 + 8 * 10)
    assert run(scenario, Finetune(), net=small(scenario), **quick).memory_bytes[0] == 0


# what the loss is -------------------------------------------------------------------------------------------------------


def replay_batch(scenario: Scenario, k: int) -> tuple:
    """A batch of task k with old samples of task 0 beside it."""
    rows = torch.arange(8)
    old = scenario.batch(torch.zeros_like(rows), rows + 5, k)
    return scenario.batch(k, rows)._replace(old=old), old


def cross_entropy(net: Net, theta: Tensor, x: Tensor, y: Tensor, mask: Tensor) -> float:
    p = masked(net(theta, x), mask).softmax(-1)
    return -float(p[torch.arange(len(y)), y].log().mean())


@pytest.mark.parametrize("lam", [0.0, 1.0, 2.5])
def test_er_gives_every_task_the_same_weight(digits: Data, lam: float) -> None:
    scenario = split(digits, 5, kind="class")
    net = small(scenario)
    theta, (batch, old) = net.init(0), replay_batch(scenario, 3)
    new = cross_entropy(net, theta, batch.x, batch.y, batch.mask)
    past = cross_entropy(net, theta, old.x, old.y, old.mask)
    assert float(ER(lam=lam).loss(net, theta, {}, batch)) == pytest.approx((new + lam * 3 * past) / (1 + lam * 3), rel=1e-5)
    if lam == 1:
        assert float(ER(lam=lam).loss(net, theta, {}, batch)) == pytest.approx(new / 4 + past * 3 / 4, rel=1e-5)


def test_derpp_loss_by_hand(digits: Data) -> None:
    scenario = split(digits, 5, kind="class")
    net = small(scenario)
    theta, (batch, old) = net.init(0), replay_batch(scenario, 2)
    z = net(net.init(1), old.x)
    batch = batch._replace(old=old._replace(drawn={"z": z}))
    new = cross_entropy(net, theta, batch.x, batch.y, batch.mask)
    past = cross_entropy(net, theta, old.x, old.y, old.mask)
    gap = float((net(theta, old.x) - z).square().sum(1).mean()) / 10
    found = float(DERpp(alpha=0.3, beta=0.7).loss(net, theta, {}, batch))
    assert found == pytest.approx(new + 0.3 * gap + 0.7 * past, rel=1e-5)


@pytest.mark.parametrize("buffer", ["balanced", "reservoir"])
def test_derpp_keeps_each_sample_with_the_outputs_of_its_own_time(digits: Data, buffer: str) -> None:
    scenario, method = split(digits, 5, kind="class"), DERpp(size=40, buffer=buffer)
    net = small(scenario)
    thetas = [net.init(k) for k in range(3)]
    state = method.start(net, thetas[0])
    for k, theta in enumerate(thetas):
        state = method.after_task(net, theta, state, scenario[k], rng(k))
    kept, outputs = state["kept"], state["outputs"]
    assert set(kept[:, 0].tolist()) == {0, 1, 2}
    for (k, row), z in zip(kept.tolist(), outputs, strict=True):
        torch.testing.assert_close(z, net(thetas[k], scenario[k].x[row][None])[0])


# bounds -----------------------------------------------------------------------------------------------------------------

SAME_AS_FINETUNE = [
    ER(lam=0.0), ER(size=0), DERpp(size=0), DERpp(alpha=0.0, beta=0.0), AGEM(size=0), GEM(size=0),
    CLSER(size=0, fast=0.0, slow=0.0), FastWeights(size=0, decay=1.0), FastWeights(size=0, rho=1.0),
]  # fmt: skip


@pytest.mark.parametrize("method", SAME_AS_FINETUNE, ids=repr)
def test_without_a_memory_it_is_fine_tuning(digits: Data, method: Method) -> None:
    scenario = split(digits, 5, kind="task")
    plain = run(scenario, Finetune(), 2, net=small(scenario), **QUICK)
    other = run(scenario, method, 2, net=small(scenario), **QUICK)
    assert np.array_equal(plain.R, other.R, equal_nan=True)
    for a, b in zip(plain.theta, other.theta, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_a_buffer_of_everything_comes_near_joint_training(digits: Data) -> None:
    scenario = split(digits, 5, kind="class")
    many = {"net": small(scenario, (64,)), "steps": 60, "batch_size": 32, "lr": 5e-3, "progress": False}
    accuracy = {m.label: run(scenario, m, **many).R[:, -1].mean() for m in (Joint(), ER(size=10**6), Finetune())}
    assert abs(accuracy["ER"] - accuracy["Joint"]) < 0.05 < 0.5 < accuracy["ER"] - accuracy["Finetune"]


def test_a_larger_buffer_forgets_less(digits: Data) -> None:
    scenario = split(digits, 5, kind="class")
    many = {"net": small(scenario, (64,)), "steps": 50, "batch_size": 32, "lr": 5e-3, "progress": False}
    none, few, more = (run(scenario, ER(size=size), **many).R[:, -1].mean() for size in (0, 2, 40))
    assert none + 0.25 < few and few + 0.05 < more


STACKED = [
    [ER(size=3, lam=lam) for lam in (0.5, 2.0)],
    [ER(size=30, buffer="reservoir", lam=lam) for lam in (0.5, 2.0)],
    [DERpp(size=30, alpha=a, beta=0.2) for a in (0.0, 1.0)],
]


@pytest.mark.parametrize("methods", STACKED, ids=lambda m: repr(m[0]))
def test_stacked_equals_alone(digits: Data, methods: list[Method]) -> None:
    scenario = split(digits, 5, kind="class")
    both = run(scenario, methods, [0, 3], net=small(scenario), **QUICK)
    for i, (m, seed) in enumerate([(m, s) for m in methods for s in (0, 3)]):
        alone = run(scenario, m, [seed], net=small(scenario), **QUICK)
        torch.testing.assert_close(both.theta[i], alone.theta[0], rtol=0, atol=1e-10)
        np.testing.assert_array_equal(both.R[i], alone.R[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ER(size=-1), r"ER\.size must be greater than or equal to 0, got -1"),
        (lambda: ER(size=2.5), r"ER\.size must be .*, got 2\.5"),
        (lambda: ER(buffer="ring"), r"ER\.buffer must be 'balanced' or 'reservoir', got 'ring'"),
        (lambda: ER(lam=-1), r"ER\.lam must be greater than or equal to 0, got -1"),
        (lambda: DERpp(alpha=float("nan")), r"DERpp\.alpha must be .*, got nan"),
        (lambda: DERpp(alpha=-3), r"DERpp\.alpha must be .*, got -3"),
    ],
)
def test_bad_input(make, words: str) -> None:
    with refused(words):
        make()


NO_LABELS = [
    ER(size=40), ER(size=80, buffer="reservoir"), DERpp(size=80), GEM(size=40), CLSER(size=40, fast=0.9, slow=0.95),
]  # fmt: skip


@pytest.mark.parametrize("method", NO_LABELS, ids=repr)
def test_without_labels(digits: Data, method: Method) -> None:
    """Reconstruction: the buffer keeps an autoencoder from forgetting how the first classes look."""
    base = split(digits, 5, kind="domain").first(2)
    scenario = reconstruct(replace(base, data=replace(digits, y=None, y_test=None)))
    many = {"net": mlp(64, 64, (32,)), "steps": 100, "batch_size": 32, "lr": 3e-3, "progress": False}
    kept, plain = run(scenario, method, **many), run(scenario, Finetune(), **many)
    assert metrics.forgetting(kept.R)[0] < 0.6 * metrics.forgetting(plain.R)[0]

