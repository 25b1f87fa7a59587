"""Result: saved without loss and without code, picked from, and summed up by the right numbers."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import clouds, net_for, train

import clbook
from clbook import Result, metrics, split
from clbook.methods import EWC, L2, Finetune
from clbook.result import ARRAYS


@pytest.fixture(scope="module")
def result() -> Result:
    s = split(clouds(n=48, classes=6), 3, kind="class")
    return train(s, [EWC(lam=0.5), EWC(lam=2.0), L2(lam=1.0), Finetune()], [4, 9], eval_every=6, keep_thetas=True)


def test_runs_are_named_in_the_order_of_the_call(result: Result) -> None:
    assert [(r["method"], r.get("lam"), r["seed"]) for r in result.runs] == [
        (name, lam, seed) for name, lam in (("EWC", 0.5), ("EWC", 2.0), ("L2", 1.0), ("Finetune", None)) for seed in (4, 9)
    ]
    assert result.runs[0]["carry"] == "separate" and result.names == ["0/1", "2/3", "4/5"]


def test_pick(result: Result) -> None:
    one = result.pick(method="EWC", lam=2.0, seed=9)
    assert len(one.runs) == 1 and np.array_equal(one.R, result.R[3:4], equal_nan=True)
    assert np.array_equal(one.curve, result.curve[3:4], equal_nan=True) and one.seconds == result.seconds[3]
    assert torch.equal(one.theta[0], result.theta[3]) and one.thetas[0] is result.thetas[3]
    assert [r["method"] for r in result.pick(seed=4).runs] == ["EWC", "EWC", "L2", "Finetune"]
    assert [r["seed"] for r in result.pick(method="EWC", seed=4).pick(lam=0.5).runs] == [4]
    for wanted in ({"method": "SI"}, {"lam": 3.0}, {"no_such_field": 1}):
        with pytest.raises(ValueError, match=re.escape(f"no run has {wanted}")):
            result.pick(**wanted)


def test_frame(result: Result) -> None:
    frame = result.frame()
    assert len(frame) == 8 * 6  # eight runs, six entries on and below the diagonal
    assert (frame["after"] >= frame["task"]).all() and not frame["accuracy"].isna().any()
    row = frame[(frame.method == "EWC") & (frame.lam == 2.0) & (frame.seed == 9) & (frame.after == 2) & (frame.task == 1)]
    assert row.accuracy.item() == result.R[3, 2, 1]


def test_summary(result: Result) -> None:
    table = result.summary()
    assert table.method.tolist() == ["EWC", "EWC", "L2", "Finetune"] and table.runs.tolist() == [2] * 4
    R = 100 * result.R[2:4]  # EWC with lam = 2
    for name, f in {
        "accuracy": metrics.average_accuracy,
        "forgetting": metrics.forgetting,
        "bwt": metrics.backward_transfer,
    }.items():
        a, b = f(R)
        assert table[name][1] == pytest.approx((a + b) / 2)
        assert table[f"{name} ±"][1] == pytest.approx(
            12.7062 * abs(a - b) / 2, rel=1e-4
        )  # t_1 = 12.706; s / sqrt(2) = |a-b| / 2


def test_save_and_load(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "deep" / "lam-0.5")
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["lam-0.5.json", "lam-0.5.npz"]
    for path in (tmp_path / "deep" / "lam-0.5", str(tmp_path / "deep" / "lam-0.5.npz"), tmp_path / "deep" / "lam-0.5.json"):
        back = Result.load(path)
        for name in ARRAYS:
            assert np.array_equal(getattr(back, name), getattr(result, name), equal_nan=True)
        assert (back.runs, back.names, back.info) == (result.runs, result.names, result.info)
    assert back.summary().equals(result.summary()) and back.frame().equals(result.frame())
    assert back.pick(method="L2").runs == result.pick(method="L2").runs and back.theta == back.pick(seed=4).theta == []


def test_files_hold_no_code(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "r")
    json.loads((tmp_path / "r.json").read_text())
    with zipfile.ZipFile(tmp_path / "r.npz") as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                assert np.lib.format.read_magic(file) and np.load(archive.open(name), allow_pickle=False) is not None


def test_provenance(result: Result) -> None:
    info = result.info
    assert info["training"] == {
        "epochs": None, "steps": 12, "batch_size": 8, "optimizer": "adam", "lr": 1e-3, "keep_optimizer": False,
        "lr_decay": False,
        "eval_every": 6, "eval_samples": None, "future": False, "on_divergence": "raise",
    }  # fmt: skip
    assert info["scenario"] == {"data": "clouds", "kind": "class", "score": "accuracy", "tasks": 3, "training samples": 48}
    assert result.n_params.tolist() == [net_for(split(clouds(classes=6), 3)).n_params] * 8 and info["dtype"] == "float64"
    assert info["versions"]["torch"] == torch.__version__ and info["versions"]["clbook"] == clbook.__version__
    assert info["device"].startswith(("cpu (", "NVIDIA", "mps (")) and info["seconds"] >= 0
    assert info["commit"] is None or re.fullmatch(r"[0-9a-f]{12}(-dirty)?", info["commit"]) or "-g" in info["commit"]
    assert str(Path.home()) not in json.dumps(info) and str(Path.cwd()) not in json.dumps(info)


def test_a_diverged_run_shows_in_the_summary_and_not_in_the_frame() -> None:
    s = split(clouds(n=48, classes=6), 3, kind="class")
    methods = [L2(lam=1.0, pull="explicit"), L2(lam=1e9, pull="explicit")]
    result = train(s, methods, optimizer="sgd", lr=0.1, steps=60, on_divergence="nan")
    assert np.isnan(result.summary().accuracy).tolist() == [False, True]
    assert len(result.frame()) == 6 + 1


def test_a_score_that_is_no_accuracy_is_not_summed_up_in_percent(tmp_path: Path) -> None:
    s = replace(split(clouds(n=48, classes=6), 3, kind="class"), likelihood=clbook.Categorical("log_likelihood"))
    result = train(s, Finetune(), 2)
    result.save(tmp_path / "r")
    for table in (result.summary(), Result.load(tmp_path / "r").summary()):
        assert table.log_likelihood[0] == pytest.approx(metrics.average_accuracy(result.R).mean())
        assert table.forgetting[0] == pytest.approx(metrics.forgetting(result.R).mean()) and "accuracy" not in table
