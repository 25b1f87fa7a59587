"""Which samples a step sees, and that no random number of a run depends on anything but its seed and its purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from catalogue import stream
from hypothesis import given, settings
from hypothesis import strategies as st
from small import clouds, drawn, net_for, train
from test_runs import same

from clbook import Method, Scenario, split
from clbook.methods import ER, EWC, L2, Cumulative, Finetune, Joint
from clbook.sampling import generator, order
from clbook.scenarios import Batch


def watched(method: Method) -> tuple[Method, list[tuple[int, Batch]]]:
    """The same method, and a list that fills with (task in training, batch) at every step of every run."""
    seen: list[tuple[int, Batch]] = []

    class Watched(type(method)):  # type: ignore[misc]
        label = method.label

        def prepare(self, state: Any, scenario: Scenario, k: int, batch: Batch, rng: torch.Generator) -> Batch:
            seen.append((k, super().prepare(state, scenario, k, batch, rng)))
            return seen[-1][1]

    return Watched(**vars(method)), seen


# the order of the samples ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), steps=st.integers(1, 12), size=st.integers(1, 50), seed=st.integers(0, 999))
def test_the_order_is_whole_passes_over_all_samples(n: int, steps: int, size: int, seed: int) -> None:
    index = order(n, steps, size, torch.Generator().manual_seed(seed))
    assert index.shape == (steps, size)
    flat = index.flatten()
    for i in range(0, len(flat), n):
        one = flat[i : i + n].tolist()
        assert len(set(one)) == len(one) and set(one) <= set(range(n))  # a pass shows no sample twice
    counts = flat.bincount(minlength=n)
    assert counts.max() - counts.min() <= 1


def test_another_pass_has_another_order() -> None:
    passes = order(16, 6, 8, torch.Generator().manual_seed(3)).view(3, 16)
    assert passes.sort(1).values.tolist() == [list(range(16))] * 3 and len({tuple(p.tolist()) for p in passes}) == 3


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
@pytest.mark.parametrize("make", [Finetune, Cumulative, Joint])
def test_batches_come_from_the_right_tasks_with_the_right_masks(make: type[Method], kind: str) -> None:
    s = split(clouds(n=48, classes=6), 3, kind=kind)
    drawn_rows = {k: torch.zeros(3, 16, dtype=torch.int64) for k in range(3)}
    method, seen = watched(make())
    train(s, method, steps=8, batch_size=16)
    assert len(seen) == 24
    for k, batch in seen:
        newest = {Finetune: k, Cumulative: k, Joint: 2}[make]  # the newest task whose data are at hand
        for x, y, mask, task, row in zip(batch.x, batch.y, batch.mask, batch.task, batch.row, strict=True):
            one = s[int(task)]
            torch.testing.assert_close(x.float(), one.x[row])
            assert y == one.y[row] and torch.equal(mask, s.mask[newest, task]) and mask[y]
            drawn_rows[k][task, row] += 1
    allowed = {Finetune: lambda k: {k}, Cumulative: lambda k: set(range(k + 1)), Joint: lambda k: {0, 1, 2}}[make]
    for k in range(3):
        assert set(drawn_rows[k].sum(1).nonzero().flatten().tolist()) == allowed(k)
        times = drawn_rows[k][sorted(allowed(k))]  # 128 draws in whole passes: every sample equally often, up to one
        assert times.max() - times.min() <= 1 and times.sum() == 128


def test_joint_training_in_the_class_scenario_sees_all_outputs_from_the_start() -> None:
    method, seen = watched(Joint())
    train(stream(), method)
    assert len(seen) == 36 and all(batch.mask.all() for _, batch in seen)


# four sources of randomness ----------------------------------------------------------------------------------------------


def test_a_generator_depends_on_its_seed_its_purpose_and_its_task() -> None:
    names = [
        (seed, purpose, task) for seed in (0, 1, -1, 7, 2**40) for purpose in ("order", "dropout", "method") for task in (0, 1)
    ]
    first = {name: tuple(torch.rand(4, generator=generator(*name)).tolist()) for name in names}
    assert len(set(first.values())) == len(names)
    assert all(tuple(torch.rand(4, generator=generator(*name)).tolist()) == values for name, values in first.items())
    assert not any(
        tuple(torch.rand(4, generator=torch.Generator().manual_seed(seed)).tolist()) in first.values() for seed in (0, 1, 7)
    )


def test_the_order_of_the_data_does_not_come_from_the_generator_that_drew_theta() -> None:
    """One generator for both, and a network's start would say which samples it sees first."""
    for seed in range(5):
        plain = order(16, 12, 8, torch.Generator().manual_seed(seed))
        method, seen = watched(Finetune())
        train(stream().first(1), method, [seed])
        rows = torch.stack([batch.row for _, batch in seen])
        assert torch.equal(rows, drawn(16, 12, 8, seed, task=0)) and not torch.equal(rows[0], plain[0])


def test_methods_that_draw_see_the_same_batches_and_the_same_dropout() -> None:
    s = stream()
    net = net_for(s, (20,), dropout=(0.2, 0.5))
    found = []
    for method in (Finetune(), EWC(lam=1.0, estimator="sampled", n_samples=5), ER(size=2), L2(lam=1.0)):
        one, seen = watched(method)
        train(s, one, [4], net=net)
        found.append(seen)
    for other in found[1:]:
        for (k, a), (j, b) in zip(found[0], other, strict=True):
            assert k == j and torch.equal(a.row, b.row) and torch.equal(a.x, b.x) and a.gates.keys() == b.gates.keys()
            assert all(torch.equal(a.gates[name], b.gates[name]) for name in a.gates)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("method", [EWC(lam=0.0, estimator="sampled"), ER(lam=0.0), ER(size=0)], ids=repr)
def test_without_strength_a_method_that_draws_is_fine_tuning_to_the_bit(method: Method, optimizer: str) -> None:
    """With dropout on the input and the hidden layer, since there every step draws."""
    s = stream()
    net = net_for(s, (20,), dropout=(0.2, 0.5))
    plain, drawing = (train(s, m, 2, net=net, optimizer=optimizer, lr=0.05) for m in (Finetune(), method))
    assert all(torch.equal(a, b) for a, b in zip(plain.theta, drawing.theta, strict=True))
    assert np.array_equal(plain.R, drawing.R, equal_nan=True)


def test_runs_depend_on_their_seed_alone() -> None:
    s, method = stream(), EWC(lam=1.0, estimator="sampled")
    a = train(s, method, [7, 3], chunk=2)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    state = torch.get_rng_state()
    b = train(s, method, [3])
    assert torch.equal(torch.get_rng_state(), state)
    same(b, train(s, method, [3]))
    torch.testing.assert_close(a.theta[1], b.theta[0], rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(a.R[1], b.R[0], atol=1e-9)


def test_a_task_is_drawn_alike_whatever_came_before_it() -> None:
    """The order of task k does not hang on how many steps the tasks before it took."""
    seen = {}
    for steps in (3, 7):
        method, found = watched(Finetune())
        train(stream(), method, steps=steps)
        seen[steps] = [batch.row for k, batch in found if k == 2]
    assert all(torch.equal(a, b) for a, b in zip(seen[3], seen[7], strict=False))


# dropout -----------------------------------------------------------------------------------------------------------------


def test_dropout_is_drawn_for_each_run_and_step_and_is_off_in_tests() -> None:
    s = stream()
    net, dry = net_for(s, (40,), dropout=(0.2, 0.5)), net_for(s, (40,))
    method, seen = watched(Finetune())
    result = train(s, method, 2, net=net, steps=10, lr=0.05, chunk=2)
    assert len(seen) == 60  # two runs of three tasks, one after the other in every step
    rates = [torch.stack([b.gates[name] for _, b in seen]).eq(0).double().mean() for name in net.gates]
    assert float(rates[0]) == pytest.approx(0.2, abs=0.03) and float(rates[1]) == pytest.approx(0.5, abs=0.02)
    for name in net.gates:
        first, second, later = (seen[i][1].gates[name] for i in (0, 1, 2))
        assert not torch.equal(first, second) and not torch.equal(first, later)  # other runs, other steps
    for r, theta in enumerate(result.theta):
        guess = dry(theta, s[0].x_test.double()).masked_fill(~s.mask[2, 0], -torch.inf).argmax(1)
        assert result.R[r, 2, 0] == pytest.approx(float((guess == s[0].y_test).double().mean()))


def test_a_network_without_dropout_is_trained_alike_whatever_its_gates() -> None:
    s = stream()
    same(train(s, Finetune(), net=net_for(s)), train(s, Finetune(), net=net_for(s, dropout=(0.0, 0.0))))
