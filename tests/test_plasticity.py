"""What keeps a network able to learn: small weights, fresh weights, fresh units."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import clouds, net_for, refused, train
from torch import Tensor, nn
from torch.func import grad

import clbook
from clbook import Net, Scenario
from clbook.data import load
from clbook.lab import plasticity
from clbook.lab.experiments import reproduce
from clbook.lab.search import SEEDS
from clbook.methods import ContinualBackprop, Finetune, ShrinkPerturb, WeightDecay
from clbook.methods.plastic import fresh, hidden, utilities

D = torch.float64


def stream(tasks: int = 3) -> Scenario:
    return clbook.permuted(clouds(classes=4), tasks)


def network() -> Net:
    return net_for(stream(), (5, 7))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_weight_decay_pulls_every_parameter_to_zero() -> None:
    net, batch = network(), stream().to("cpu", D).batch(0, torch.arange(8))
    theta = net.init(0).to(D)
    plain = grad(lambda t: net.loss(t, batch))(theta)
    torch.testing.assert_close(WeightDecay(decay=0.3).direction(net, theta, {}, batch), plain + 0.3 * theta)


@pytest.mark.parametrize("method", [WeightDecay(decay=0.0), ShrinkPerturb(keep=1.0, perturb=0.0), ContinualBackprop(share=0.0)])
def test_at_strength_zero_each_is_fine_tuning(method: clbook.Method) -> None:
    plain, mine = (train(stream(), m, [2], net=network()) for m in (Finetune(), method))
    assert torch.equal(plain.theta[0], mine.theta[0])


def test_shrink_and_perturb_is_a_weighted_sum_with_a_fresh_network() -> None:
    net, task = network(), stream()[1]
    theta = net.init(0).to(D)
    moved, _ = ShrinkPerturb(keep=0.7, perturb=0.4).before_task(net, theta, {}, task, rng(5))
    torch.testing.assert_close(moved, 0.7 * theta + 0.4 * fresh(net, theta, rng(5)))
    assert torch.equal(ShrinkPerturb().before_task(net, theta, {}, stream()[0], rng())[0], theta), "not before the first"


def test_a_fresh_network_is_drawn_even_where_the_network_is_pretrained() -> None:
    net = network()
    theta = net.init(3)
    drawn = fresh(net.pretrained(theta), theta, rng())
    assert not torch.equal(drawn, theta) and torch.equal(drawn, fresh(net, theta, rng()))


def test_the_utility_of_a_unit_by_hand() -> None:
    """One hidden layer of two units: mean |h| is (0.5, 3) for these inputs, and the outgoing weights sum to (4, 1)."""
    net = clbook.mlp(1, 2, (2,))
    theta = torch.cat([torch.tensor(v) for v in ([1.0, -3.0], [0.0, 3.0], [3.0, 0.5, -1.0, -0.5], [0.0, 0.0])])
    found = utilities(net, theta, torch.tensor([[1.0], [-1.0]]))  # h: (1, 0) and (0, 6)
    assert [u.tolist() for u in found] == [[0.5 * 4, 3 * 1]]


def test_what_hidden_units_say_is_what_the_network_computes() -> None:
    net, x = network(), stream()[0].x
    theta = net.init(1)
    said, module = [], net.factory()
    nn.utils.vector_to_parameters(theta, module.parameters())
    for layer in module:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda m, args, out: said.append(out))
    module(x)
    for mine, theirs in zip(hidden(net, theta, x), said, strict=True):
        torch.testing.assert_close(mine, theirs)


def reborn(share: float) -> tuple[Net, Tensor, Tensor, dict[str, Tensor]]:
    """The network, theta before and after the units of least use were drawn anew, and the state."""
    net, tasks, method = network(), stream(), ContinualBackprop(share=share)
    theta = net.init(0)
    state = method.after_task(net, theta, {}, tasks[0], rng())
    return net, theta, method.before_task(net, theta, state, tasks[1], rng(1))[0], state


def test_the_units_of_least_use_and_no_others_are_drawn_anew() -> None:
    net, before, after, state = reborn(0.4)  # two of five, three of seven
    old, new, drawn = (net.unflatten(t) for t in (before, after, fresh(net, before, rng(1))))
    least = [set(use.argsort()[: round(0.4 * len(use))].tolist()) for use in state["utility"].split([5, 7])]
    for name, following, units, heirs in zip(("0", "3"), ("3", "6"), least, [least[1], set()], strict=True):
        for unit in range(len(new[f"{name}.bias"])):
            assert new[f"{name}.bias"][unit] == (drawn if unit in units else old)[f"{name}.bias"][unit]
            column = new[f"{following}.weight"][:, unit]
            others = [i for i in range(len(column)) if i not in heirs]  # a new unit may listen to another new one
            assert bool((column[others] == 0).all()) == (unit in units)
    assert torch.equal(new["6.bias"], old["6.bias"])


def test_a_unit_that_nobody_hears_can_be_drawn_anew_without_a_trace() -> None:
    net, tasks = network(), stream()
    part = {k: v.clone() for k, v in net.unflatten(net.init(0)).items()}
    part["6.weight"][:, 2] = 0  # the outputs do not hear unit 2 of the last hidden layer
    theta = net.flatten(part)
    method = ContinualBackprop(share=1 / 7)  # one of seven; of five units a seventh is one, too
    state = method.after_task(net, theta, {}, tasks[0], rng())
    state = {"utility": torch.cat([torch.full((5,), 9.0), state["utility"][5:]])}
    moved, _ = ContinualBackprop(share=0.08).before_task(net, theta, state, tasks[1], rng(1))  # 0 of 5 and 1 of 7
    assert not torch.equal(moved, theta)
    torch.testing.assert_close(net(moved, tasks[0].x), net(theta, tasks[0].x))


def test_stacked_runs_are_what_each_is_alone() -> None:
    methods = [ShrinkPerturb(keep=k, perturb=0.3) for k in (0.5, 0.9)]
    stacked = train(stream(), methods, [0, 1], net=network())
    alone = [train(stream(), m, [s], net=network()) for m in methods for s in (0, 1)]
    assert np.allclose([t.numpy() for t in stacked.theta], [r.theta[0].numpy() for r in alone])


def test_continual_backprop_needs_a_chain() -> None:
    with refused("ContinualBackprop needs a chain of Linear layers"):
        train(stream(), ContinualBackprop(), net=Net(lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))))


# the experiment ---------------------------------------------------------------------------------------------------------


def test_the_condition_of_a_network_by_hand() -> None:
    """Three hidden units that copy three inputs, and one that is always 0: unit inputs span three equal directions."""
    net = clbook.mlp(3, 2, (4,))
    rows = torch.cat([torch.eye(3), -torch.ones(1, 3)])
    theta = torch.cat([rows.flatten(), torch.zeros(4), torch.zeros(10)])
    dead, size, rank = plasticity.condition(net, theta, torch.eye(3))
    assert (dead, rank) == pytest.approx((25.0, 3.0)) and size == pytest.approx((6 / 26) ** 0.5)
    flat = torch.tensor([[1.0, 0.0, 0.0]]).repeat(5, 1)  # one direction alone
    assert plasticity.condition(net, theta, flat)[2] == pytest.approx(1.0)


def test_means_over_tasks_that_follow_each_other() -> None:
    assert plasticity.smooth(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [2.0, 4.0, 6.0]


def test_what_is_searched_is_what_learns_the_last_tasks_best_at_the_rate_of_plain_training(tmp_path: Path) -> None:
    sizes = replace(plasticity.PLASTICITY.sizes["quick"], tasks=5, n_train=200, searched=True)
    sizes = replace(sizes, remedies=("SGD", "weight decay"))
    report = reproduce("plasticity", "quick", tmp_path, sizes=sizes, progress=False, quiet=True)
    rates, decays = report.arrays["search/SGD: lr"], report.arrays["search/weight decay: decay"]
    assert len(rates) >= 3 and len(decays) >= 3
    new = report.arrays["new/SGD"]
    assert new.shape == (2, 5)
    assert report.ours["SGD: late"] == pytest.approx(new[:, -1], abs=1e-4)
    assert report.ours["SGD: lost"] == pytest.approx(new[:, 1] - new[:, -1], abs=1e-4)
    assert report.arrays["condition/SGD"][:, 0].tolist() == [3.0]

    data = load("digits").subset(200, sizes.n_test)
    held = clbook.permuted(data, 5, first_identity=False).held_out(0.1)  # one trial of each, by hand
    for table, remedy, values in ((rates, "SGD", {}), (decays, "weight decay", {"decay": decays[0, 0]})):
        lr = rates[0, 0] if remedy == "SGD" else max(rates, key=lambda row: row[1])[0]
        method, how = plasticity.REMEDIES[remedy].method, {"keep_optimizer": True, "optimizer": "sgd", "lr": lr}
        net = clbook.mlp(held.data.x.shape[1], held.data.n_classes, sizes.hidden)
        one = clbook.run(held, replace(method, **values), [SEEDS[0]], net=net, progress=False, epochs=1, batch_size=16, **how)
        if table[0, 2] == 1:
            assert plasticity.late(one) == pytest.approx(table[0, 1])


def test_a_run_that_diverged_learns_nothing() -> None:
    result = train(stream(5), Finetune(), [0])
    broken = replace(result, R=np.full_like(result.R, np.nan))
    assert plasticity.late(broken).tolist() == [0.0]
