"""Metrics on matrices small enough to work out by hand, and what must hold for every matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from clbook import metrics

# After A: 0.9 on A. After B: 0.6 on A, 0.8 on B. After C: 0.7, 0.4, 1.0. The upper triangle was measured too.
R = np.array([[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.7, 0.4, 1.0]])
BELOW = np.where(np.tri(3, dtype=bool), R, np.nan)


@pytest.mark.parametrize("matrix", [R, BELOW])
def test_by_hand(matrix: np.ndarray) -> None:
    """What lies above the diagonal plays no part but in forward transfer."""
    assert metrics.average_accuracy(matrix) == pytest.approx(0.7)  # (0.7 + 0.4 + 1.0) / 3
    assert metrics.average_so_far(matrix) == pytest.approx([0.9, 0.7, 0.7])
    assert metrics.learning_accuracy(matrix) == pytest.approx(0.9)  # (0.9 + 0.8 + 1.0) / 3
    assert metrics.backward_transfer(matrix) == pytest.approx(-0.3)  # ((0.7 - 0.9) + (0.4 - 0.8)) / 2
    assert metrics.forgetting(matrix) == pytest.approx(0.3)  # ((0.9 - 0.7) + (0.8 - 0.4)) / 2


def test_forgetting_counts_from_the_best_and_backward_transfer_from_the_first() -> None:
    """A task that first gains and then loses: 0.5, 0.9, 0.6 forgets 0.3 and transfers +0.1."""
    up_and_down = np.array([[0.5, 0, 0], [0.9, 0.8, 0], [0.6, 0.8, 1.0]])
    assert metrics.forgetting(up_and_down) == pytest.approx((0.3 + 0.0) / 2)
    assert metrics.backward_transfer(up_and_down) == pytest.approx((0.1 + 0.0) / 2)


def test_forgetting_is_negative_where_the_last_task_helped() -> None:
    assert metrics.forgetting(np.array([[0.5, 0], [0.7, 1]])) == pytest.approx(-0.2)


def test_forward_transfer_by_hand() -> None:
    at_start = np.array([0.1, 0.15, 0.25])
    assert metrics.forward_transfer(R, at_start) == pytest.approx(((0.2 - 0.15) + (0.3 - 0.25)) / 2)
    with pytest.raises(ValueError, match="future=True"):
        metrics.forward_transfer(BELOW, at_start)


def test_one_task() -> None:
    one = np.array([[0.8]])
    assert metrics.average_accuracy(one) == metrics.learning_accuracy(one) == 0.8
    assert metrics.average_so_far(one).tolist() == [0.8]
    assert metrics.forgetting(one) == metrics.backward_transfer(one) == metrics.forward_transfer(one, np.array([0.1])) == 0
    assert metrics.forgetting(np.full((5, 1, 1), 0.3)).tolist() == [0] * 5


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    runs, tasks = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    return draw(arrays(float, (runs, tasks, tasks), elements=st.floats(0, 1)))


@settings(max_examples=200, deadline=None)
@given(matrices())
def test_what_holds_for_every_matrix(M: np.ndarray) -> None:
    T = M.shape[-1]
    acc, far = metrics.average_accuracy(M), metrics.average_so_far(M)
    bwt, forgot, learned = metrics.backward_transfer(M), metrics.forgetting(M), metrics.learning_accuracy(M)
    assert far.shape == (len(M), T) and np.allclose(far[:, -1], acc)
    assert (forgot >= -bwt - 1e-12).all()  # the best is at least the first
    assert (np.abs(forgot) <= 1).all() and (np.abs(bwt) <= 1).all()
    assert np.allclose(acc, learned + bwt * (T - 1) / T)  # what was learned and what became of it
    if T == 2:
        assert np.allclose(forgot, -bwt)
    for f, several in ((metrics.average_accuracy, acc), (metrics.forgetting, forgot), (metrics.backward_transfer, bwt)):
        assert np.allclose([f(one) for one in M], several)  # run by run


@settings(max_examples=50, deadline=None)
@given(matrices(), st.floats(-0.2, 0.2))
def test_a_shift_changes_no_difference(M: np.ndarray, shift: float) -> None:
    assert np.allclose(metrics.forgetting(M + shift), metrics.forgetting(M))
    assert np.allclose(metrics.backward_transfer(M + shift), metrics.backward_transfer(M))
    assert np.allclose(metrics.average_accuracy(M + shift), metrics.average_accuracy(M) + shift)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_interval_is_students(level: float) -> None:
    values = np.random.default_rng(0).normal(size=(6, 2, 3))
    mean, half = metrics.interval(values, level)
    low, high = stats.t.interval(level, df=5, loc=values.mean(0), scale=stats.sem(values, axis=0))
    np.testing.assert_allclose((mean - half, mean + half), (low, high))


def test_interval_by_hand() -> None:
    """1, 2, 3: mean 2, s = 1, t with two degrees of freedom 4.303 (any table), so 4.303 / sqrt(3)."""
    mean, half = metrics.interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2 and half == pytest.approx(4.3027 / 3**0.5, abs=1e-4)


def test_interval_covers_as_often_as_it_says() -> None:
    """Of 4,000 samples of five from a normal distribution, 95 % intervals miss the mean in 5 %, within four errors."""
    values = np.random.default_rng(1).normal(3, 2, size=(5, 4000))
    mean, half = metrics.interval(values)
    assert np.mean(np.abs(mean - 3) > half) == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 4000) ** 0.5)


def test_interval_of_one_value_is_unknown() -> None:
    mean, half = metrics.interval(np.array([[0.5, 0.7]]))
    assert mean.tolist() == [0.5, 0.7] and np.isnan(half).all()
    for bad, level in ((np.zeros((0, 2)), 0.95), (np.zeros(3), 0.0), (np.zeros(3), 1.0)):
        with pytest.raises(ValueError, match="at least one value and a level between 0 and 1"):
            metrics.interval(bad, level)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
def test_a_matrix_must_be_square(shape: tuple[int, ...]) -> None:
    from inspect import unwrap

    with pytest.raises(ValueError, match=r"R must be \[\.\.\., T, T\]"):
        unwrap(metrics._square)(np.zeros(shape))
