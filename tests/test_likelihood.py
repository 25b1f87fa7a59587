"""What outputs mean: losses and scores by definition, Fishers in closed form, and sequences from end to end."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import flat_grad, module_with, refused
from torch import Tensor, nn

import clbook
from clbook import Categorical, Data, Gaussian, Method, Net, Scenario, fisher, mas_importance, sequence
from clbook.likelihood import masked
from clbook.methods import CLSER, ER, EWC, L2, MAS, DERpp, Finetune, LwF


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# one class, or a token at every position ---------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True])
def test_the_loss_of_a_sequence_is_a_mean_over_all_its_positions(own: bool) -> None:
    """By a loop over samples and positions; a mask for all samples, or one of its own for each."""
    says, f, y = Categorical(), draw(4, 3, 5), torch.tensor([[0, 2, 0], [2, 2, 0], [4, 0, 4], [0, 4, 2]])
    mask = torch.tensor([True, False, True, False, True])
    mask = mask.repeat(4, 1).index_put((torch.tensor([0, 1]), torch.tensor([1, 3])), torch.tensor(True)) if own else mask
    log_p = torch.zeros(4, 3, dtype=torch.float64)
    for n, t in itertools.product(range(4), range(3)):
        counts = mask[n] if own else mask
        log_p[n, t] = f[n, t, y[n, t]] - f[n, t, counts].logsumexp(0)
    close(says.loss(f, y, mask), -log_p.mean())
    close(says.log_p(f, y, mask), log_p.sum(1))
    close(Categorical("log_likelihood").score(f, y, mask), log_p.mean(1))
    best = torch.where(mask[:, None] if own else mask, f, -torch.inf).argmax(-1)
    assert torch.equal(says.answer(f, mask), best) and (says.observations(f), says.observations(f[:, 0])) == (3, 1)
    close(says.score(f, y, mask), (best == y).double().mean(1))


def test_one_label_is_a_sequence_of_one() -> None:
    says, f, y, mask = Categorical(), draw(6, 4), torch.tensor([0, 1, 3, 3, 0, 1]), torch.tensor([True, True, False, True])
    for name in ("loss", "log_p", "score"):
        close(getattr(says, name)(f, y, mask), getattr(says, name)(f[:, None], y[:, None], mask))
    close(says.loss(f, y, mask), nn.functional.cross_entropy(f[:, mask], torch.tensor([0, 1, 2, 2, 0, 1])))


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_samples_come_from_the_outputs_that_count(shape: tuple[int, ...]) -> None:
    """20,000 draws of each observation: frequencies within five standard errors of the softmax, and none outside the mask."""
    f, mask = 2 * draw(*shape), torch.tensor([True, False, True])
    p, n = masked(f, mask).softmax(-1), 20_000
    rng = torch.Generator().manual_seed(0)
    y = Categorical().sample(f.expand(n, *shape), mask, rng)
    counts = nn.functional.one_hot(y, 3).double().mean(0)
    assert ((counts - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all() and (counts[..., 1] == 0).all()


# real numbers ------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(sigma=st.floats(0.1, 10), shape=st.sampled_from([(4, 3), (4, 1), (4, 2, 3)]), seed=st.integers(0, 99))
def test_gaussian_against_torchs_normal(sigma: float, shape: tuple[int, ...], seed: int) -> None:
    """Up to the constant log(sigma sqrt(2 pi)) an observation."""
    f, y, mask = draw(*shape, seed=seed), draw(*shape, seed=seed + 1), torch.ones(shape[-1], dtype=torch.bool)
    log_p = torch.distributions.Normal(f, sigma).log_prob(y) + math.log(sigma * math.sqrt(2 * math.pi))
    says = Gaussian(sigma)
    torch.testing.assert_close(says.loss(f, y, mask), -log_p.mean())
    torch.testing.assert_close(says.log_p(f, y, mask), log_p.flatten(1).sum(1))
    torch.testing.assert_close(says.score(f, y, mask), -(f - y).square().flatten(1).mean(1))
    assert torch.equal(says.answer(f, mask), f) and says.observations(f) == math.prod(shape[1:])


def test_gaussian_samples_have_the_mean_and_the_noise_they_say() -> None:
    f, n = draw(5), 20_000
    y = Gaussian(0.3).sample(f.expand(n, 5), torch.ones(5, dtype=torch.bool), torch.Generator().manual_seed(0))
    assert ((y.mean(0) - f).abs() < 5 * 0.3 / n**0.5).all()
    assert ((y.std(0) - 0.3).abs() < 5 * 0.3 / (2 * n) ** 0.5).all()


def test_distilling_real_outputs_is_the_loss_against_them() -> None:
    f, old, mask = draw(4, 3), draw(4, 3, seed=1), torch.ones(2, 3, dtype=torch.bool)
    for temperature in (1.0, 7.0):
        close(Gaussian(0.5).distil(f, old, mask, mask, temperature), (f - old).square().mean() / 0.5)


def test_distilling_sequences_is_distilling_every_position() -> None:
    """The mean over samples and positions of what each position would give by itself, summed over the groups of outputs."""
    f, old = draw(4, 3, 5), draw(4, 3, 5, seed=1)
    groups = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]], dtype=torch.bool)
    now = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 1, 1, 0]], dtype=torch.bool)
    says = Categorical()
    each = [says.distil(f[:, t], old[:, t], now, groups, 2.0) for t in range(3)]
    close(says.distil(f, old, now, groups, 2.0), torch.stack(each).mean())


# the Fisher of real outputs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1.0, 0.5])
@pytest.mark.parametrize("algorithm", ["outer", "definition", "auto"])
def test_the_fisher_of_a_linear_regression(algorithm: str, sigma: float) -> None:
    """f = W x + b: an output's own gradient is x, so F of W_ij is the mean of x_j^2 / sigma^2, over D outputs 1 / D of it."""
    net, x = clbook.mlp(4, 3, ()).told(Gaussian(sigma)), draw(9, 4)
    w = (x.square().mean(0) / sigma**2 / 3).repeat(3)
    wanted = torch.cat([w, torch.full((3,), 1 / sigma**2 / 3, dtype=torch.float64)])
    for theta in (net.init(0).double(), net.init(1).double()):  # the same everywhere, as no target occurs in it
        close(fisher(net, theta, x, algorithm=algorithm), wanted)


def test_it_is_the_hessian_of_the_loss_of_a_linear_regression() -> None:
    net, x, y = clbook.mlp(4, 3, ()).told(Gaussian(0.7)), draw(9, 4), draw(9, 3, seed=5)
    theta = net.init(0).double()
    every = torch.ones(3, dtype=torch.bool)
    hessian = torch.autograd.functional.hessian(lambda t: net.likelihood.loss(net(t, x), y, every), theta)
    close(fisher(net, theta, x), hessian.diagonal())


@pytest.mark.parametrize("estimator", ["exact", "empirical", "batched", "sampled"])
def test_every_algorithm_gives_the_same_for_real_outputs(estimator: str) -> None:
    net, x, y = clbook.mlp(4, 3, (5, 6)).told(Gaussian(0.7)), draw(9, 4), draw(9, 3, seed=5)
    theta = net.init(0).double()
    more = {"estimator": estimator, "batch_size": 4}
    found = [
        fisher(net, theta, x, y, algorithm=a, rng=torch.Generator().manual_seed(3), **more)
        for a in ("outer", "definition", "auto")
    ]
    close(found[0], found[1])
    close(found[0], found[2])
    if estimator == "sampled":
        return
    module, total = module_with(net, theta), torch.zeros_like(theta)  # sample by sample, in plain autograd
    if estimator == "batched":
        for rows in torch.arange(9).split(4):
            log_p = (module(x[rows]) - y[rows]).square().sum(1) / (2 * 0.49)
            total += flat_grad(log_p.mean(), module).square()
        close(fisher(net, theta, x, y, estimator="batched", batch_size=1), fisher(net, theta, x, y, estimator="empirical"))
        return close(found[0], total / 3 / 3)
    for xn, yn in zip(x, y, strict=True):
        f = module(xn[None])[0]
        if estimator == "empirical":
            total += flat_grad((f - yn).square().sum() / (2 * 0.49), module).square()
        else:
            total += sum(flat_grad(f[d], module).square() / 0.49 for d in range(3))
    return close(found[0], total / 9 / 3)


@pytest.mark.parametrize("says", [Gaussian(0.5), Categorical()], ids=repr)
def test_the_sampled_fisher_converges_to_the_exact_one(says: Gaussian | Categorical) -> None:
    """A hundred times the draws, a tenth of the error; also for a token at every position."""
    net = Net(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))).told(says)
    theta, x = 2 * net.init(1).double(), draw(6, 2, 3)
    exact, rng = fisher(net, theta, x), torch.Generator().manual_seed(0)
    errors = []
    for draws in (20, 2000):
        found = fisher(net, theta, x.repeat(draws, 1, 1), estimator="sampled", rng=rng)
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[1] < 0.03 and 3 < errors[0] / errors[1] < 30, errors


# the Fisher of a token at every position ---------------------------------------------------------------------------------


def tiny() -> tuple[Net, Tensor, Tensor]:
    """A recurrent sequence model of three tokens: the output at a position depends on all before it."""

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.out = nn.Embedding(3, 2), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.token(x).cumsum(-2).tanh())

    net = Net(Tiny, example=torch.zeros(1, 4, dtype=torch.int64))
    return net, 1.5 * net.init(0).double(), torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2], [2, 0, 0, 1]])


@pytest.mark.parametrize("mask", [[True, True, True], [True, False, True]])
def test_the_exact_fisher_is_the_mean_over_all_sequences_of_labels(mask: list[bool]) -> None:
    """All 3^4 of them, each with its probability, by plain autograd; a mean over the 3 x 4 observations."""
    net, theta, x = tiny()
    counts = torch.tensor(mask)
    module, total, weights = module_with(net, theta), torch.zeros_like(theta), []
    for xn in x:
        log_p = module(xn[None])[0].masked_fill(~counts, -torch.inf).log_softmax(-1)  # [T, C]
        for labels in itertools.product([c for c in range(3) if mask[c]], repeat=4):
            one = log_p[torch.arange(4), torch.tensor(labels)].sum()
            weights.append(float(one.detach().exp()))
            total += one.exp().detach() * flat_grad(one, module).square()
    assert sum(weights) == pytest.approx(3)
    close(fisher(net, theta, x, mask=counts), total / 12)


def test_the_other_fishers_of_a_sequence_sample_by_sample() -> None:
    net, theta, x = tiny()
    y = torch.tensor([[1, 2, 0, 0], [0, 0, 1, 2], [2, 2, 1, 0]])
    module = module_with(net, theta)
    log_p = lambda n: module(x[n][None])[0].log_softmax(-1)[torch.arange(4), y[n]]  # noqa: E731
    squares = [flat_grad(log_p(n).sum(), module).square() for n in range(3)]
    close(fisher(net, theta, x, y, estimator="empirical"), torch.stack(squares).sum(0) / 12)
    means = [flat_grad((log_p(0) + log_p(1)).sum() / 2, module), flat_grad(log_p(2).sum(), module)]
    close(fisher(net, theta, x, y, estimator="batched", batch_size=2), torch.stack(means).square().mean(0) / 4)
    close(fisher(net, theta, x, y, estimator="batched", batch_size=1), fisher(net, theta, x, y, estimator="empirical"))
    f = module(x)
    gradients = [flat_grad(f[n].square().sum(), module).abs() for n in range(3)]
    close(mas_importance(net, theta, x), torch.stack(gradients).mean(0))
    with refused('algorithm="outer" needs every parameter in a Linear layer'):
        fisher(net, theta, x, algorithm="outer")
    with refused(r"y must be targets of Categorical.*\[N, 4\]"):
        fisher(net, theta, x, y[:, 0], estimator="empirical")


# regression from end to end ----------------------------------------------------------------------------------------------


def lines(n: int, slope: float, seed: int) -> Data:
    x = draw(n + 5, 1, seed=seed)
    y = slope * x + 0.1 * draw(n + 5, 1, seed=seed + 1)
    return Data(x[:n], y[:n], x[n:], y[n:], f"slope {slope}", (1,), 1)


@pytest.mark.parametrize("sigma", [1.0, 0.3])
@pytest.mark.parametrize(("first", "second"), [(30, 30), (20, 40)])
def test_ewc_of_a_line_is_bayes_rule(first: int, second: int, sigma: float) -> None:
    """One parameter, quadratic losses, lam = N_old / N_new: after both tasks it is the least-squares fit to all data."""
    a, b = lines(first, 1.0, seed=0), lines(second, 2.0, seed=7)
    s = replace(sequence([a, b], kind="domain"), likelihood=Gaussian(sigma))
    net = Net(lambda: nn.Linear(1, 1, bias=False))
    size = math.lcm(first, second)  # every batch is whole passes over the data, so every step is one of the task's own loss
    sizes = {"optimizer": "sgd", "lr": 0.3 * sigma**2, "batch_size": size, "dtype": torch.float64, "progress": False}
    result = clbook.run(s, EWC(lam=first / second, n_samples=1000), net=net, steps=400, keep_thetas=True, **sizes)
    slope = lambda d: float((d.x * d.y).sum() / d.x.square().sum())  # noqa: E731
    assert float(result.thetas[0][0]) == pytest.approx(slope(a), abs=1e-8)
    both = replace(a, x=torch.cat([a.x, b.x]), y=torch.cat([a.y, b.y]))
    assert float(result.theta[0]) == pytest.approx(slope(both), abs=1e-8)
    error = float((result.theta[0] * b.x_test - b.y_test).square().mean())
    assert result.R[0, 1, 1] == pytest.approx(-error)


# sequences from end to end -----------------------------------------------------------------------------------------------

V, T = 7, 6  # tokens that are counted with, and the length of a text; the first token says which task it is


def texts(step: int, marker: int, n: int = 200, n_test: int = 60) -> Data:
    """A marker, then numbers that go up by `step` modulo 7; the target at each position is the next token."""
    g = torch.Generator().manual_seed(step)
    numbers = (torch.randint(V, (n + n_test, 1), generator=g) + step * torch.arange(T)) % V
    x = torch.cat([torch.full((n + n_test, 1), marker), numbers[:, :-1]], 1)
    return Data(x[:n], numbers[:n], x[n:], numbers[n:], f"+{step}", (T,), V + 2)


def two_texts() -> Scenario:
    return sequence([texts(1, V), texts(3, V + 1)], kind="domain")


def words() -> Net:
    return clbook.transformer(V + 2, T, width=16, heads=2, depth=2)


KEEPS = [EWC(lam=1e4, n_samples=100), MAS(lam=1.0, n_samples=100), LwF(lam=3.0, temperature=1.0), ER(size=20)]


@pytest.fixture(scope="module")
def forgot() -> np.ndarray:
    return clbook.run(two_texts(), Finetune(), 3, net=words(), steps=150, batch_size=32, lr=5e-3, progress=False).R


def test_a_transformer_forgets_how_to_count(forgot: np.ndarray) -> None:
    """All but the first number of a text can be known, 5 of 6 and a seventh of one; then another step is learned instead."""
    ceiling = (5 + 1 / 7) / 6
    assert (np.abs(forgot[:, 0, 0] - ceiling) < 0.06).all() and (np.abs(forgot[:, 1, 1] - ceiling) < 0.06).all()
    assert (forgot[:, 1, 0] < 0.15).all()


@pytest.mark.parametrize("method", KEEPS, ids=lambda m: m.label)
def test_a_transformer_that_is_protected_keeps_how_to_count(method: Method, forgot: np.ndarray) -> None:
    R = clbook.run(two_texts(), method, 3, net=words(), steps=150, batch_size=32, lr=5e-3, progress=False).R
    np.testing.assert_allclose(R[:, 0, 0], forgot[:, 0, 0], atol=0.05)  # nothing is protected in the first task
    assert (R[:, 1, 0] > forgot[:, 1, 0] + 0.3).all() and R[:, 1, 0].mean() > 0.5, R[:, 1]
    if not isinstance(method, LwF):  # it holds the old answers on the new texts, where they are wrong
        assert R[:, 1, 1].mean() > 0.6, "and the new task is learned"


@pytest.mark.parametrize("method", [*KEEPS, DERpp(size=20), CLSER(size=20), L2(lam=1.0)], ids=lambda m: m.label)
def test_transformers_in_a_stack_are_what_each_is_alone(method: Method) -> None:
    settings = {"net": words(), "steps": 6, "batch_size": 8, "dtype": torch.float64, "progress": False}
    s = two_texts()
    other = replace(method, **{name: value / 2 for name, value in method.hyper.items()})
    stacked = clbook.run(s, [method, other], 2, chunk=4, **settings)
    for i, (m, seed) in enumerate(itertools.product([method, other], [0, 1])):
        alone = clbook.run(s, m, [seed], **settings)
        torch.testing.assert_close(stacked.theta[i], alone.theta[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(stacked.R[i], alone.R[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["task", "class"])
def test_sequences_with_tokens_of_their_own(kind: str) -> None:
    """Numbered through: the second task's tokens follow those of the first, and so do their outputs."""
    s = sequence([texts(1, V), texts(3, V + 1)], kind=kind)
    assert s.n_outputs == 2 * (V + 2) and torch.equal(s[1].y, texts(3, V + 1).y + V + 2)
    net = Net(lambda: nn.Sequential(nn.Embedding(V + 2, 4), nn.Linear(4, 2 * (V + 2))))
    result = clbook.run(s, [ER(size=5), LwF(), EWC(lam=1.0, n_samples=10)], net=net, steps=3, progress=False)
    x, y = s.test(0)
    f = net(result.theta[0], x).masked_fill(~s.mask[1, 0], -torch.inf)
    assert result.R[0, 1, 0] == pytest.approx(float((f.argmax(-1) == y).double().mean()))
