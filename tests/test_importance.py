"""The Fisher information against closed forms, against a loop over single samples, and one form against the other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import clouds, flat_grad, module_with, refused
from torch import Tensor, nn

from clbook import Net, cnn, fisher, fisher_overlap, mas_importance, mlp
from clbook.importance import ESTIMATORS
from clbook.net import Gate

N, D, C = 40, 5, 4


def problem(hidden: tuple[int, ...] = (), n: int = N, seed: int = 0) -> tuple[Net, Tensor, Tensor, Tensor]:
    """A net, its theta, inputs and labels, in double precision."""
    net, g = mlp(D, C, hidden), torch.Generator().manual_seed(seed)
    theta = 2 * net.init(seed).double()  # far enough from zero for the classes to differ
    return net, theta, torch.randn(n, D, generator=g).double(), torch.randint(C, (n,), generator=g)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)


# the closed form: logits W x + b ---------------------------------------------------------------------------------------
# d log p_c / d W_ki = (1[c = k] - p_k) x_i and the same without x_i for b_k. Squared and averaged over c ~ p this is
# p_k (1 - p_k) x_i^2; at a given label y it is (1[y = k] - p_k)^2 x_i^2.


def linear_form(kind: str, theta: Tensor, x: Tensor, y: Tensor, mask: Tensor, batch: int = 1) -> Tensor:
    w, b = theta[: C * D].view(C, D), theta[C * D :]
    p = (x @ w.T + b).masked_fill(~mask, -math.inf).softmax(1)  # [N, C]
    one = torch.cat([x, torch.ones(len(x), 1).double()], 1)  # [N, D + 1]
    error = nn.functional.one_hot(y, C).double() - p
    if kind == "exact":
        f = torch.einsum("nk,ni->ki", p * (1 - p), one.square()) / len(x)
    elif kind == "empirical":
        f = torch.einsum("nk,ni->ki", error.square(), one.square()) / len(x)
    else:
        g = torch.einsum("nk,ni->nki", error, one)
        f = torch.stack([part.mean(0).square() for part in g.split(batch)]).mean(0)
    return torch.cat([f[:, :D].flatten(), f[:, D]])


@pytest.mark.parametrize("mask", [[1, 1, 1, 1], [0, 1, 0, 1]])
@pytest.mark.parametrize("how", ["outer", "definition"])
@pytest.mark.parametrize("kind", ["exact", "empirical", "batched"])
def test_closed_form_of_a_linear_softmax(kind: str, how: str, mask: list[int]) -> None:
    net, theta, x, y = problem()
    chosen = torch.tensor(mask, dtype=torch.bool)
    y = chosen.nonzero().flatten()[y % int(chosen.sum())]
    found = fisher(net, theta, x, y, mask=chosen, estimator=kind, algorithm=how, batch_size=7)
    close(found, linear_form(kind, theta, x, y, chosen, batch=7))
    assert found.view(-1)[: C * D].view(C, D)[~chosen].eq(0).all()


def test_one_number_by_hand() -> None:
    """One input x = 2, two classes, all parameters zero: p = 1/2, so F = 1/4 * 4 for the weights and 1/4 for the biases."""
    net = mlp(1, 2, ())
    found = fisher(net, torch.zeros(4), torch.tensor([[2.0]]))
    assert found.tolist() == pytest.approx([1, 1, 0.25, 0.25])


def test_exact_is_the_hessian_of_the_loss_of_a_linear_softmax() -> None:
    """There the Hessian does not depend on the labels, so both are equal everywhere, not only at a minimum."""
    net, theta, x, y = problem()
    loss = lambda t: nn.functional.cross_entropy(net(t, x), y)  # noqa: E731
    close(fisher(net, theta, x), torch.autograd.functional.hessian(loss, theta).diagonal())


# a loop over single samples, in plain autograd --------------------------------------------------------------------------


def by_loop(kind: str, net: Net, theta: Tensor, x: Tensor, y: Tensor, mask: Tensor, batch: int) -> Tensor:
    module, f = module_with(net, theta), torch.zeros_like(theta)
    log_p = lambda xs: module(xs)[:, mask].log_softmax(1)  # noqa: E731
    position = mask.long().cumsum(0) - 1  # of an output among those that count
    if kind == "batched":
        for i in range(0, len(x), batch):
            mean = log_p(x[i : i + batch]).gather(1, position[y[i : i + batch], None]).mean()
            f += flat_grad(mean, module).square()
        return f / math.ceil(len(x) / batch)
    for xn, yn in zip(x, y, strict=True):
        for c, log_pc in enumerate(log_p(xn[None])[0]):
            weight = log_pc.exp().detach() if kind == "exact" else float(c == position[yn])
            f += weight * flat_grad(log_pc, module).square()
    return f / len(x)


@pytest.mark.parametrize("kind", ["exact", "empirical", "batched"])
@pytest.mark.parametrize("how", ["outer", "definition"])
def test_one_sample_loop(kind: str, how: str) -> None:
    net, theta, x, y = problem((6, 3), n=11)
    mask = torch.tensor([True, True, False, True])
    y = torch.where(y == 2, 0, y)
    close(
        fisher(net, theta, x, y, mask=mask, estimator=kind, algorithm=how, batch_size=4),
        by_loop(kind, net, theta, x, y, mask, 4),
    )


@pytest.mark.parametrize("kind", ["exact", "empirical", "batched"])
def test_one_sample_loop_of_a_cnn(kind: str) -> None:
    net, data = cnn((1, 4, 4), 3, channels=(2,), hidden=5), clouds(n=6, shape=(1, 4, 4), classes=3)
    theta, x = net.init(1).double(), data.x.double()
    mask = torch.tensor([True, True, True])
    found = fisher(net, theta, x, data.y, estimator=kind, batch_size=4)
    close(found, by_loop(kind, net, theta, x, data.y, mask, 4))
    assert found.gt(0).any()
    if kind != "batched":
        with pytest.raises(ValueError, match='algorithm="definition"'):
            fisher(net, theta, x, data.y, estimator=kind, algorithm="outer")


@settings(max_examples=25, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 6), max_size=3),
    mask=st.lists(st.booleans(), min_size=C, max_size=C).filter(any),
    kind=st.sampled_from(["exact", "empirical", "sampled"]),
    seed=st.integers(0, 99),
)
def test_outer_equals_definition(hidden: list[int], mask: list[bool], kind: str, seed: int) -> None:
    net, theta, x, y = problem(tuple(hidden), n=9, seed=seed)
    chosen = torch.tensor(mask)
    y = chosen.nonzero().flatten()[y % int(chosen.sum())]
    found = [
        fisher(net, theta, x, y, mask=chosen, estimator=kind, algorithm=how, rng=torch.Generator().manual_seed(seed))
        for how in ("outer", "definition")
    ]
    close(*found)
    assert found[0].ge(0).all()
    close(*(mas_importance(net, theta, x, mask=chosen, algorithm=how) for how in ("outer", "definition")))


class Odd(nn.Module):
    """Layers named in another order than they are used in, and a ReLU that overwrites its input."""

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self.out, self.b, self.a = nn.Linear(6, C), nn.Linear(6, 6), nn.Linear(D, 6, bias=False)
        self.relu, self.gate, self.twice = nn.ReLU(inplace=True), Gate(6), twice

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.a(x))
        h = self.gate(self.relu(self.b(h)))
        return self.out(self.relu(self.b(h)) if self.twice else h)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("kind", ["exact", "empirical"])
def test_unusual_modules(kind: str, twice: bool) -> None:
    """The outer product must not go by the order of the layers, and must not be used where a layer is used twice."""
    net, (_, _, x, y) = Net(lambda: Odd(twice)), problem(n=7)
    theta = net.init(0).double()
    wanted = by_loop(kind, net, theta, x, y, torch.ones(C, dtype=torch.bool), 1)
    close(fisher(net, theta, x, y, estimator=kind, algorithm="auto"), wanted)
    close(mas_importance(net, theta, x), mas_importance(net, theta, x, algorithm="definition"))
    if twice:
        with pytest.raises(ValueError, match="each layer used once"):
            fisher(net, theta, x, y, estimator=kind, algorithm="outer")
    else:
        close(fisher(net, theta, x, y, estimator=kind, algorithm="outer"), wanted)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, theta, x, _ = problem((6,))
    whole = {how: fisher(net, theta, x, algorithm=how) for how in ("outer", "definition")}
    monkeypatch.setattr("clbook.importance.CHUNK", 7)
    monkeypatch.setattr("clbook.importance.per_chunk", lambda net, rows: 3)
    for how, f in whole.items():
        close(fisher(net, theta, x, algorithm=how), f)


# what the estimators estimate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [[1, 1, 1, 1], [0, 1, 0, 1]])
def test_sampled_is_empirical_at_labels_drawn_from_the_model(mask: list[int]) -> None:
    net, theta, x, _ = problem((6,))
    chosen = torch.tensor(mask, dtype=torch.bool)
    p = net(theta, x).masked_fill(~chosen, -math.inf).softmax(1)  # the model's own probabilities, of the outputs that count
    drawn = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(5)).squeeze(1)
    found = fisher(net, theta, x, mask=chosen, estimator="sampled", rng=torch.Generator().manual_seed(5))
    close(found, fisher(net, theta, x, drawn, mask=chosen, estimator="empirical"))
    other = fisher(net, theta, x, mask=chosen, estimator="sampled", rng=torch.Generator().manual_seed(6))
    assert not torch.allclose(found, other)


def test_sampled_is_exact_in_expectation() -> None:
    """The mean over R draws lies within five standard errors of the exact Fisher, for every parameter."""
    net, theta, x, _ = problem(n=20)
    R, rng = 3000, torch.Generator().manual_seed(0)
    found = fisher(net, theta, x.repeat(R, 1), estimator="sampled", rng=rng)
    p = net(theta, x).softmax(1)  # one draw's square is (1-p)^2 x^2 with probability p, else p^2 x^2: its variance by hand
    variance = p * (1 - p) * (1 - 2 * p).square()
    one = torch.cat([x, torch.ones(len(x), 1).double()], 1)
    error = (torch.einsum("nk,ni->ki", variance, one**4) / len(x) ** 2 / R).sqrt()
    error = torch.cat([error[:, :D].flatten(), error[:, D]])
    assert ((found - fisher(net, theta, x)).abs() < 5 * error + 1e-12).all()
    assert (error < 0.02 * fisher(net, theta, x).max()).all()  # the bound above means something


@pytest.mark.parametrize("batch", [8, 32])
def test_batched_is_about_one_bth_of_the_empirical(batch: int) -> None:
    """Labels drawn from the model make the gradients of different samples uncorrelated with mean zero: then it is 1/B."""
    net, theta, x, _ = problem(n=12000)
    y = torch.multinomial(net(theta, x).softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
    ratio = (
        fisher(net, theta, x, y, estimator="batched", batch_size=batch).sum()
        / fisher(net, theta, x, y, estimator="empirical").sum()
    )
    assert float(ratio) * batch == pytest.approx(1, abs=0.1)


def test_batches_of_one_are_the_empirical_fisher() -> None:
    net, theta, x, y = problem((6,))
    close(fisher(net, theta, x, y, estimator="batched", batch_size=1), fisher(net, theta, x, y, estimator="empirical"))


def test_empirical_is_exact_where_the_labels_are_the_models() -> None:
    """Each input with every class, as often as the model says: the empirical mean is the exact one. Here p = 1/2."""
    net, x = mlp(D, 2, ()), torch.randn(6, D).double()
    theta = torch.zeros(net.n_params).double()
    both = torch.tensor([0] * 6 + [1] * 6)
    close(fisher(net, theta, x.repeat(2, 1), both, estimator="empirical"), fisher(net, theta, x))


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_computing_it_changes_nothing(kind: str) -> None:
    net, theta, x, y = problem((6,))
    before = [t.clone() for t in (theta, x, *net.module.parameters())]
    torch_state = torch.get_rng_state()
    found = fisher(net, theta, x, y, estimator=kind, rng=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(before, (theta, x, *net.module.parameters()), strict=True))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert not theta.requires_grad and not found.requires_grad and found.shape == theta.shape
    assert all(p.grad is None for p in net.module.parameters()) and not net.module._forward_hooks


def test_single_precision_agrees_with_double() -> None:
    net, theta, x, _ = problem((6,))
    single = fisher(net, theta.float(), x.float())
    torch.testing.assert_close(single.double(), fisher(net, theta, x), rtol=1e-4, atol=1e-6)


# MAS -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["outer", "definition"])
def test_mas_of_a_linear_net(how: str) -> None:
    """d ||W x + b||^2 / d W_ki = 2 f_k x_i, and 2 f_k for b_k; the absolute value is taken before the mean."""
    net, theta, x, _ = problem()
    mask = torch.tensor([True, False, True, True])
    f = net(theta, x) * mask
    wanted = torch.cat([(2 * f.abs().T @ x.abs()).flatten(), 2 * f.abs().sum(0)]) / len(x)
    close(mas_importance(net, theta, x, mask=mask, algorithm=how), wanted)


@pytest.mark.parametrize("how", ["outer", "definition"])
def test_mas_per_output_of_a_linear_net(how: str) -> None:
    """d f_c / d W_ki = 1[c = k] x_i, so its length over c is |x_i|."""
    net, theta, x, _ = problem()
    wanted = torch.cat([x.abs().mean(0).repeat(C), torch.ones(C).double()])
    close(mas_importance(net, theta, x, algorithm=how, per_output=True), wanted)


# overlap ---------------------------------------------------------------------------------------------------------------


def test_overlap_by_hand() -> None:
    a, b = torch.tensor([1.0, 3.0, 0.0]), torch.tensor([3.0, 1.0, 0.0])
    assert fisher_overlap(a, a) == pytest.approx(1)
    assert fisher_overlap(a, b) == pytest.approx(2 * math.sqrt(3) / 4)
    assert fisher_overlap(a, torch.tensor([0.0, 0.0, 2.0])) == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3))
def test_overlap_is_one_less_the_squared_distance(seed: int, scale: float) -> None:
    f1, f2 = torch.rand(2, 9, generator=torch.Generator().manual_seed(seed)).double()
    d2 = ((f1 / f1.sum()).sqrt() - (f2 / f2.sum()).sqrt()).square().sum() / 2
    found = fisher_overlap(scale * f1, f2)
    assert found == pytest.approx(1 - float(d2)) and 0 <= found <= 1 + 1e-9
    assert found == pytest.approx(fisher_overlap(f2, f1))


# bad input -------------------------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    net, theta, x, y = problem((3,))
    only = torch.tensor([True, True, False, False])
    for error, call in {
        "estimator must be 'exact', 'sampled', 'empirical' or 'batched', got 'true'": lambda: fisher(
            net, theta, x, estimator="true"
        ),
        "algorithm must be 'auto', 'definition' or 'outer', got 'fast'": lambda: fisher(net, theta, x, algorithm="fast"),
        "at least one sample, got none": lambda: fisher(net, theta, x[:0]),
        "the empirical Fisher needs the targets y": lambda: fisher(net, theta, x, estimator="empirical"),
        "the batched Fisher needs the targets y": lambda: fisher(net, theta, x, estimator="batched"),
        "give it rng": lambda: fisher(net, theta, x, estimator="sampled"),
        "batch_size must be greater than or equal to 1, got 0": lambda: fisher(
            net, theta, x, y, estimator="batched", batch_size=0
        ),
        r"label [23] is not among .* mask, \[0, 1\]": lambda: fisher(net, theta, x, y, mask=only, estimator="empirical"),
        "x must hold at least one sample": lambda: mas_importance(net, theta, x[:0]),
        "algorithm must be .*, got 'fast'": lambda: mas_importance(net, theta, x, algorithm="fast"),
        "nonnegative and not zero everywhere": lambda: fisher_overlap(theta, theta),
        "not zero everywhere": lambda: fisher_overlap(torch.zeros(3), torch.ones(3)),
    }.items():
        with refused(error):
            call()
