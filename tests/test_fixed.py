"""Sums over features that never change: the same in every order, equal to what solves the problem at once, nothing trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from small import clouds, net_for, refused, train
from torch import Tensor, nn

import clbook
from clbook import Scenario, metrics, split
from clbook.lab.fixed import CLASSIFIERS, FIXED, Layer, Row, Sizes, measure, rows, rows_of, search, seen
from clbook.methods import LDA, ClassMeans, FeatureExtraction, Finetune, Ridge
from clbook.methods.fixed import FixedFeatures, added, class_means, features, lda, ridge, solve
from clbook.scenarios import KINDS

METHODS = (ClassMeans(), LDA(), Ridge(lam=0.1))
DATA = clouds(n=120, n_test=60, classes=6, shape=(1, 2, 4))
F64 = torch.float64
methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.label)


def double(scenario: Scenario) -> Scenario:
    return scenario.to("cpu", F64)


def samples(n: int = 80, D: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Gaussian clouds with one covariance, every class with another number of samples."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n).square() % 7 % classes
    mixing, centres = torch.randn(D, D, generator=g, dtype=F64), 2 * torch.randn(classes, D, generator=g, dtype=F64)
    return centres[y] + torch.randn(n, D, generator=g, dtype=F64) @ mixing, y


def sums(phi: Tensor, y: Tensor, classes: int = 3) -> dict[str, Tensor]:
    Y = nn.functional.one_hot(y, classes).to(phi)
    return {"n": Y.sum(0), "S": phi.T @ Y, "G": phi.T @ phi}


def state_after(scenario: Scenario, method: FixedFeatures, order: list[int]) -> tuple[dict[str, Tensor], Tensor]:
    """The state and the outputs on all test samples after the tasks in this order, by the hooks alone."""
    net = net_for(scenario, (9,))
    theta, rng = net.init(0).double(), torch.Generator()
    state = method.start(net, theta)
    for k in order:
        state = method.after_task(net, theta, state, scenario[k], rng)
    x = scenario.data.x_test
    return state, features(net, theta, x) @ state["W"] + state["b"]


# nothing to forget --------------------------------------------------------------------------------------------------------


@methods
@pytest.mark.parametrize("kind", KINDS)
def test_every_order_of_the_tasks_gives_the_same_classifier(method: FixedFeatures, kind: str) -> None:
    s = double(split(DATA, 3, kind=kind))
    (state, f), (other, g) = (state_after(s, method, order) for order in ([0, 1, 2], [2, 0, 1]))
    for name in (*method.keeps, "W", "b"):
        torch.testing.assert_close(state[name], other[name], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(f, g, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(f, state_after(s, method, [0, 1])[1]), "the last task must matter"


@methods
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_R_is_what_all_data_at_once_would_give(method: FixedFeatures, kind: str) -> None:
    """Tasks 0 to i one after the other against one sum over all their samples, which no stream of tasks could give."""
    s = double(split(DATA, 3, kind=kind))
    net = net_for(s, (9,))
    R = train(s, method, [4], net=net, steps=1).R[0]
    theta = net.init(4).double()
    for i in range(3):
        seen = [s[k] for k in range(i + 1)]
        phi = features(net, theta, torch.cat([t.x for t in seen]))
        at_once = sums(phi, torch.cat([t.y for t in seen]), s.n_outputs)
        W, b = method.classifier(at_once)
        for j, task in enumerate(seen):
            f = features(net, theta, task.x_test) @ W + b
            hits = f.masked_fill(~s.mask[i, j], -torch.inf).argmax(-1) == task.y_test
            assert R[i, j] == hits.double().mean()
    assert np.isnan(R[np.triu_indices(3, 1)]).all()


def test_class_means_of_old_classes_are_not_touched_by_new_ones() -> None:
    """Told the task, no answer changes any more; with all classes to choose from, old outputs stay and new ones join them."""
    R = train(split(DATA, 3, kind="task"), ClassMeans(), 2, steps=1).R
    for j in range(3):
        np.testing.assert_array_equal(R[:, j:, j], np.repeat(R[:, j : j + 1, j], 3 - j, 1))
    s = double(split(DATA, 3, kind="class"))
    f, g = (state_after(s, ClassMeans(), order)[1] for order in ([0], [0, 1, 2]))
    torch.testing.assert_close(f[:, :2], g[:, :2], rtol=1e-12, atol=0)


def test_ridge_regression_of_old_classes_changes_with_what_is_known_of_the_others() -> None:
    """So a constant column of R is not what "nothing is forgotten" means: the matrix G is shared by all classes."""
    s = double(split(DATA, 3, kind="class"))
    f, g = (state_after(s, Ridge(), order)[1] for order in ([0], [0, 1, 2]))
    assert (f[:, :2] - g[:, :2]).abs().max() > 0.01


# the three classifiers ----------------------------------------------------------------------------------------------------


def test_class_means_by_hand() -> None:
    """Two samples around (0, 1), one at (4, 0), and none of a third class: the nearest mean, and which side is nearer."""
    phi, y = torch.tensor([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0]], dtype=F64), torch.tensor([0, 0, 1])
    total = sums(phi, y)
    W, b = class_means(total["n"], total["S"])
    assert W.T.tolist() == [[0, 1], [4, 0], [0, 0]] and b.tolist() == [-0.5, -8, 0]
    x = torch.tensor([[1.0, 1.0], [2.5, 0.0], [1.8, 0.0]], dtype=F64)
    by_distance = torch.cdist(x, W.T[:2]).argmin(-1)
    assert (x @ W + b)[:, :2].argmax(-1).tolist() == by_distance.tolist() == [0, 1, 0]


@pytest.mark.parametrize("shrinkage", [0.0, 0.01, 0.5])
def test_lda_is_scikit_learns(shrinkage: float) -> None:
    """Same differences of the outputs, class shares that differ included; 'lsqr' is its solver that can shrink."""
    phi, y = samples()
    total = sums(phi, y)
    assert len(set(total["n"].tolist())) > 1
    W, b = lda(total["n"], total["S"], total["G"], shrinkage)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage or None).fit(phi.numpy(), y.numpy())
    f, g = phi @ W + b, torch.from_numpy(theirs.decision_function(phi.numpy()))
    torch.testing.assert_close(f - f[:, :1], g - g[:, :1], rtol=1e-8, atol=1e-8)


def test_lda_of_a_known_gaussian_is_bayes_rule() -> None:
    """With the true sums of N samples, the outputs are the log posterior up to what all classes share."""
    g = torch.Generator().manual_seed(1)
    A, mu = torch.randn(4, 4, generator=g, dtype=F64), torch.randn(4, 2, generator=g, dtype=F64)
    sigma, n = A @ A.T + torch.eye(4), torch.tensor([30.0, 10.0], dtype=F64)
    W, b = lda(n, mu * n, n.sum() * sigma + (mu * n) @ mu.T, 0.0)
    x = torch.randn(6, 4, generator=g, dtype=F64)
    gaussians = [torch.distributions.MultivariateNormal(m, sigma) for m in mu.T]
    log_p = torch.stack([p.log_prob(x) for p in gaussians], -1) + (n / n.sum()).log()
    torch.testing.assert_close((x @ W + b).log_softmax(-1), log_p.log_softmax(-1))


@pytest.mark.parametrize("lam", [1e-3, 1.0, 100.0])
def test_ridge_is_least_squares_with_lam_more_samples(lam: float) -> None:
    """sum |W^T phi - y|^2 + lam |W|^2 is plain least squares with rows sqrt(lam) I of target zero."""
    phi, y = samples()
    Y, total = nn.functional.one_hot(y, 3).double(), sums(phi, y)
    more = torch.cat([phi, lam**0.5 * torch.eye(5, dtype=F64)])
    wanted = torch.linalg.lstsq(more, torch.cat([Y, torch.zeros(5, 3, dtype=F64)])).solution
    W, b = ridge(total["S"], total["G"], lam)
    torch.testing.assert_close(W, wanted, rtol=1e-8, atol=1e-10)
    assert not b.any()


def test_sums_that_cannot_be_inverted_are_refused() -> None:
    phi = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], dtype=F64)  # a feature that is twice the other
    with refused("larger lam"):
        solve(-torch.eye(2, dtype=F64), 0.5, phi.T)
    state = sums(phi, torch.tensor([0, 0, 1]))
    with refused("shrinkage"):
        LDA(shrinkage=0.0).classifier(state)
    assert torch.isfinite(LDA(shrinkage=0.1).classifier(state)[0]).all()


# masks ----------------------------------------------------------------------------------------------------------------------


def test_in_the_domain_scenario_the_targets_are_the_labels_that_all_tasks_share() -> None:
    """S has one column a label, and it is the sum of the columns that the digits of the same label have elsewhere."""
    domain, classes = (double(split(DATA, 3, kind=kind)) for kind in ("domain", "class"))
    two, six = (state_after(s, Ridge(), [0, 1, 2])[0] for s in (domain, classes))
    assert two["S"].shape == (9, 2) and six["S"].shape == (9, 6)
    torch.testing.assert_close(two["S"], six["S"].view(9, 3, 2).sum(1))
    torch.testing.assert_close(two["G"], six["G"])


@methods
def test_told_the_task_the_same_sums_answer_at_least_as_well(method: FixedFeatures) -> None:
    """The task scenario differs from the class scenario in the mask of the answers and in nothing else."""
    task, classes = (train(split(DATA, 3, kind=kind), method, 3, steps=1) for kind in ("task", "class"))
    assert (task.R[:, 2] >= classes.R[:, 2]).all() and (task.R[:, 2] > classes.R[:, 2]).any()


# features -------------------------------------------------------------------------------------------------------------------


def test_features_are_what_the_last_layer_is_given() -> None:
    s = split(DATA, 3)
    x = DATA.x[:7]
    for hidden in ((), (9,), (9, 5)):
        net = net_for(s, hidden)
        theta = net.init(1)
        part, h = net.unflatten(theta), x
        for layer in net.layers[:-1]:
            h = (h @ part[f"{layer}.weight"].T + part[f"{layer}.bias"]).relu()
        torch.testing.assert_close(features(net, theta, x), h)
    torch.testing.assert_close(features(net_for(s, ()), net_for(s, ()).init(0), x), x)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_theta_stays_as_it_was_drawn_to_the_last_bit(optimizer: str) -> None:
    s = split(DATA, 3)
    net = net_for(s)
    result = train(s, Ridge(), [3], net=net, steps=9, optimizer=optimizer, lr=0.1, keep_optimizer=True)
    assert torch.equal(result.theta[0], net.init(3).double())
    assert torch.equal(result.theta[0], train(s, Ridge(lam=7.0), [3], net=net, steps=1).theta[0])


def test_features_of_the_first_task_are_trained_on_it_as_fine_tuning_does_and_then_stay() -> None:
    s = split(DATA, 3, kind="class")
    sizes = {"net": net_for(s), "steps": 9, "lr": 0.05, "keep_optimizer": True, "keep_thetas": True}
    ours, plain = (train(s, m, 2, **sizes).thetas for m in (LDA(learn="first"), Finetune()))
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine[0], theirs[0], rtol=1e-12, atol=1e-12)
        assert torch.equal(mine[0], mine[2]) and not torch.equal(theirs[0], theirs[2])
    frozen = train(s, FeatureExtraction(), 1, **sizes)
    at = net_for(s).last(1)
    same = {"rtol": 1e-12, "atol": 1e-12, "msg": "the same features as feature extraction has"}
    torch.testing.assert_close(frozen.thetas[0][2][~at], ours[0][2][~at], **same)


def test_sums_do_not_depend_on_how_the_samples_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    s = double(split(DATA, 2))
    net = net_for(s, (9,))
    theta = net.init(0).double()
    zero = {n: v for n, v in Ridge().start(net, theta).items() if n in Ridge.keeps}
    whole = added(zero, net, theta, s[0])
    monkeypatch.setattr("clbook.methods.fixed.ROWS", 7)
    for name, value in added(zero, net, theta, s[0]).items():
        torch.testing.assert_close(value, whole[name])
        assert not zero[name].any(), "a hook changes nothing in place"
    torch.testing.assert_close(whole, sums(features(net, theta, s[0].x), s[0].y, s.n_outputs))


# what is kept, what is refused ------------------------------------------------------------------------------------------------


def test_memory_is_the_sums_and_of_a_symmetric_one_the_half() -> None:
    s = split(DATA, 3, kind="class")
    bytes_of = [int(train(s, m, 1, steps=1, net=net_for(s, (9,))).memory_bytes[0]) for m in METHODS]
    means = 8 * (6 + 9 * 6)
    assert bytes_of == [means, means + 8 * 45, means + 8 * 45], "9 * 10 / 2 numbers of G, 8 bytes each"


def test_what_has_no_classes_or_no_linear_end_is_refused() -> None:
    with refused("needs one class a sample"):
        train(clbook.reconstruct(split(DATA, 2)), Ridge(), net=clbook.mlp(8, 8, (3,)))
    end = clbook.Net(lambda: nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6)), DATA.x[:1])
    with refused("must be nn.Linear, got LayerNorm"):
        train(split(DATA, 2), ClassMeans(), net=end)


def test_no_strength_that_makes_no_sense() -> None:
    for make, field, value in (
        (Ridge, "lam", 0.0),
        (Ridge, "lam", -1.0),
        (LDA, "shrinkage", 1.5),
        (ClassMeans, "learn", "second"),
    ):
        with refused(f"{make.__name__}.{field} must be .*{value}"):
            make(**{field: value})


# the experiment ---------------------------------------------------------------------------------------------------------------

PIXELS, RANDOM = Layer("pixels", (), 1), Layer("20 random features", (20,), 2)
FIRST = Layer("features of the first task", (20,), 2, "first", 30)
SMALL = Sizes(seeds=2, datas=("digits",), layers=(PIXELS, RANDOM))


def test_each_row_has_a_key_of_its_own_and_names_its_layer() -> None:
    for sizes in FIXED.sizes.values():
        keys = [row.key for row in rows_of(sizes)]
        assert len(set(keys)) == len(keys)
        for layer in sizes.layers:
            assert "random" not in layer.name or layer.name == f"{layer.hidden[0]} random features"
    assert set(FIXED.reference) <= {row.key for row in rows_of(FIXED.sizes["book"])}


@pytest.mark.parametrize("layer", [PIXELS, RANDOM, FIRST], ids=lambda layer: layer.name)
def test_shared_sums_give_the_R_that_run_gives(layer: Layer) -> None:
    """`run` makes the sums anew for every method and scenario. (With two outputs the first task is trained another way.)"""
    group = {
        Row("digits", kind, layer, name): replace(m, learn=layer.learn)
        for kind in KINDS
        for name, (m, _) in CLASSIFIERS.items()
    }
    for row, result in measure(group, seen("digits", layer, 5, 3), 3).items():
        if (layer.learn, row.kind) == ("first", "domain"):
            continue
        s = split(clbook.load("digits"), 5, kind=row.kind)
        net = clbook.mlp(64, s.n_outputs, layer.hidden)
        wanted = clbook.run(s, group[row], [3], net=net, steps=layer.steps, progress=False, device="cpu")
        np.testing.assert_allclose(result.R, wanted.R, atol=0.016)  # one test image of a task may lie on a border
        assert abs(np.nanmean(result.R) - np.nanmean(wanted.R)) < 0.001
        assert result.memory_bytes == wanted.memory_bytes and result.runs == wanted.runs
        assert result.n_params == wanted.n_params or row.kind == "domain"
    seen.cache_clear()


def test_the_search_scores_what_a_run_on_the_held_out_scenario_would() -> None:
    """Every value that is tried, in every kind of scenario; the test set is not looked at."""
    for kind in KINDS:
        row = Row("digits", kind, RANDOM, "ridge")
        found = search(row, SMALL)["lam"]
        scenario = split(clbook.load("digits"), 5, kind=kind).held_out(0.1)
        net = clbook.mlp(64, scenario.n_outputs, (20,))
        for value, scores in found.scores.items():
            R = clbook.run(scenario, Ridge(lam=value), [1000], net=net, steps=1, progress=False, device="cpu").R
            assert scores[0] == pytest.approx(100 * metrics.average_accuracy(R)[0], abs=0.8)
    assert search(Row("digits", "class", RANDOM, "class means"), SMALL) == {}
    seen.cache_clear()


def test_rows_read_their_own_keys() -> None:
    from clbook.lab.report import Report

    row = Row("digits", "class", RANDOM, "ridge")
    result = measure({row: row.method(lam=0.03)}, seen("digits", RANDOM, 5, 0), 0)[row]
    key = "digits class: ridge, 20 random features"
    report = Report(
        "fixed-features", "quick", {}, {key: result}, {f"cpu/{key}": np.array([2.0, 1.5])}, {key: np.array([90.0, 92.0])}, {}
    )
    (found,) = rows(report)
    assert (found["data"], found["kind"], found["classifier"], found["features"]) == (
        "digits",
        "class",
        "ridge",
        "20 random features",
    )
    assert (found["accuracy"], found["seconds"], found["chosen"]) == (91.0, 1.5, {"lam": 0.03})
    assert found["bytes"] == 8 * (10 + 200 + 210)
