"""Generative replay: the bound by hand, labels and masks of dreams, and whether a stranger reads the dreams as digits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import refused
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from clbook import Data, Net, load, metrics, mlp, permuted, reconstruct, run, split
from clbook.methods import DGR, Finetune
from clbook.methods.generative import dream, elbo, part
from clbook.scenarios import Scenario

QUICK = {"progress": False, "batch_size": 32, "steps": 12, "dtype": torch.float64}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def small(scenario: Scenario, hidden: tuple[int, ...] = (16,)) -> Net:
    return mlp(scenario.data.x.shape[1], scenario.n_outputs, hidden)


def extended(scenario: Scenario, method: DGR) -> tuple[Net, Tensor]:
    net = method.extend(small(scenario), scenario)
    return net, net.init(0)


# the generator ----------------------------------------------------------------------------------------------------------


def test_elbo_against_torch_distributions(digits: Data) -> None:
    net, theta = extended(permuted(digits, 1), DGR(hidden=8, z=3))
    x, noise = digits.x[:20], torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    mu, log_var = part(net, theta, "vae.encode", x).split(3, dim=1)
    q = Normal(mu, (log_var / 2).exp())
    p = Bernoulli(logits=part(net, theta, "vae.decode", q.loc + q.scale * noise), validate_args=False)
    bound = p.log_prob(x).sum(1) - kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(elbo(net, theta, x, noise), -bound.mean() / 64)


def test_classifier_and_generator_share_theta_and_nothing_else(digits: Data) -> None:
    scenario, method = split(digits, 5), DGR(hidden=8, z=3)
    net, theta = extended(scenario, method)
    alone = small(scenario)
    assert torch.equal(theta[: alone.n_params], alone.init(0)), "the classifier starts as it would alone"
    torch.testing.assert_close(net(theta, digits.x[:5]), alone(theta[: alone.n_params], digits.x[:5]))
    generator = net.n_params - alone.n_params
    assert generator == (64 * 8 + 8 + 8 * 8 + 8 + 8 * 6 + 6) + (3 * 8 + 8 + 8 * 8 + 8 + 8 * 64 + 64)
    result = run(scenario, method, net=alone, **{**QUICK, "steps": 1})
    assert result.memory_bytes[0] == 4 * generator


def test_lam_zero_is_fine_tuning(digits: Data) -> None:
    scenario = split(digits, 5, kind="class")
    plain = run(scenario, Finetune(), 2, net=small(scenario), **QUICK)
    other = run(scenario, DGR(lam=0.0, hidden=8, z=3), 2, net=small(scenario), **QUICK)
    assert np.array_equal(plain.R, other.R, equal_nan=True)
    for a, b in zip(plain.theta, other.theta, strict=True):
        torch.testing.assert_close(a, b[: len(a)], rtol=0, atol=1e-12)


# labels of dreams -------------------------------------------------------------------------------------------------------


def recall_by_hand(net: Net, theta: Tensor, old: Tensor, x: Tensor, groups: list[tuple[list, list]], T: float) -> float:
    """The mean over (old outputs, outputs now) of the cross-entropy, hard where T = 0."""
    losses = []
    for before, now in groups:
        z, z_old = net(theta, x), net(old, x)
        if T == 0:
            label = torch.tensor([now.index(before[int(i)]) for i in z_old[:, before].argmax(1)])
            losses.append(nn.functional.cross_entropy(z[:, now], label))
        else:
            log_p = (z[:, now] / T).log_softmax(1)[:, [now.index(c) for c in before]]
            losses.append(-((z_old[:, before] / T).softmax(1) * log_p).sum(1).mean())
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("T", [0, 2.0])
@pytest.mark.parametrize("kind", ["task", "domain", "class"])
def test_labels_of_dreams_by_hand(digits: Data, kind: str, T: float) -> None:
    """No dream is labelled as a class of the new task; in task-incremental learning every old task labels it."""
    scenario, k = split(digits, 5, kind=kind), 2
    method = DGR(hidden=8, z=3, distill=T > 0, temperature=T or None)
    net, theta = extended(scenario, method)
    old = net.init(1)
    batch = scenario.batch(k, torch.arange(16))
    batch = method.prepare({"theta_old": old}, scenario, k, batch, torch.Generator().manual_seed(0))
    groups = {
        "task": [([0, 1], [0, 1]), ([2, 3], [2, 3])],
        "class": [(list(range(4)), list(range(6)))],
        "domain": [([0, 1], [0, 1])],
    }[kind]
    x = dream(net, old, batch.drawn["z"])
    expected = recall_by_hand(net, theta, old, x, groups, T)
    assert float(method.recall(net, theta, {"theta_old": old}, batch._replace(x=x))) == pytest.approx(expected, rel=1e-5)
    fresh = net.loss(theta, batch) + elbo(net, theta, batch.x, batch.drawn["noise"])
    past = expected + elbo(net, theta, x, batch.drawn["noise_old"])
    assert float(method.loss(net, theta, {"theta_old": old}, batch)) == pytest.approx(float(fresh / 3 + past * 2 / 3), rel=1e-5)


def test_t_squared(digits: Data) -> None:
    scenario = split(digits, 5, kind="class")
    net, theta = extended(scenario, DGR(hidden=8, z=3))
    state = {"theta_old": net.init(1)}
    batch = scenario.batch(1, torch.arange(16))
    plain, squared = (DGR(hidden=8, z=3, distill=True, temperature=3.0, t_squared=t) for t in (False, True))
    batch = plain.prepare(state, scenario, 1, batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(squared.recall(net, theta, state, batch), 9 * plain.recall(net, theta, state, batch))


# does it work -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(digits: Data) -> tuple[Net, Tensor]:
    """A classifier and a generator of all ten digits."""
    scenario = permuted(digits, 1)
    method = DGR(hidden=200, z=10)
    result = run(scenario, method, net=small(scenario, (64,)), steps=1000, batch_size=64, lr=2e-3, progress=False)
    return method.extend(small(scenario, (64,)), scenario), result.theta[0]


def test_a_stranger_reads_the_dreams_as_digits(digits: Data, trained: tuple[Net, Tensor]) -> None:
    """Nearest neighbours among real digits give at least 80 % of the dreams the label that DGR gives; all ten occur."""
    from sklearn.neighbors import KNeighborsClassifier

    net, theta = trained
    z = torch.randn(500, 10, generator=torch.Generator().manual_seed(1))
    dreams = dream(net, theta, z)
    label = net(theta, dreams).argmax(1)
    stranger = KNeighborsClassifier(3).fit(digits.x, digits.y)
    agree = (torch.tensor(stranger.predict(dreams)) == label).float().mean()
    noise = torch.rand(500, 64, generator=torch.Generator().manual_seed(2)) * 2 * digits.x.mean()
    nonsense = (torch.tensor(stranger.predict(noise)) == net(theta, noise).argmax(1)).float().mean()
    assert agree >= 0.8 and nonsense < 0.5, f"agreement {agree:.2f} on dreams, {nonsense:.2f} on noise"
    assert torch.bincount(label, minlength=10).min() >= 10, "a digit is hardly ever dreamt of"
    # and they lie as near to real digits as real digits do, not halfway between them
    near = lambda x: torch.cdist(x, digits.x).min(1).values.median()  # noqa: E731
    assert near(dreams) < 1.25 * near(digits.x_test) < near(noise)


def test_dreams_keep_old_classes(digits: Data) -> None:
    scenario = split(digits, 5, kind="class").first(3)
    many = {"net": small(scenario, (64,)), "steps": 200, "batch_size": 32, "lr": 3e-3, "progress": False}
    result = run(scenario, DGR(hidden=64, z=10), **many)
    plain = run(scenario, Finetune(), **many)
    assert result.R[0, -1, :2].min() > 0.5 and plain.R[0, -1, :2].max() < 0.1
    assert metrics.average_accuracy(result.R)[0] > metrics.average_accuracy(plain.R)[0] + 0.3


def test_without_labels(digits: Data) -> None:
    """Reconstruction: dreams keep an autoencoder from forgetting how the first classes look."""
    base = split(digits, 5, kind="domain").first(2)
    data = replace(digits, y=None, y_test=None)
    scenario = reconstruct(replace(base, data=data))
    many = {"net": mlp(64, 64, (32,)), "steps": 200, "batch_size": 32, "lr": 3e-3, "progress": False}
    with_dreams, plain = run(scenario, DGR(hidden=64, z=10), **many), run(scenario, Finetune(), **many)
    assert metrics.forgetting(with_dreams.R)[0] < 0.6 * metrics.forgetting(plain.R)[0]


def test_stacked_equals_alone(digits: Data) -> None:
    scenario = split(digits, 5, kind="class").first(3)
    methods = [DGR(lam=lam, hidden=8, z=3, distill=True, temperature=T) for lam, T in ((1.0, 2.0), (0.5, 1.0))]
    both = run(scenario, methods, [0, 3], net=small(scenario), **QUICK)
    for i, (m, seed) in enumerate([(m, s) for m in methods for s in (0, 3)]):
        alone = run(scenario, m, [seed], net=small(scenario), **QUICK)
        torch.testing.assert_close(both.theta[i], alone.theta[0], rtol=0, atol=1e-10)


def test_bad_input(digits: Data) -> None:
    with refused("DGR's generator draws .* between 0 and 1"):
        run(split(replace(digits, x=digits.x * 2 - 1)), DGR(), steps=1, progress=False)
    assert DGR(distill=True).temperature == 2.0 and DGR().temperature is None
    for field in ({"temperature": 3.0}, {"t_squared": True}):
        with refused(r"DGR\.temperature and DGR\.t_squared belong to distill=True"):
            DGR(**field)
    for name, value in (("temperature", 0.0), ("lam", -1.0), ("z", 0), ("hidden", 2.5), ("distill", 1)):
        with refused(rf"DGR\.{name} must be .*, got {value}"):
            DGR(**{name: value})
