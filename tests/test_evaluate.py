"""What is measured: the matrix, the curve, memory, and runs that are no more."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import stream
from small import clouds, net_for, train
from test_runs import same

import clbook
from clbook import Categorical, DivergedError, Method, permuted, reconstruct, split
from clbook.methods import L2, Cumulative, Finetune, Joint


def test_what_all_data_weigh() -> None:
    """48 images of six values at a byte each, and their labels; a learner stores each task's images, also where they recur."""
    for make in (Joint, Cumulative):
        assert train(split(clouds(n=48), 2), make(), steps=1).memory_bytes.tolist() == [48 * 7]
        assert train(permuted(clouds(n=48), 5), make(), steps=1).memory_bytes.tolist() == [5 * 48 * 7]
    assert train(split(clouds(n=48), 2), Finetune(), steps=1).memory_bytes.tolist() == [0]


def test_a_method_says_what_of_its_state_it_keeps() -> None:
    """Entries of the state by name, as many bytes as they have; without a word all of it."""

    class All(Method):
        def start(self, net: Any, theta: torch.Tensor) -> Any:
            return {"a": theta, "b": torch.zeros(5, dtype=torch.int64), "c": torch.zeros(7, dtype=torch.bool)}

    class Some(All):
        keeps = ("b", "c")

    P = net_for(stream()).n_params
    assert train(stream(), All(), steps=1, dtype=torch.float32).memory_bytes.tolist() == [4 * P + 5 * 8 + 7]
    assert train(stream(), All(), steps=1).memory_bytes.tolist() == [8 * P + 5 * 8 + 7]  # in double precision
    assert train(stream(), Some(), steps=1).memory_bytes.tolist() == [5 * 8 + 7]


def test_the_curve_and_the_matrix_agree() -> None:
    s = stream()
    result = train(s, Finetune(), 2, steps=6, eval_every=3)
    assert result.curve_steps.tolist() == [[0, 3], [0, 6], [1, 9], [1, 12], [2, 15], [2, 18]]
    for k in range(3):  # the last measurement in a task is the one after it
        np.testing.assert_array_equal(result.curve[:, 2 * k + 1, : k + 1], result.R[:, k, : k + 1])
    assert np.array_equal(np.isnan(result.R[1]), np.triu(np.ones((3, 3)), 1)) and np.isnan(result.curve[:, :2, 1:]).all()


def test_future_tasks_are_measured_on_request() -> None:
    s = permuted(clouds(), 3)
    result = train(s, Finetune(), future=True, eval_every=12)
    assert not np.isnan(result.R).any() and not np.isnan(result.curve).any()
    plain = train(s, Finetune())
    np.testing.assert_array_equal(np.tril(result.R[0]), np.tril(plain.R[0]))


def test_eval_samples_are_the_first_of_each_test_set() -> None:
    s = stream()
    few = replace(s, rows_test=tuple(rows[:4] for rows in s.rows_test))
    a = train(s, Finetune(), eval_every=6, eval_samples=4)
    b = train(few, Finetune(), eval_every=6)
    np.testing.assert_array_equal(a.curve, b.curve)
    assert not np.array_equal(a.R, b.R)


@pytest.mark.parametrize("measure", ["accuracy", "log_likelihood"])
def test_the_score_is_a_mean_over_all_test_samples(measure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand from theta, and the same where the test set is looked at in pieces that do not divide it."""
    s = replace(stream(), likelihood=Categorical(measure))
    whole = train(s, Finetune(), 2)
    monkeypatch.setattr("clbook.evaluate.TEST_ROWS", 3)
    np.testing.assert_allclose(train(s, Finetune(), 2).R, whole.R, atol=1e-12)
    net = net_for(s)
    for r, theta in enumerate(whole.theta):
        for j in range(3):
            x, y = s.test(j)
            log_p = net(theta, x.double()).masked_fill(~s.mask[2, j], -math.inf).log_softmax(1)
            scores = {"accuracy": (log_p.argmax(1) == y).double(), "log_likelihood": log_p.gather(1, y[:, None])}
            assert whole.R[r, 2, j] == pytest.approx(float(scores[measure].mean()))


def test_reconstruction_learns_without_labels() -> None:
    d = clouds()
    s = reconstruct(permuted(replace(d, y=None, y_test=None), 2))
    net = clbook.mlp(6, 6, (5,))
    short, long = (train(s, Finetune(), net=net, steps=n, lr=0.02) for n in (1, 300))
    x = s[1].x_test.double()
    score = -float((net(long.theta[0], x) - x).square().mean())
    assert long.R[0, 1, 1] == pytest.approx(score) and score > short.R[0, 1, 1]


def test_thetas_are_kept_on_request() -> None:
    s, net = stream(), net_for(stream())
    result = train(s, Finetune(), 2, net=net, keep_thetas=True)
    assert [len(t) for t in result.thetas] == [3, 3] and torch.equal(result.thetas[1][2], result.theta[1])
    one = train(s.first(1), Finetune(), 2, net=net)
    same(replace(one, theta=[t[0] for t in result.thetas]), one)
    assert train(s, Finetune(), net=net).thetas == [[]]


# runs that are no more ---------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_is_noticed_at_the_end_of_a_task_at_the_latest() -> None:
    """The last step alone makes theta infinite: no row of R is a number that it should not be."""

    class Bomb(Method):
        def after_step(self, theta: torch.Tensor, state: Any, update: Any) -> Any:
            return torch.where(update.done == 1, theta * torch.inf, theta), state

    with pytest.raises(DivergedError, match=r"Bomb\(\) with seed 0 diverged by step 12 of task 0 \(0/1\): lr = 0\.001\. Take"):
        train(stream(), Bomb())
    assert np.isnan(train(stream(), Bomb(), on_divergence="nan").R).all()


def test_a_run_that_has_diverged_is_nan_in_all_that_follows_it() -> None:
    sizes = {"optimizer": "sgd", "lr": 0.1, "steps": 30, "eval_every": 30, "on_divergence": "nan", "future": True}
    result = train(stream(), [L2(lam=1.0, pull="explicit"), L2(lam=1e9, pull="explicit")], **sizes)
    assert not np.isnan(result.R[0]).any() and not np.isnan(result.R[1, 0]).any() and np.isnan(result.R[1, 1:]).all()
    assert np.array_equal(np.isnan(result.curve), np.isnan(result.R))


# progress ----------------------------------------------------------------------------------------------------------------


def test_progress_names_task_and_score_and_can_be_switched_off(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    train(stream(), Finetune(), steps=2, progress=False)
    monkeypatch.setenv("CLBOOK_PROGRESS", "0")
    train(stream(), Finetune(), steps=2, progress=None)
    assert capsys.readouterr() == ("", "")
    train(stream(), Finetune(), steps=200, batch_size=2, progress=True, dtype=torch.float32)
    shown = capsys.readouterr().err
    assert "Finetune" in shown and "600/600" in shown and "task 3/3 4/5, 0." in shown
    monkeypatch.delenv("CLBOOK_PROGRESS")
    train(stream(), Finetune(), steps=2, progress=None)
    assert "6/6" in capsys.readouterr().err
