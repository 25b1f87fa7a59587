"""What keeps a network able to learn: small weights, fresh weights, fresh units."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import clouds, net_for, refused, train
from torch import Tensor, nn
from torch.func import grad

import clbook
from clbook import Net, Scenario
from clbook.data import load
from clbook.lab import plasticity, stiffness
from clbook.lab.experiments import reproduce, stored
from clbook.lab.report import Report
from clbook.lab.search import SEEDS
from clbook.methods import EWC, MAS, ContinualBackprop, Finetune, ShrinkPerturb, WeightDecay
from clbook.methods.plastic import fresh, hidden, utilities

D = torch.float64
ROOT = Path(__file__).resolve().parents[1]


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


# strong springs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def springs(tmp_path_factory: pytest.TempPathFactory) -> tuple[stiffness.Stiff, Report]:
    sizes = replace(stiffness.STIFFNESS.sizes["quick"], tasks=3, n_train=240, gammas=(0.5, 1.0), lam=0.7, lam_mas=0.2)
    sizes = replace(sizes, searched=True)
    out = tmp_path_factory.mktemp("springs")
    return sizes, reproduce("plasticity-springs", "quick", out, sizes=sizes, progress=False, quiet=True)


def by_hand(sizes: stiffness.Stiff, method: clbook.Method, **how: Any) -> clbook.Result:
    data = load("digits").subset(sizes.n_train, sizes.n_test)
    net = clbook.mlp(data.x.shape[1], data.n_classes, sizes.hidden)
    how = {"net": net, "progress": False, "epochs": 1, "batch_size": 16, "lr": sizes.lr, "optimizer": "sgd"} | how
    return clbook.run(clbook.permuted(data, sizes.tasks, first_identity=False), method, sizes.seeds, **how)


def test_each_spring_is_trained_with_its_own_strength_and_fading(springs: tuple[stiffness.Stiff, Report]) -> None:
    sizes, report = springs
    online = {"carry": "online", "lam": 0.7, "n_samples": 200}
    expected = {
        "EWC, λ = 0.7": EWC(lam=0.7, n_samples=200),
        "online EWC, λ = 0.7, γ = 0.5": EWC(gamma=0.5, **online),
        "online EWC, λ = 0.7, γ = 1": EWC(gamma=1.0, **online),
        "MAS, λ = 0.2": MAS(lam=0.2, n_samples=200),
    }
    assert {k.removeprefix("new/") for k in report.arrays if k.startswith("new/")} == {*expected, stiffness.FRESH}
    for label, method in expected.items():
        one = by_hand(sizes, method)
        new = report.arrays[f"new/{label}"]
        assert new == pytest.approx(100 * np.diagonal(one.R, axis1=1, axis2=2), abs=1e-3), label
        assert report.arrays[f"end/{label}"] == pytest.approx(100 * one.R[:, -1], abs=1e-3)
        assert report.ours[f"{label}: late"] == pytest.approx(new[:, -1], abs=1e-3)
        assert report.ours[f"{label}: lost"] == pytest.approx(new[:, 1] - new[:, -1], abs=1e-3)
        assert report.ours[f"{label}: kept"] == pytest.approx(report.arrays[f"end/{label}"].mean(1), abs=1e-3)
        sizes_of_weights = [float(theta.square().mean().sqrt()) for theta in one.theta]
        assert report.arrays[f"condition/{label}"][:, 1] == pytest.approx(sizes_of_weights)
    assert len({report.arrays[f"condition/{label}"].tobytes() for label in expected}) == len(expected), "each is another one"


def test_the_fresh_network_begins_anew_with_its_optimiser_at_the_best_rate(springs: tuple[stiffness.Stiff, Report]) -> None:
    sizes, report = springs
    rates, fresh_each = report.arrays[f"search/{stiffness.FRESH}: lr"], ShrinkPerturb(keep=0.0, perturb=1.0)
    best = rates[rates[:, 1] == rates[:, 1].max(), 0]  # two may be alike on so few held-out images
    assert len(best) < len(rates)
    found = [by_hand(sizes, fresh_each, optimizer="adam", lr=lr).R[:, -1].mean(-1).tolist() for lr in best]
    assert any(report.ours[f"{stiffness.FRESH}: kept"] == pytest.approx(100 * np.array(v)) for v in found)
    going_on = by_hand(sizes, fresh_each, optimizer="adam", lr=best[0], keep_optimizer=True).R[:, -1].mean(-1).tolist()
    assert going_on not in found, "what Adam has kept of the tasks before would matter"


def test_the_springs_have_the_stream_and_the_searched_rate_of_plain_training() -> None:
    chosen = stored("plasticity").arrays["search/SGD: lr"]
    book = stiffness.STIFFNESS.sizes["book"]
    assert book.lr == chosen[chosen[:, 1].argmax(), 0]
    first = plasticity.PLASTICITY.sizes["book"]
    shared = ("seeds", "tasks", "n_train", "n_test", "hidden", "epochs", "batch_size", "optimizer", "data")
    assert [getattr(book, k) for k in shared] == [getattr(first, k) for k in shared]


def test_the_pages_quote_what_strong_springs_did() -> None:
    said = (ROOT / "book" / "quizzes" / "plasticity.yml").read_text(encoding="utf-8")
    page = (ROOT / "book" / "families" / "regularisation.md").read_text(encoding="utf-8")
    weak, strong = stored("plasticity"), stored("plasticity-springs")
    ewc, online, aged = "EWC, λ = 10", "online EWC, λ = 10, γ = 0.9", "online EWC, λ = 10, γ = 1"
    fifths = strong.arrays[f"new/{ewc}"].reshape(5, 5, -1).mean((0, 2))
    both = [f"{fifths[0]:.0f} %", f"{fifths[-1]:.0f} %", f"{weak.arrays['kept/SGD'].mean():.1f} %"]
    both += [f"{strong.ours[key].mean():.1f} %" for key in (f"{online}: late", f"{online}: kept", f"{ewc}: kept")]
    assert [v for v in both if v not in said or v not in page] == []
    more = [f"{strong.ours[key].mean():.1f} %" for key in (f"{ewc}: late", f"{aged}: late", f"{aged}: kept")]
    more += [f"{strong.arrays[f'end/{online}'][:, -10:].mean():.0f} %"]
    lost = [strong.ours[f"{label}: lost"] for label in (ewc, online, aged)]
    lost += [weak.ours["EWC: late"] - weak.ours["SGD: late"]]
    more += ["{:.1f} ± {:.1f}".format(*clbook.metrics.interval(values)) for values in lost]
    assert [v for v in more if v not in said] == []
    assert f"plain SGD stood at {weak.ours['SGD: late'].mean():.0f} %" in page
