"""Net: one vector in, the numbers of a plain nn.Module out."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import clouds, module_with
from torch import nn

from clbook import Net, cnn, mlp, split
from clbook.net import Gate, batch_loss, default_net, masked
from clbook.scenarios import Batch


def batch_of(x: torch.Tensor, y: list[int], mask: torch.Tensor, gates: dict | None = None) -> Batch:
    zero = torch.zeros(len(x), dtype=torch.int64)
    return Batch(x, torch.tensor(y), mask, zero, zero, gates or {}, {})


@settings(max_examples=20, deadline=None)
@given(hidden=st.lists(st.integers(1, 6), max_size=3), n_in=st.integers(1, 5), n_out=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_net_is_its_module(hidden: list[int], n_in: int, n_out: int, seed: int) -> None:
    net = mlp(n_in, n_out, hidden)
    theta, x = net.init(seed), torch.randn(7, n_in)
    sizes = [n_in, *hidden, n_out]
    assert net.n_params == len(theta) == sum((a + 1) * b for a, b in pairwise(sizes))
    h = x  # the same by hand
    parts = list(net.unflatten(theta).values())
    for w, b in zip(parts[::2], parts[1::2], strict=True):
        h = h @ w.T + b
        h = h if b is parts[-1] else h.relu()
    torch.testing.assert_close(net(theta, x), h)
    torch.testing.assert_close(net(theta, x), module_with(net, theta)(x))
    assert torch.equal(net.flatten(net.unflatten(theta)), theta)


def test_init_is_the_modules_own_and_leaves_the_global_generator_alone() -> None:
    net, before = mlp(4, 3, (5,)), torch.get_rng_state()
    theta = net.init(11)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(net.init(11), theta) and not torch.equal(net.init(12), theta)
    torch.manual_seed(11)
    plain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    assert torch.equal(nn.utils.parameters_to_vector(plain.parameters()), theta)


def test_cnn_is_its_module() -> None:
    net = cnn((2, 8, 12), 5, channels=(3, 4), hidden=6)
    plain = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4 * 2 * 3, 6), nn.ReLU(), nn.Linear(6, 5),
    )  # fmt: skip
    theta, x = net.init(0), torch.rand(3, 2 * 8 * 12)
    nn.utils.vector_to_parameters(theta, plain.parameters())
    torch.testing.assert_close(net(theta, x), plain(x.view(3, 2, 8, 12)))


def test_masked_loss_is_cross_entropy_over_the_outputs_that_count() -> None:
    net, x = mlp(3, 5, (4,)), torch.rand(2, 3)
    theta = net.init(0)
    mask = torch.tensor([[True, True, False, False, True], [False, True, True, False, False]])
    logits = net(theta, x)
    by_hand = [-logits[0, [0, 1, 4]].log_softmax(0)[2], -logits[1, [1, 2]].log_softmax(0)[0]]  # labels 4 and 1
    torch.testing.assert_close(net.loss(theta, batch_of(x, [4, 1], mask)), torch.stack(by_hand).mean())
    assert masked(logits, mask).softmax(-1)[~mask].eq(0).all()


def test_outputs_that_do_not_count_get_no_gradient() -> None:
    net, x = mlp(3, 4, ()), torch.rand(6, 3)
    theta = net.init(0).requires_grad_()
    mask = torch.tensor([True, False, True, False]).expand(6, 4)
    (g,) = torch.autograd.grad(net.loss(theta, batch_of(x, [0, 2, 0, 2, 0, 2], mask)), theta)
    w, b = net.unflatten(g).values()
    assert w[[1, 3]].eq(0).all() and b[[1, 3]].eq(0).all() and w[[0, 2]].ne(0).all()


def test_reconstruction_loss() -> None:
    net, x = mlp(3, 3, ()).with_loss("reconstruction"), torch.rand(4, 3)
    theta = net.init(0)
    batch = batch_of(x, [0] * 4, torch.ones(4, 1, dtype=torch.bool))
    assert float(net.loss(theta, batch)) == pytest.approx(float(((net(theta, x) - x) ** 2).mean()))
    assert float(batch_loss(x + 2, batch, "reconstruction")) == pytest.approx(4)
    with pytest.raises(ValueError, match="unknown loss 'hinge': choose one of classification, reconstruction"):
        net.with_loss("hinge")


# gates and dropout -----------------------------------------------------------------------------------------------------


def test_a_gate_multiplies_its_units() -> None:
    net, x = mlp(2, 3, (4,)), torch.rand(5, 2)
    theta, (name,) = net.init(0), net.gates
    w1, b1, w2, b2 = net.unflatten(theta).values()
    factor = torch.tensor([0.0, 1.0, 2.0, 0.5])
    wanted = ((x @ w1.T + b1).relu() * factor) @ w2.T + b2
    torch.testing.assert_close(net(theta, x, {name: factor}), wanted)
    torch.testing.assert_close(net(theta, x, {name: torch.ones(4)}), net(theta, x))
    each = torch.rand(5, 4)  # a factor of its own for every sample
    torch.testing.assert_close(net(theta, x, {name: each}), ((x @ w1.T + b1).relu() * each) @ w2.T + b2)


def test_dropout_gates_have_the_right_rate_and_mean() -> None:
    net = mlp(50, 3, (80, 40), dropout=(0.2, 0.5))
    g = torch.Generator().manual_seed(0)
    gates = net.dropout((4000,), g)
    assert [tuple(v.shape) for v in gates.values()] == [(4000, 50), (4000, 80), (4000, 40)]
    for p, factor in zip((0.2, 0.5, 0.5), gates.values(), strict=True):
        assert factor.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
        n = factor.numel()
        assert abs(float((factor == 0).double().mean()) - p) < 5 * (p * (1 - p) / n) ** 0.5  # five standard errors
    again = net.dropout((4000,), torch.Generator().manual_seed(0))
    assert all(torch.equal(again[k], gates[k]) for k in gates)


def test_dropout_is_off_unless_gates_are_given() -> None:
    wet, dry = mlp(4, 2, (6,), dropout=(0.5, 0.5)), mlp(4, 2, (6,))
    theta, x = dry.init(3), torch.rand(5, 4)
    assert torch.equal(wet.init(3), theta) and torch.equal(wet(theta, x), dry(theta, x))
    assert dry.dropout((5,), torch.Generator()) == {}
    assert mlp(4, 2, (6,), dropout=(0.0, 0.3)).gates.keys() == dry.gates.keys()


# which parameters are the last -----------------------------------------------------------------------------------------


def test_last_layers() -> None:
    net = mlp(3, 2, (4, 5))  # 3*4+4, 4*5+5, 5*2+2
    for layers, count in ((1, 12), (2, 37), (3, 53)):
        chosen = net.last(layers)
        assert int(chosen.sum()) == count and chosen[-count:].all()
    one = net.last(1, torch.tensor([False, True]))
    w, b = (net.unflatten(one.double())[n] for n in net.names[-2:])
    assert w.tolist() == [[0] * 5, [1] * 5] and b.tolist() == [0, 1] and int(one.sum()) == 6
    for layers in (0, 4):
        with pytest.raises(ValueError, match=rf"1\.\.3 can be chosen, got {layers}"):
            net.last(layers)


# bad input -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), r"layer '1' \(BatchNorm1d\).*GroupNorm or LayerNorm"),
        (lambda: nn.BatchNorm1d(4, track_running_stats=False), "BatchNorm1d"),
        (lambda: nn.Sequential(nn.InstanceNorm2d(4, track_running_stats=True)), r"layer '0' \(InstanceNorm2d\)"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), r"layer '1' \(Dropout\).*mlp\(\.\.\., dropout"),
        (lambda: nn.Sequential(nn.Dropout2d(0.5)), "Dropout2d"),
        (nn.Linear(3, 4), r"lambda: Linear\(\.\.\.\), not the network"),
    ],
)
def test_layers_that_are_no_function_of_theta(factory, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Net(factory)


def test_layers_that_are_allowed() -> None:
    net = Net(lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.Tanh(), Gate(4), nn.Linear(4, 2)))
    x = torch.rand(6, 4)
    torch.testing.assert_close(net(net.init(0), x)[2:3], net(net.init(0), x[2:3]))  # a sample does not see the others


def test_a_factory_must_build_a_new_module() -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="same module twice"):
        Net(lambda: module).init(0)


@pytest.mark.parametrize("dropout", [(1.0, 0.0), (-0.1, 0.0), (0.0, 1.5), (float("nan"), 0.0)])
def test_bad_dropout(dropout: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"two probabilities in \[0, 1\)"):
        mlp(4, 2, (3,), dropout=dropout)


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match=r"at least one unit, got \[4, 0, 2\]"):
        mlp(4, 2, (0,))
    with pytest.raises(ValueError, match=r"at least 4 pixels a side, got \(1, 8, 3\)"):
        cnn((1, 8, 3), 2)


def test_default_net_fits_the_scenario() -> None:
    s = split(clouds(), 2, kind="domain")
    net = default_net(s, hidden=(3,))
    assert net(net.init(0), s.data.x).shape == (60, 2)
