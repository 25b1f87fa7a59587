"""The numbers and the identities that the chapters state and leave to the reader to believe. Book: book/ewc."""

from __future__ import annotations

import json
import math
import statistics
from fractions import Fraction

import pytest
import torch
from pages import ROOT
from small import users_meet_it
from torch import Tensor, nn

import clbook
from clbook.method import merge, proximal
from clbook.methods import L2
from clbook.net import Net

torch.manual_seed(0)
X, Y = torch.randn(40, 5, dtype=torch.float64), torch.randint(0, 3, (40,))


def net(activation: type[nn.Module]) -> Net:
    return Net(lambda: nn.Sequential(nn.Linear(5, 7), activation(), nn.Linear(7, 6), activation(), nn.Linear(6, 3)))


def hessian(model: Net, theta: Tensor) -> Tensor:
    return torch.autograd.functional.hessian(lambda t: nn.functional.cross_entropy(model(t, X), Y), theta)


def per_sample(model: Net, theta: Tensor) -> Tensor:
    loss = lambda t, x, y: nn.functional.cross_entropy(model(t, x[None]), y[None])  # noqa: E731
    return torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(theta, X, Y)


# The Fisher information ------------------------------------------------------------------------------------------------


def test_the_gift_of_the_relu() -> None:
    """Far from any minimum, the diagonal of a ReLU network's Hessian is its exact Fisher; that of a tanh network is not."""
    relu, tanh = net(nn.ReLU), net(nn.Tanh)
    theta = relu.init(1).double()
    H = hessian(relu, theta)
    torch.testing.assert_close(H.diagonal(), clbook.fisher(relu, theta, X), rtol=1e-9, atol=1e-12)
    assert torch.linalg.eigvalsh(H).min() < -0.01, "the whole Hessian has directions along which a spring would push"
    gap = hessian(tanh, theta).diagonal() - clbook.fisher(tanh, theta, X)
    assert gap.abs().max() > 0.01


def test_the_hessian_is_the_fisher_where_labels_come_from_the_model() -> None:
    """Lemma 2: the mean Hessian over labels drawn from p is the Fisher, at any theta and for any activation."""
    model = net(nn.Tanh)
    theta = model.init(2).double()
    p = model(theta, X).softmax(-1).detach()
    expected = torch.autograd.functional.hessian(lambda t: -(p * model(t, X).log_softmax(-1)).sum(-1).mean(), theta)
    torch.testing.assert_close(expected.diagonal(), clbook.fisher(model, theta, X), rtol=1e-9, atol=1e-12)


def test_the_penalty_is_the_change_of_the_predictions() -> None:
    """The KL divergence after a small move is half the square of it, measured by the whole Fisher."""
    model = net(nn.Tanh)
    theta = model.init(3).double()
    J = torch.func.jacrev(lambda t: model(t, X))(theta)  # [N, C, P]
    p = model(theta, X).softmax(-1).detach()
    A = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    F = torch.einsum("ncp,ncd,ndq->pq", J, A, J) / len(X)
    delta = 1e-3 * torch.randn(model.n_params, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = model(theta + delta, X).log_softmax(-1)
    kl = (p * (p.log() - moved)).sum(-1).mean()
    assert float(kl) == pytest.approx(float(delta @ F @ delta / 2), rel=0.02)


@pytest.mark.parametrize("size", [1, 2])
def test_the_batched_fisher_over_all_batches(size: int) -> None:
    """E[(batch mean)^2] = gbar^2 + (mean of squares - gbar^2) / B, over all batches of independent draws."""
    model = net(nn.ReLU)
    g = per_sample(model, model.init(4).double())
    draws = g if size == 1 else ((g[:, None] + g[None]) / 2).flatten(0, 1)
    mean, squares = g.mean(0), g.square().mean(0)
    torch.testing.assert_close(draws.square().mean(0), mean**2 + (squares - mean**2) / size)


def test_the_size_of_the_hessian() -> None:
    parameters = clbook.mlp(784, 10).n_params
    assert parameters == 478_410
    assert round(4 * parameters**2 / 1e9) == 916


# Springs ---------------------------------------------------------------------------------------------------------------


def quadratics(carry: str, tasks: int, gamma: float | None = None) -> Tensor:
    """The weight of each task in theta after all of them: losses (theta - alpha_k)^2 / 2, so Omega = 1, and lam = 1."""
    method = L2(lam=1.0, carry=carry, gamma=gamma)
    alpha = torch.eye(tasks, dtype=torch.float64)
    state = {"omega": torch.zeros(tasks, dtype=torch.float64), "theta_star": torch.zeros(tasks, dtype=torch.float64)}
    theta = torch.zeros(tasks, dtype=torch.float64)
    for k in range(tasks):
        theta = (state["omega"] * state["theta_star"] + alpha[k]) / (state["omega"] + 1)  # the minimum, in each coordinate
        with users_meet_it():  # this spring asks neither network nor task
            state = method.after_task(None, theta, state, None, None)
    return theta


def test_who_has_the_say_after_ten_tasks() -> None:
    torch.testing.assert_close(quadratics("latest", 10), torch.full((10,), 0.1, dtype=torch.float64))
    separate = [Fraction(1, k * (k + 1)) for k in range(1, 10)] + [Fraction(1, 10)]
    assert sum(separate) == 1
    torch.testing.assert_close(quadratics("separate", 10), torch.tensor([float(w) for w in separate], dtype=torch.float64))
    online = quadratics("online", 10, 0.9)
    assert (round(float(online[-1]), 3), round(float(online[0]), 3)) == (0.140, 0.075)


def test_springs_of_two_kinds() -> None:
    omega = torch.tensor([4.0, 0.01])
    ewc, l2 = 1 / (1 + omega), torch.full((2,), 0.5)
    old, new = (lambda t: float((omega * t**2).sum()) / 2), (lambda t: float(((t - 1) ** 2).sum()) / 2)
    assert [round(v, 3) for v in (old(ewc), new(ewc), old(l2), new(l2))] == [0.085, 0.32, 0.501, 0.25]
    assert [round(old(t) + new(t), 3) for t in (ewc, l2)] == [0.405, 0.751]


def test_the_constant_of_two_springs() -> None:
    """a/2 (t-alpha)^2 + b/2 (t-beta)^2 is the merged spring plus half of ab/(a+b) (alpha-beta)^2, at every t."""
    a, b, alpha, beta = (torch.tensor([v], dtype=torch.float64) for v in (2.0, 5.0, -1.0, 3.0))
    one = merge({"omega": a, "theta_star": alpha}, b, beta)
    for t in torch.linspace(-4, 4, 9, dtype=torch.float64):
        two = a / 2 * (t - alpha) ** 2 + b / 2 * (t - beta) ** 2
        merged = one["omega"] / 2 * (t - one["theta_star"]) ** 2 + a * b / (a + b) / 2 * (alpha - beta) ** 2
        torch.testing.assert_close(two, merged)


@pytest.mark.parametrize(("lam", "explicit"), [(5, [0.5, 0.25, 0.125]), (15, [-0.5, 0.25, -0.125]), (25, [-1.5, 2.25, -3.375])])
def test_explicit_and_implicit_steps(lam: float, explicit: list[float]) -> None:
    eta, state = 0.1, {"omega": torch.ones(1), "theta_star": torch.zeros(1)}
    here, there, gone = torch.ones(1), torch.ones(1), []
    for k in range(3):
        here, there = here - eta * lam * here, proximal(there, state, torch.tensor(eta * lam))
        gone.append(float(here))
        assert float(there) == pytest.approx((1 / (1 + 0.1 * lam)) ** (k + 1))
    assert gone == pytest.approx(explicit)


def test_the_last_term_of_bayes_rule() -> None:
    """The coin: p(B) = 1/2, p(B|A) = 2/3, and only the second makes a density of the posterior."""
    theta = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    integral = lambda f: float(torch.trapezoid(f, theta))  # noqa: E731
    posterior_a = theta / integral(theta)
    assert integral(theta) == pytest.approx(1 / 2) and integral(theta * posterior_a) == pytest.approx(2 / 3)
    assert integral(theta * posterior_a / (2 / 3)) == pytest.approx(1)
    assert integral(theta * posterior_a / (1 / 2)) == pytest.approx(4 / 3)


def test_the_best_diagonal() -> None:
    """KL(q||p) for p with precision H is smallest for the diagonal of H, which understates the variance."""
    rho = 0.8
    H = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)
    kl = lambda d: sum(float(H[i, i]) / d[i] + math.log(d[i]) for i in range(2)) / 2  # noqa: E731
    assert all(kl((1, 1)) < kl((1 + a, 1 + b)) for a in (-0.3, 0, 0.3) for b in (-0.3, 0, 0.3) if (a, b) != (0, 0))
    assert float(H.inverse()[0, 0]) == pytest.approx(1 / (1 - rho**2))


# Many runs ---------------------------------------------------------------------------------------------------------------


def test_the_table_of_speed_is_what_was_measured() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results.json").read_text())["rows"]
    seconds = {name: statistics.median(row["seconds"]) for name, row in rows.items()}
    page = (ROOT / "book" / "cluster.md").read_text()
    for name in ("fine-tuning", "EWC", "MAS", "LwF", "SI", "replay"):
        theirs, ours = seconds[f"Avalanche: {name}"], seconds[f"clbook: {name}"]
        assert f"| {name} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.1f} |" in page
