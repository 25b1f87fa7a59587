"""A run that was cut short ends as if nothing had happened, and never goes on from what belongs to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import clouds, net_for, train

from clbook import Result, Scenario, permuted, split
from clbook import methods as catalogue
from clbook.methods import EWC, L2, Finetune
from clbook.stack import Stack

SIZES: dict[str, Any] = {"eval_every": 4, "keep_thetas": True, "dtype": torch.float32, "lr": 0.01, "steps": 6}


class PowerCut(Exception):
    pass


def stream() -> Scenario:
    return split(clouds(n=48, classes=6), 3, kind="class")


def cut_short(monkeypatch: pytest.MonkeyPatch, k: int, step: int) -> None:
    """The next run stops while task k is being trained."""
    make = Stack._batch

    def cut(self: Stack, task: int, index: torch.Tensor) -> Any:
        if task == k and self.done_steps >= SIZES["steps"] * k + step:
            monkeypatch.setattr(Stack, "_batch", make)
            raise PowerCut
        return make(self, task, index)

    monkeypatch.setattr(Stack, "_batch", cut)


def identical(a: Result, b: Result) -> None:
    assert all(torch.equal(x, y) for x, y in zip(a.theta, b.theta, strict=True))
    assert all(torch.equal(x, y) for s, t in zip(a.thetas, b.thetas, strict=True) for x, y in zip(s, t, strict=True))
    for name in ("R", "curve", "curve_steps", "memory_bytes"):
        assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
    assert a.runs == b.runs


@pytest.mark.parametrize(
    ("k", "keep_optimizer", "optimizer"),
    [(0, False, "adam"), (1, False, "adam"), (1, True, "sgd"), (2, False, "sgd"), (1, True, "adam"), (2, True, "adam")],
)
def test_going_on_gives_the_same_to_the_bit(k: int, keep_optimizer: bool, optimizer: str, tmp_path: Path, monkeypatch) -> None:
    s, sizes = stream(), SIZES | {"keep_optimizer": keep_optimizer, "optimizer": optimizer}
    sizes["net"] = net_for(s, dropout=(0.2, 0.5))
    methods = [EWC(lam=3.0, kind="sampled", n_samples=5), EWC(lam=7.0, kind="sampled", n_samples=5)]
    whole = train(s, methods, 2, **sizes)
    cut_short(monkeypatch, k, step=4)
    with pytest.raises(PowerCut):
        train(s, methods, 2, checkpoint=tmp_path / "here", **sizes)
    assert len(list(tmp_path.rglob("*.npz"))) == (k > 0) and not list(tmp_path.rglob("*.part"))
    identical(train(s, methods, 2, checkpoint=tmp_path / "here", **sizes), whole)


@pytest.mark.parametrize("name", sorted(catalogue.__all__))
def test_every_method_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_engine import example
    from test_engine import stream as stream_for

    s, m = stream_for(name), example(name)
    whole = train(s, m, 2, **SIZES)
    cut_short(monkeypatch, 2, step=3)
    with pytest.raises(PowerCut):
        train(s, m, 2, checkpoint=tmp_path, **SIZES)
    identical(train(s, m, 2, checkpoint=tmp_path, **SIZES), whole)


def test_only_what_is_left_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_short(monkeypatch, 1, step=0)
    methods = [L2(), Finetune()]
    with pytest.raises(PowerCut):
        train(stream(), methods, checkpoint=tmp_path, **SIZES)
    trained: list[tuple[str, int]] = []
    train_task = Stack._train_task

    def watched(self: Stack, k: int, bar: Any) -> None:
        trained.append((self.method.label, k))
        train_task(self, k, bar)

    monkeypatch.setattr(Stack, "_train_task", watched)
    first = train(stream(), methods, checkpoint=tmp_path, **SIZES)
    assert trained == [("L2", 1), ("L2", 2), ("Finetune", 0), ("Finetune", 1), ("Finetune", 2)]
    identical(train(stream(), methods, checkpoint=tmp_path, **SIZES), first)
    assert len(trained) == 5  # a finished run is read and not trained


def test_a_run_that_diverged_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = SIZES | {"optimizer": "sgd", "lr": 0.1, "steps": 20, "on_divergence": "nan"}
    methods = [L2(lam=1.0, step="explicit"), L2(lam=1e9, step="explicit")]
    whole = train(stream(), methods, **sizes)
    assert np.isnan(whole.R[1, 1:]).all() and not np.isnan(whole.R[0, 2]).any()
    cut_short(monkeypatch, 2, step=28)  # the last of the three times twenty steps
    with pytest.raises(PowerCut):
        train(stream(), methods, checkpoint=tmp_path, **sizes)
    resumed = train(stream(), methods, checkpoint=tmp_path, **sizes)
    assert np.array_equal(resumed.R, whole.R, equal_nan=True) and torch.equal(resumed.theta[0], whole.theta[0])


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "strength": ("runs is", {"methods": EWC(lam=2.0)}),
    "method": ("runs is", {"methods": L2()}),
    "seed": ("runs is", {"seeds": [1]}),
    "steps": ("training is", {"steps": 13}),
    "rate": ("training is", {"lr": 0.02}),
    "classes": ("scenario is", {"scenario": lambda: split(clouds(n=48, classes=6), 3, order=[2, 1, 0, 3, 4, 5], kind="class")}),
    "kind": ("scenario is", {"scenario": lambda: split(clouds(n=48, classes=6), 3, kind="task")}),
    "images": ("scenario is", {"scenario": lambda: split(clouds(n=48, classes=6, seed=1), 3, kind="class")}),
    "network": ("network is", {"net": lambda: net_for(stream(), (5,))}),
    "dtype": ("dtype is", {"dtype": torch.float64}),
    "thetas": ("keep_thetas is", {"keep_thetas": False}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_of_other_runs_is_refused(case: str, tmp_path: Path) -> None:
    message, change = OTHERS[case]
    call: dict[str, Any] = {"scenario": stream(), "methods": EWC(), "seeds": [0], "checkpoint": tmp_path} | SIZES
    train(**call)
    before = (tmp_path / "stack-0.npz").read_bytes()
    with pytest.raises(ValueError, match=rf"stack-0\.npz belongs to other runs: {message}.*Delete the file"):
        train(**call | {k: v() if callable(v) else v for k, v in change.items()})
    assert (tmp_path / "stack-0.npz").read_bytes() == before


def test_other_permutations_are_another_scenario(tmp_path: Path) -> None:
    """Two streams that differ in nothing but the seed of their permutations."""
    train(permuted(clouds(), 2, seed=0), Finetune(), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="scenario is"):
        train(permuted(clouds(), 2, seed=1), Finetune(), checkpoint=tmp_path)


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = stream()
    write = np.savez
    files: list[int] = []

    def full_disk(file: Any, **arrays: Any) -> None:
        files.append(1)
        if len(files) == 2:
            file.write(b"half of it")
            raise OSError("no space left on device")
        write(file, **arrays)

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space left"):
        train(s, Finetune(), checkpoint=tmp_path, **SIZES)
    whole = train(s, Finetune(), **SIZES)
    identical(train(s, Finetune(), checkpoint=tmp_path, **SIZES), whole)
