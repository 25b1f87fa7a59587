"""Projected gradients: no negative product with the references, and the closest vector of that kind (against brute force)."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from small import refused
from torch import Tensor
from torch.func import grad, vmap

from clbook import Data, load, metrics, mlp, run, split
from clbook.methods import AGEM, GEM, Finetune
from clbook.methods.gem import dual, project, project_all

QUICK = {"progress": False, "batch_size": 32, "steps": 12, "dtype": torch.float64}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# A-GEM ------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_projection_is_the_closest_vector_without_a_negative_product(seed: int, size: int) -> None:
    g, ref = draw(seed, size), draw(seed + 1, size)
    z = project(g, ref)
    if g @ ref >= 0:
        assert torch.equal(z, g)
    else:
        assert abs(float(z @ ref)) < 1e-12 * float(ref @ ref)
        v, _ = nnls(ref.numpy()[:, None], -g.numpy())  # the same problem for scipy
        np.testing.assert_allclose(z.numpy(), g.numpy() + v[0] * ref.numpy(), atol=1e-10)


def test_agem_example_by_hand() -> None:
    g, ref = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 2.0])
    assert project(g, ref).tolist() == [1.0, 0.0]


# GEM --------------------------------------------------------------------------------------------------------------------


def brute_force(g: Tensor, G: Tensor) -> Tensor:
    """Try every set of active constraints and take the closest vector that breaks none."""
    best, least = None, float("inf")
    for active in product([False, True], repeat=len(G)):
        A = G[list(active)]
        z = g if not len(A) else g - A.T @ torch.linalg.lstsq(A @ A.T, (A @ g)[:, None], driver="gelsd").solution[:, 0]
        if (G @ z >= -1e-9 * G.norm(dim=1) * g.norm()).all() and float((z - g).norm()) < least:
            best, least = z, float((z - g).norm())
    assert best is not None
    return best


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 7))
@settings(max_examples=80, deadline=None)
def test_gem_against_brute_force(seed: int, k: int, size: int) -> None:
    """Also with more references than dimensions, where only 0 may be left."""
    g, G = draw(seed, size), draw(seed + 1, k, size) * torch.tensor([1e-3, 1.0, 30.0, 1.0, 1.0])[:k, None]
    z = project_all(g, G)
    torch.testing.assert_close(z, brute_force(g, G), rtol=0, atol=1e-6)
    assert (G @ z >= -1e-7 * G.norm(dim=1)).all()


def test_gem_with_the_same_reference_twice_is_agem() -> None:
    g, ref = draw(0, 6), draw(1, 6)
    g = g if g @ ref < 0 else -g
    torch.testing.assert_close(project_all(g, torch.stack([ref, ref, 5 * ref])), project(g, ref), rtol=0, atol=1e-9)
    torch.testing.assert_close(project_all(g, ref[None]), project(g, ref), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_gem_keeps_all_products_nonnegative_in_large_problems(dtype: torch.dtype, tolerance: float, margin: float) -> None:
    for seed in range(30):
        g, common = draw(seed, 500).to(dtype), draw(seed + 1, 500).to(dtype)
        G = draw(seed + 2, 19, 500).to(dtype) + 2 * common - g  # references that agree with each other and not with g
        z = project_all(g, G, margin)
        assert (G @ z).min() >= -tolerance * (G.norm(dim=1) * g.norm()).max()
        assert (G @ g).min() < 0 and not torch.equal(z, g)


def test_margin_leans_towards_the_old_tasks() -> None:
    """v >= margin in the dual, z = g + G^T v: with orthogonal references everything can be done by hand."""
    G = torch.eye(3, dtype=torch.float64)[:2]
    g = torch.tensor([-2.0, 1.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(project_all(g, G), torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(project_all(g, G, 0.5), torch.tensor([0.0, 1.5, 4.0], dtype=torch.float64))
    torch.testing.assert_close(project_all(g, G, 3.0), torch.tensor([1.0, 4.0, 4.0], dtype=torch.float64))
    assert torch.equal(project_all(g.abs(), G, 0.5), g.abs()), "a step that hurts no task is left alone"


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_dual_fulfils_its_optimality_conditions(seed: int, k: int) -> None:
    G, b = draw(seed, k, k + 3), draw(seed + 1, k)
    A = G @ G.T
    v = dual(A, b)
    w = A @ v + b  # Karush, Kuhn and Tucker: v >= 0, w >= 0, v . w = 0
    assert v.min() >= 0 and w.min() > -1e-7 and float((v * w).abs().max()) < 1e-6


def test_many_projections_in_one_batch() -> None:
    g, G, margin = draw(0, 16, 9), draw(1, 16, 4, 9), torch.linspace(0, 1, 16, dtype=torch.float64)
    together = vmap(project_all)(g, G, margin)
    for i in range(16):
        torch.testing.assert_close(together[i], project_all(g[i], G[i], float(margin[i])), rtol=0, atol=1e-12)


# in training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [AGEM(size=5), GEM(size=5, margin=0.0), GEM(size=5)], ids=repr)
@pytest.mark.parametrize("kind", ["task", "domain", "class"])
def test_no_step_goes_against_the_past(digits: Data, kind: str, method: AGEM | GEM) -> None:
    scenario = split(digits, 5, kind=kind)
    net = mlp(64, scenario.n_outputs, (16,))
    theta, generator = net.init(0).double(), torch.Generator().manual_seed(0)
    scenario, state = scenario.to("cpu", torch.float64), method.start(net, theta)
    for k in range(3):
        state = method.after_task(net, theta, state, scenario[k], generator)
    against = 0
    for trial in range(10):
        batch = scenario.batch(3, torch.randint(100, (32,), generator=generator))
        batch = method.prepare(state, scenario, 3, batch, generator)
        z = method.direction(net, net.init(trial).double(), state, batch)
        loss = lambda t, b: net.loss(t, b)  # noqa: E731
        old, at = batch.old, net.init(trial).double()
        if isinstance(method, AGEM):
            refs = [grad(loss)(at, old)]
        else:
            assert [set(t.tolist()) for t in old.task] == [{0}, {1}, {2}], "one batch from each earlier task"
            refs = [grad(loss)(at, old._replace(x=old.x[j], y=old.y[j], mask=old.mask[j])) for j in range(3)]
        assert min(float(z @ r) for r in refs) > -1e-9
        against += min(float(grad(loss)(at, batch) @ r) for r in refs) < 0
    assert against > 0 or kind == "task", "nothing was ever projected: the test says nothing"


@pytest.mark.parametrize("methods", [[AGEM(size=3)], [GEM(size=3, margin=m) for m in (0.0, 0.5)]], ids=lambda m: m[0].label)
def test_stacked_equals_alone(digits: Data, methods: list[AGEM] | list[GEM]) -> None:
    scenario = split(digits, 5, kind="class")
    net = mlp(64, 10, (16,))
    both = run(scenario, methods, [0, 3], net=net, **QUICK)
    for i, (m, seed) in enumerate([(m, s) for m in methods for s in (0, 3)]):
        torch.testing.assert_close(both.theta[i], run(scenario, m, [seed], net=net, **QUICK).theta[0], rtol=0, atol=1e-10)


def test_gem_and_agem_forget_less_than_fine_tuning(digits: Data) -> None:
    scenario = split(digits, 5, kind="class")
    many = {"net": mlp(64, 10, (64,)), "steps": 100, "batch_size": 32, "lr": 5e-3, "progress": False}
    forgot = {m.label: metrics.forgetting(run(scenario, m, **many).R).mean() for m in (GEM(size=20), AGEM(size=20), Finetune())}
    assert forgot["GEM"] + 0.1 < forgot["A-GEM"] < forgot["Finetune"] - 0.02


def test_bad_input() -> None:
    with refused('"balanced", got \'reservoir\''):
        GEM(buffer="reservoir")
    with refused(r"GEM\.margin must be greater than or equal to 0, got -0\.1"):
        GEM(margin=-0.1)


def test_a_reference_too_small_to_square_is_projected_all_the_same() -> None:
    """Once an old task is learned perfectly, its gradient may be 1e-25; its square is 0 in single precision."""
    g, tiny = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 1e-25, 0.0])
    torch.testing.assert_close(project(g, tiny), torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(project(g, torch.zeros(3)), g)
    both = project_all(g, torch.stack([tiny, torch.tensor([-1.0, 0.0, 0.0])]), 0.5)
    assert bool(torch.isfinite(both).all()) and both[0] <= 1e-5
