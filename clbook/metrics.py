"""The metrics of continual learning: functions of the accuracy matrix R, or of the curve of a run, and of nothing else.

R[i, j] is the accuracy on task j after training on task i, with T tasks; R [..., T, T] may hold many runs. The upper
triangle (tasks not yet seen) is NaN unless the run was asked for it.
Source: Lopez-Paz & Ranzato 2017, section 2; Chaudhry et al. 2018 (RWalk), section 3.
Book: notebooks/01_forgetting, "The matrix R".
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64
from numpy import floating, ndarray

from clbook.checks import InputError

Matrix = Float[ndarray, "*runs T T"]
Curve = Float[ndarray, "*runs E T"]
Values = Float[ndarray, "*runs"] | floating  # one number per run; NumPy makes that of one run a scalar


def average_accuracy(R: Matrix) -> Values:
    """ACC = 1/T sum_j R[T-1, j], the mean over all tasks at the end.

    >>> R = np.array([[0.9, np.nan], [0.6, 0.8]])
    >>> print(f"{average_accuracy(R):.2f}")
    0.70
    """
    return _square(R)[..., -1, :].mean(-1)


def average_so_far(R: Matrix) -> Float[ndarray, "*runs T"]:
    """A_i = 1/(i+1) sum_{j <= i} R[i, j], the mean over the tasks seen, after each task.

    >>> R = np.array([[0.9, np.nan], [0.6, 0.8]])
    >>> print(average_so_far(R).round(2).tolist())
    [0.9, 0.7]
    """
    R = _square(R)
    return np.stack([R[..., i, : i + 1].mean(-1) for i in range(R.shape[-1])], -1)


def learning_accuracy(R: Matrix) -> Values:
    """LA = 1/T sum_j R[j, j], each task right after it was learned: plasticity.

    >>> R = np.array([[0.9, np.nan], [0.6, 0.8]])
    >>> print(f"{learning_accuracy(R):.2f}")
    0.85
    """
    return _diagonal(R).mean(-1)


def backward_transfer(R: Matrix) -> Values:
    """BWT = 1/(T-1) sum_{j < T-1} (R[T-1, j] - R[j, j]); negative where later tasks did harm. 0 for one task.

    >>> R = np.array([[0.9, np.nan], [0.6, 0.8]])
    >>> print(f"{backward_transfer(R):.2f}")
    -0.30
    """
    R = _square(R)
    change = (R[..., -1, :] - _diagonal(R))[..., :-1]
    return change.mean(-1) if R.shape[-1] > 1 else np.zeros(R.shape[:-2])


def forgetting(R: Matrix) -> Values:
    """F = 1/(T-1) sum_{j < T-1} (max_{j <= i < T-1} R[i, j] - R[T-1, j]): the fall from the best before the last task.

    Negative where the last task helped the old ones. 0 for one task.

    >>> R = np.array([[0.9, np.nan], [0.6, 0.8]])
    >>> print(f"{forgetting(R):.2f}")
    0.30
    """
    R = _square(R)
    T = R.shape[-1]
    if T == 1:
        return np.zeros(R.shape[:-2])
    return np.mean([R[..., j : T - 1, j].max(-1) - R[..., -1, j] for j in range(T - 1)], 0)


def forward_transfer(R: Matrix, at_start: Float[ndarray, "*runs T"]) -> Values:
    """FWT = 1/(T-1) sum_{j > 0} (R[j-1, j] - b_j), with b the accuracy of the untrained network, `at_start` [..., T].

    0 for one task. Raises InputError when R has no upper triangle.

    >>> R = np.array([[0.9, 0.3], [0.6, 0.8]])
    >>> print(f"{forward_transfer(R, at_start=np.array([0.1, 0.1])):.2f}")
    0.20
    """
    R = _square(R)
    if R.shape[-1] == 1:
        return np.zeros(R.shape[:-2])
    ahead = np.diagonal(R, offset=1, axis1=-2, axis2=-1)
    if np.isnan(ahead).any():
        raise InputError("forward transfer needs accuracy on tasks not yet trained: run(..., future=True)")
    return (ahead - at_start[..., 1:]).mean(-1)


def average_anytime_accuracy(curve: Curve) -> Values:
    """AAA = 1/E sum_e mean_{j seen at e} a[e, j], the average so far, averaged over all points of the curve.

    curve [..., E, T] holds the accuracy on task j at point e, NaN where it is not yet seen, as in Result.curve.
    Source: Caccia et al. 2022 (arXiv:2104.05025). Book: notebooks/12_streams, "Anytime metrics".

    >>> curve = np.array([[0.8, np.nan], [0.5, 0.7]])
    >>> print(f"{average_anytime_accuracy(curve):.2f}")
    0.70
    """
    seen = ~np.isnan(_points(curve))
    return (np.where(seen, curve, 0).sum(-1) / seen.sum(-1).clip(1)).mean(-1)


def min_accuracy(curve: Curve, trained: Int64[ndarray, " E"]) -> Values:
    """min-ACC = 1/(T-1) sum_{j < T-1} min_{e: trained[e] > j} a[e, j]: the worst of each old task since it was learned.

    trained [E] is the task that was trained at each point, as in the first column of Result.curve_steps. NaN for one task.
    Source: De Lange et al. 2023 (arXiv:2205.13452), section 3. Book: notebooks/12_streams, "Anytime metrics".

    >>> curve = np.array([[0.8, np.nan], [0.5, 0.6], [0.7, 0.9]])
    >>> print(f"{min_accuracy(curve, trained=np.array([0, 1, 1])):.2f}")
    0.50
    """
    curve, trained = _points(curve), np.asarray(trained)
    if len(trained) != curve.shape[-2] or trained.max(initial=0) + 1 != curve.shape[-1]:
        raise InputError(
            f"trained must say for each of {curve.shape[-2]} points which of {curve.shape[-1]} tasks, got {trained}"
        )
    worst = [curve[..., trained > j, j].min(-1) for j in range(curve.shape[-1] - 1)]
    return np.mean(worst, 0) if worst else np.full(curve.shape[:-2], np.nan)


def worst_case_accuracy(curve: Curve, trained: Int64[ndarray, " E"]) -> Values:
    """WC-ACC = 1/T a[E-1, T-1] + (1 - 1/T) min-ACC: the newest task now, and the worst of the old ones.

    For one task its accuracy. Source: De Lange et al. 2023 (arXiv:2205.13452), section 3.

    >>> curve = np.array([[0.8, np.nan], [0.5, 0.6], [0.7, 0.9]])
    >>> print(f"{worst_case_accuracy(curve, trained=np.array([0, 1, 1])):.2f}")
    0.70
    """
    T, newest = _points(curve).shape[-1], np.asarray(curve)[..., -1, -1]
    return newest if T == 1 else newest / T + (1 - 1 / T) * min_accuracy(curve, trained)


def interval(values: Float[ndarray, "n *rest"], level: float = 0.95) -> tuple[ndarray | floating, ndarray | floating]:
    """Mean and half-width of the `level` confidence interval over the first axis, by Student's t; NaN half-width for one value.

    half-width = t_{n-1} s / sqrt(n), with t the (1 + level) / 2 quantile on n - 1 degrees of freedom and s the standard
    deviation with n - 1 below. Raises InputError for no value and a level outside (0, 1).

    >>> mean, half = interval(np.array([1.0, 2.0, 3.0]))
    >>> print(f"{mean:.1f} ± {half:.1f}")
    2.0 ± 2.5
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    n = len(values)
    if n == 0 or not 0 < level < 1:
        raise InputError(f"an interval needs at least one value and a level between 0 and 1, got {n} and {level}")
    if n < 2:
        return values.mean(0), np.full(values.shape[1:], np.nan)
    return values.mean(0), t.ppf((1 + level) / 2, n - 1) * values.std(0, ddof=1) / np.sqrt(n)


def _square(R: Matrix) -> ndarray:
    R = np.asarray(R)
    if R.ndim < 2 or R.shape[-1] != R.shape[-2]:
        raise InputError(f"R must be [..., T, T], one row per task trained, got shape {R.shape}")
    return R


def _points(curve: Curve) -> ndarray:
    curve = np.asarray(curve)
    if curve.ndim < 2 or curve.shape[-2] == 0:
        raise InputError(
            f"a curve must be [..., E, T] with at least one point: run(..., eval_every=1); got shape {curve.shape}"
        )
    return curve


def _diagonal(R: Matrix) -> ndarray:
    return np.diagonal(_square(R), axis1=-2, axis2=-1)
