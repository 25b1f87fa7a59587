"""The small examples of the chapter on forgetting and of its notebook, which the reader is asked to believe or to compute.

Book: book/forgetting; notebooks/01_forgetting.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from clbook import metrics


def loss_a(theta: Tensor) -> Tensor:
    return theta[0] ** 2 / 2


def loss_b(theta: Tensor) -> Tensor:
    return (theta[0] + theta[1] - 1) ** 2 / 2


gradient_a, gradient_b = torch.func.grad(loss_a), torch.func.grad(loss_b)


def test_forgetting_needs_no_conflict() -> None:
    """Descent on B from (0, 0) goes to (1/2, 1/2) at 135 degrees to A, and costs A 1/8, though (0, 1) is perfect for both."""
    theta = torch.zeros(2, dtype=torch.float64)
    for step in range(400):
        a, b = gradient_a(theta), gradient_b(theta)
        if 0 < step < 100:  # until rounding is all that is left of b
            assert float(torch.dot(a, b) / a.norm() / b.norm()) == pytest.approx(math.cos(math.radians(135)))
        theta = theta - 0.05 * b
    assert theta.tolist() == pytest.approx([0.5, 0.5]) and float(loss_a(theta)) == pytest.approx(1 / 8)
    both = torch.tensor([0.0, 1.0])
    assert float(loss_a(both)) == float(loss_b(both)) == 0


@pytest.mark.parametrize("lam", [0.1, 1.0, 30.0])
def test_equal_springs_trade_and_the_right_spring_does_not(lam: float) -> None:
    u = 1 / (2 + lam)
    theta = torch.tensor([u, u], dtype=torch.float64)
    assert (gradient_b(theta) + lam * theta).abs().max() < 1e-12, "the minimum with a spring on both"
    assert float(loss_a(theta)) == pytest.approx(1 / (2 * (2 + lam) ** 2))
    assert float(loss_b(theta)) == pytest.approx((lam / (2 + lam)) ** 2 / 2)
    right = torch.tensor([0.0, 1.0])
    assert float((gradient_b(right) + lam * torch.tensor([1.0, 0.0]) * right).abs().max()) == 0


def test_the_exercises_on_the_matrix() -> None:
    R = np.array([[0.9, np.nan, np.nan], [0.7, 0.8, np.nan], [0.75, 0.6, 0.95]])
    assert metrics.average_accuracy(R) == pytest.approx(0.767, abs=5e-4)
    assert metrics.learning_accuracy(R) == pytest.approx(0.883, abs=5e-4)
    assert metrics.backward_transfer(R) == pytest.approx(-0.175) and metrics.forgetting(R) == pytest.approx(0.175)

    there_and_back = np.array([[0.8, np.nan, np.nan], [0.9, 0.7, np.nan], [0.8, 0.7, 0.9]])
    assert metrics.backward_transfer(there_and_back) == pytest.approx(0)
    assert metrics.forgetting(there_and_back) == pytest.approx(0.05)

    assert np.mean([0.99, 0.98, 0.58]) == pytest.approx(0.85) and np.mean([0.84, 0.85, 0.86]) == pytest.approx(0.85)


@pytest.mark.parametrize("tasks", [1, 2, 20])
def test_the_price_of_starting_over(tasks: int) -> None:
    assert sum(range(1, tasks + 1)) / tasks == (tasks + 1) / 2
