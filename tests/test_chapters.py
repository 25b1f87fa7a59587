"""The numbers and the identities that the chapters state and leave to the reader to believe. Book: book/ewc, book/families."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import statistics
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from pages import ROOT
from scipy import stats
from small import users_meet_it
from torch import Tensor, nn

import clbook
from clbook.lab import experiments, rates
from clbook.method import Rng, State, Update, merge, proximal
from clbook.methods import L2, SI, Average, DERpp, FastWeights
from clbook.methods.fixed import ridge
from clbook.methods.gem import project, project_all
from clbook.methods.progressive import Column
from clbook.net import Net
from clbook.scenarios import KINDS, Task

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


# Families ----------------------------------------------------------------------------------------------------------------


def test_synaptic_intelligence_finds_half_the_curvature_of_a_parabola() -> None:
    """Small steps down a parabola with curvatures h: Omega = h / 2, whatever the start, for xi near 0."""
    h, alpha = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64), torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64)
    method, theta = SI(lam=2.0, xi=1e-9), torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64)
    with users_meet_it():  # this spring asks neither network nor task
        state, eta = method.start(None, theta), 1e-3
        for _ in range(20_000):
            g = h * (theta - alpha)
            update = Update(theta, g, torch.tensor(eta))
            theta, state = method.after_step(theta - eta * g, state, update)
        omega = method.importance(None, theta, state, None, None)
    torch.testing.assert_close(omega, h / 2, rtol=5e-3, atol=0)


def test_the_shares_depend_on_the_path_and_their_sum_does_not() -> None:
    """L = theta_1 theta_2 from (1, 1) to (0, 0): along the axes the shares are 1 and 0, straight 1/2 and 1/2."""
    corner = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    for stops, shares in ((corner, (1.0, 0.0)), (corner[::2], (0.5, 0.5))):
        path = torch.cat([torch.lerp(a, b, torch.linspace(0, 1, 2001)[:, None]) for a, b in itertools.pairwise(stops)])
        middle = (path[1:] + path[:-1]) / 2  # the gradient is (theta_2, theta_1)
        w = -(middle.flip(1) * path.diff(dim=0)).sum(0)
        torch.testing.assert_close(w, torch.tensor(shares), rtol=0, atol=1e-3)


def test_with_plain_descent_the_share_is_a_sum_of_squared_batch_gradients() -> None:
    task, model = clbook.split(clbook.load("digits"), 5, kind="task").first(1), clbook.mlp(64, 10, (8,))
    seen: list[Tensor] = []

    class Watched(SI):
        stacks = False

        def after_step(self, theta: Tensor, state: State, update: Update) -> tuple[Tensor, State]:
            theta, state = super().after_step(theta, state, update)
            seen.append(update.direction.square())
            expected = 0.1 * torch.stack(seen).sum(0)
            torch.testing.assert_close(state["path"], expected, rtol=1e-3, atol=1e-6)
            return theta, state

    clbook.run(task, Watched(lam=0.0), 1, net=model, steps=30, optimizer="sgd", lr=0.1, device="cpu")
    assert len(seen) == 30


def test_mean_and_mode_of_two_networks() -> None:
    F, theta = torch.tensor([9.0, 1.0]), torch.tensor([0.0, 1.0])
    spring = merge({"omega": F[:1], "theta_star": theta[:1]}, F[1:], theta[1:])
    loss = lambda t: float((F * (t - theta) ** 2).sum()) / 2  # noqa: E731
    assert float(spring["theta_star"]) == pytest.approx(0.1)
    assert (loss(0.5), loss(0.1)) == pytest.approx((1.25, 0.45))


def test_two_networks_with_their_units_in_another_order() -> None:
    f = lambda u, v, x: v[0] * max(u[0] * x, 0) + v[1] * max(u[1] * x, 0)  # noqa: E731
    for x in (-2.0, 0.5, 3.0):
        assert f((1, -1), (1, -1), x) == f((-1, 1), (-1, 1), x) == x
        assert f((0, 0), (0, 0), x) == 0


def test_averages_need_a_common_start() -> None:
    """On the small digits with the task told, networks from starts of their own average worse than from one start."""

    @dataclass(frozen=True)
    class Scattered(Average):
        def before_task(self, net: Net, theta: Tensor, state: State, task: Task, rng: Rng) -> tuple[Tensor, State]:
            _, state = super().before_task(net, theta, state, task, rng)
            return net.init(int(torch.randint(2**31, (), generator=rng))).to(theta), state

    tasks = clbook.split(clbook.load("digits"), 2, kind="task")
    training = {"net": clbook.mlp(64, 10, (40, 40, 40)), "steps": 150, "batch_size": 32, "optimizer": "adam", "lr": 3e-3}
    results = (clbook.run(tasks, method, 8, device="cpu", **training) for method in (Average(), Scattered()))
    one, many = (clbook.metrics.average_accuracy(result.R).mean() for result in results)
    assert one > many + 0.05


def test_columns_of_a_progressive_network() -> None:
    count = lambda k: sum(p.numel() for p in Column([784, 400, 400, 2], k).parameters())  # noqa: E731
    assert (count(0), count(4)) == (475_202, 1_118_402)


def test_two_conditions() -> None:
    g, g2 = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, -1.0])
    for g1, a_gem in ((torch.tensor([-1.0, 1.0]), [0.0, 0.0]), (torch.tensor([-1.0, 3.0]), [0.5, 0.5])):
        turned = project(g, (g1 + g2) / 2)
        torch.testing.assert_close(turned, torch.tensor(a_gem), rtol=0, atol=1e-6)
        torch.testing.assert_close(project_all(g, torch.stack([g1, g2])), torch.zeros(2), rtol=0, atol=1e-5)
    assert float(turned @ g2) == pytest.approx(-1)


def test_der_takes_the_mean_over_the_outputs() -> None:
    """alpha = 1 here is 0.1 of a paper that sums over ten outputs: the loss of DER++ beside the formula of its page."""
    data = clbook.load("digits")
    tasks, model = clbook.split(data, 5, kind="class"), clbook.mlp(64, 10, (8,))
    theta, rng = model.init(0), torch.Generator().manual_seed(0)
    method = DERpp(alpha=1.0, beta=0.0, size=50)
    state = method.after_task(model, theta, method.start(model, theta), tasks[0], rng)
    batch = method.prepare(state, tasks, 1, tasks.batch(1, torch.arange(16)), rng)
    moved = theta + 0.1
    gap = (model(moved, batch.old.x) - batch.old.drawn["z"]).square().sum(1).mean()
    extra = method.loss(model, moved, state, batch) - model.loss(moved, batch)
    torch.testing.assert_close(extra, 0.1 * gap)


def test_copies_of_copies_lose_their_spread() -> None:
    assert 0.99**68 > 0.5 > 0.99**69
    draw = torch.Generator().manual_seed(0)
    spread = torch.ones(20_000)
    for _ in range(5):
        samples = spread.sqrt()[:, None] * torch.randn(20_000, 20, generator=draw)
        spread = samples.var(1, correction=0)
    assert float(spread.mean()) == pytest.approx((19 / 20) ** 5, rel=0.02)


def test_how_far_back_an_average_looks() -> None:
    a, t = 0.999, torch.arange(40_000, dtype=torch.float64)
    weight = (1 - a) * a**t
    assert float(weight.sum()) == pytest.approx(1) and float((weight * t).sum()) == pytest.approx(999, rel=1e-6)
    assert float(weight.square().sum()) == pytest.approx((1 - a) / (1 + a)) == pytest.approx(1 / 2000, rel=1e-3)
    assert (round(a**2000, 3), round(2 ** (-1 / 2000), 5)) == (0.135, 0.99965)
    moving = torch.linspace(0, 1, 101, dtype=torch.float64)  # 100 steps from A (0) to B (1)
    path = torch.cat([moving, torch.ones(3900, dtype=torch.float64)])
    average, at = torch.zeros((), dtype=torch.float64), {}
    for step, place in enumerate(path[1:], 1):
        average = a * average + (1 - a) * place
        at[step] = float(average)
    assert (round(1 - at[2000], 2), round(1 - at[4000], 2)) == (0.14, 0.02)


def test_what_comes_back_lasts() -> None:
    """A step of 1 every m steps, by the rule of fast and slow weights, until the fast part no longer changes."""
    for m, expected in ((10, 9.3), (500, 0.90)):
        fast = slow = torch.zeros((), dtype=torch.float64)
        method = FastWeights(rho=0.1, decay=0.99)
        for step in range(8 * m if m == 500 else 200 * m):
            before = slow + fast
            after = before + (1.0 if step % m == 0 else 0.0)
            theta, state = method.after_step(after, {"fast": fast}, Update(before, before, before))
            fast = state["fast"]
            slow = theta - fast
            if step % m == 0:
                shown = float(fast)
        assert shown == pytest.approx(expected, rel=0.01)


def test_what_gates_share() -> None:
    assert 0.96**16 > 0.5 > 0.96**17 and 0.75**8 > 0.1 > 0.75**9
    on = round(0.2 * 400)
    assert (on, on**2, round(0.04 * on**2)) == (80, 6400, 256)
    slope = lambda u: 1 / (2 * (math.cosh(u) + 1))  # noqa: E731
    sigmoid = lambda u: 1 / (1 + math.exp(-u))  # noqa: E731
    for u in (-3.0, 0.2, 5.0):
        assert slope(u) == pytest.approx(sigmoid(u) * (1 - sigmoid(u)))


def test_what_sums_hold() -> None:
    """The covariance from the sums, the optimum of ridge regression, and their size in bytes."""
    draw = torch.Generator().manual_seed(0)
    phi, y = torch.randn(60, 5, generator=draw, dtype=torch.float64), torch.randint(0, 3, (60,), generator=draw)
    Y = nn.functional.one_hot(y, 3).double()
    n, S, G = Y.sum(0), phi.T @ Y, phi.T @ phi
    mu = S / n
    centred = phi - mu.T[y]
    torch.testing.assert_close((G - S @ mu.T) / 60, centred.T @ centred / 60)
    W, _ = ridge(S, G, 0.7)
    W.requires_grad_()
    loss = (phi @ W - Y).square().sum() + 0.7 * W.square().sum()
    assert float(torch.autograd.grad(loss, W)[0].abs().max()) < 1e-9
    assert round(8 * (2000 * 2001 / 2 + 2000 * 10) / 1e6, 1) == 16.2


def test_the_numbers_in_the_text_are_those_of_the_stored_runs() -> None:
    """What the role and the directive `benchmark` print, beside the mean and Student's interval of the last rows of R."""
    spec = importlib.util.spec_from_file_location("benchmark_in_text", ROOT / "book" / "_ext" / "benchmark.py")
    assert spec and spec.loader
    spec.loader.exec_module(in_text := importlib.util.module_from_spec(spec))
    result = experiments.stored("benchmark").results["split domain: EWC"]
    accuracy = 100 * result.R[:, -1].mean(1)
    half = stats.t.ppf(0.975, len(accuracy) - 1) * accuracy.std(ddof=1) / math.sqrt(len(accuracy))
    space = "\N{NO-BREAK SPACE}"
    expected = f"{accuracy.mean():.1f}{space}±{space}{half:.1f}"
    assert in_text.accuracy("domain: EWC") == in_text.accuracy("split domain: EWC") == expected
    assert in_text.kept("EWC") == f"{2 * 4 * clbook.mlp(784, 10).n_params / 1e6:.1f}", "two numbers of four bytes a parameter"
    assert in_text.accuracy("domain: no such method") == ""
    features = experiments.stored("fixed-features").results["mnist class: LDA, pixels"]
    assert in_text.accuracy("class: LDA, pixels") == f"{100 * features.R[0, -1].mean():.1f}", "one run has no interval"


def test_the_pages_say_of_the_benchmark_what_it_holds() -> None:
    """What the text says in words beside the numbers that are taken from the stored results when the book is built."""
    report, features = experiments.stored("benchmark"), experiments.stored("fixed-features")
    found = {key.removeprefix("split "): clbook.metrics.interval(v) for key, v in report.ours.items()}
    acc = {key: float(mean) for key, (mean, _) in found.items()}

    def overlap(a: str, b: str) -> bool:
        return abs(acc[a] - acc[b]) <= found[a][1] + found[b][1]

    springs = ("EWC", "online EWC", "SI", "MAS", "RWalk")
    # regularisation
    assert all(acc[f"task: {m}"] > acc["task: joint training"] - 1 for m in springs)
    assert all(acc["domain: fine-tuning"] < acc[f"domain: {m}"] < acc["domain: fine-tuning"] + 15 for m in springs)
    assert all(abs(acc[f"class: {m}"] - acc["class: fine-tuning"]) < 1.5 for m in (*springs, "L2"))
    # new models
    held = max(acc[f"domain: {m}"] for m in (*springs, "L2", "LwF"))
    assert min(acc["domain: average of weights"], acc["domain: IMM, mean"]) > held
    assert acc["domain: average of weights"] > acc["domain: IMM, mean"] - 3
    assert acc["class: average of weights"] < acc["class: fine-tuning"] + 3 < acc["class: IMM, mean"]
    assert acc["class: progressive networks"] < acc["class: fine-tuning"] + 2
    assert all(acc[f"{k}: feature extraction"] < acc[f"{k}: fine-tuning"] for k in ("domain", "class"))
    assert all(overlap(f"{k}: IMM, mean", f"{k}: IMM, mode") for k in KINDS)
    # rehearsal and memory
    assert acc["class: DER++"] > acc["class: ER"] + 3 > acc["class: A-GEM"] + 13
    assert acc["class: GEM"] > acc["class: ER"], "which A-GEM, with a single condition, is far below"
    assert acc["class: CLS-ER"] > acc["class: ER"] + 3 and abs(acc["class: CLS-ER"] - acc["class: DER++"]) < 1.5
    assert all(overlap(f"{k}: fast and slow weights", f"{k}: ER") for k in KINDS)
    kept = {m: report.results[f"split class: {m}"].memory_bytes.max() for m in ("ER", "L2")}
    assert kept["ER"] < kept["L2"], "a thousand images, and one number for each parameter"
    # few neurons
    assert all(acc[f"task: {m}"] > acc["task: separate networks"] - 1.5 for m in ("XdG", "HAT", "PackNet"))
    assert all(acc[f"{k}: k winners take all"] < acc[f"{k}: fine-tuning"] + 1 for k in ("task", "domain", "class"))
    # fixed features
    fixed = {key.removeprefix("mnist "): float(clbook.metrics.interval(v)[0]) for key, v in features.ours.items()}
    lda, means, ridge_ = (fixed[f"class: {m}, 2000 random features"] for m in ("LDA", "class means", "ridge"))
    bounds = ("class: joint training", "class: cumulative training")
    trained = (v for key, v in acc.items() if key.startswith("class") and key not in bounds)
    assert lda > max(trained), "above all methods that go on training, the bounds aside"
    assert lda > means + 10 and abs(lda - ridge_) < 0.6
    assert fixed["class: LDA, 100 random features"] < fixed["class: LDA, 500 random features"] < lda
    first = fixed["class: LDA, features of the first task"]
    assert fixed["class: LDA, 100 random features"] < first < fixed["class: LDA, 500 random features"]
    assert fixed["class: LDA, pixels"] > acc["class: fine-tuning"] + 60
    # summary
    assert acc["domain: EWC"] < acc["domain: LwF"] < acc["domain: IMM, mean"]


@pytest.mark.parametrize(
    ("page", "numbers"),
    [
        ("regularisation", ("17.9 %", "19.6 %")),
        ("replay", ("78.7 %", "34.8 %")),
        ("memory", ("73.4 %", "76.9 %", "19.5 %", "19.0 %")),
        ("neurons", ("94.1", "24 %", "79.5", "86.6", "75.7")),
    ],
)
def test_the_pages_quote_the_notebook_on_the_families(page: str, numbers: tuple[str, ...]) -> None:
    cells = json.loads((ROOT / "notebooks" / "06_families.ipynb").read_text())["cells"]
    printed = " ".join("".join(o.get("text", [])) for c in cells for o in c.get("outputs", []))
    text = (ROOT / "book" / "families" / f"{page}.md").read_text()
    for number in numbers:
        assert number in text and number.replace(" %", "") in printed, f"{number}: on the page, and printed in the notebook"


def test_the_summary_quotes_what_the_way_to_an_answer_costs() -> None:
    """At the second learning rate and the full length, where both ways have learned parity about equally well."""
    page, arrays = (ROOT / "book" / "summary.md").read_text(encoding="utf-8"), experiments.stored("parity").arrays
    own, picked = (arrays[way][:, 1, -1, :2].mean(0) for way in ("own right answers", "labels 0 and 1"))
    before = arrays["start"].mean()
    assert f"left {own[0]:.0f} % accuracy on the old task ({before:.0f} % before)" in page
    assert f"labels 0 and 1 left {picked[0]:.0f} %" in page
    assert abs(own[1] - picked[1]) < 0.5


def test_the_summary_quotes_streams_long_streams_and_the_language_model() -> None:
    page = (ROOT / "book" / "summary.md").read_text(encoding="utf-8")
    blur, gap, plastic = (experiments.stored(name) for name in ("streams", "stability-gap", "plasticity"))
    shown = lambda values: "{:.1f} ± {:.1f}".format(*clbook.metrics.interval(values))  # noqa: E731
    ends = {k: v.mean() for k, v in blur.ours.items() if k.endswith(": final")}
    in_percent = [ends[f"permuted: 0.5: {k}: final"] for k in ("CLS-ER", "fine-tuning", "ridge")]
    in_percent += [ends[f"split: 0.5: {k}: final"] for k in ("CLS-ER", "fine-tuning", "ridge", "LwF, detector", "LwF, clock")]
    in_percent += [gap.ours[f"split: {k}: {what}"].mean() for k in ("DER++", "GEM") for what in ("final", "min")]
    in_percent += [plastic.ours["Adam, weight decay: late"].mean(), plastic.arrays["kept/EWC"].mean()]
    springs = experiments.stored("plasticity-springs")
    ewc, online = "EWC, λ = 10", "online EWC, λ = 10, γ = 0.9"
    aged = "online EWC, λ = 10, γ = 1"
    in_percent += [springs.ours[f"{k}: kept"].mean() for k in (ewc, online, aged)]
    in_percent += [springs.ours[f"{k}: late"].mean() for k in (online, aged, "a fresh network, Adam")]
    in_percent += [plastic.arrays["kept/SGD"].mean()]
    fifths = springs.arrays[f"new/{ewc}"].reshape(5, 5, -1).mean((0, 2))
    assert f"to {fifths[0]:.0f} % in the first fifth and to {fifths[-1]:.0f} % in the last" in page
    assert [f"{v:.1f} %" for v in in_percent if f"{v:.1f} %" not in page] == []

    plain = blur.ours["permuted: 0.5: fine-tuning: final"]
    gains = [blur.ours[f"permuted: 0.5: EWC, {how}: final"] - plain for how in ("detector", "clock")]
    lost = [plastic.ours[f"{label}: lost"] for label in ("SGD", "SGD, lr 0.3")]
    assert all(shown(values) in page for values in (*gains, *lost))

    reports = map(experiments.stored, ("lm-finetuning", "lm-further", "lm-ends", "lm-rates"))
    curves = {k: rates.unbeaten(v.values()) for k, v in rates.at_every_rate(*reports).items()}
    order = ("recorded replay", "pseudo-rehearsal", "replay", "averaged with the base", "EWC", "all weights")
    for code, families in ((1.5, order), (1.55, (*order, "LoRA, rank 4"))):
        found = [rates.read_off(curves[family], code) for family in families]
        means = [v.mean() for v in found if v is not None]
        assert means == sorted(means) and len(means) == len(families), "in the order in which the page has them"
        assert [f"{v:.3f}" for v in means if f"{v:.3f}" not in page] == []


def test_the_page_quotes_how_cost_grows() -> None:
    """Seconds with one decimal, megabytes without, each size in its column."""
    page = (ROOT / "book" / "cluster.md").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "benchmarks" / "growth.json").read_text())
    for name in ("tasks", "runs", "width"):
        sizes = " | ".join(f"{size:,}" for size in measured[name]["sizes"])
        seconds = " | ".join(f"{value:.1f}" for value in measured[name]["seconds"])
        megabytes = " | ".join(f"{value:.0f}" for value in measured[name]["megabytes"])
        table = page.split(f"| {name} | {sizes} |")[1].split("\n\n")[0]
        assert f"| seconds | {seconds} |" in table and f"| MB | {megabytes} |" in table, name
