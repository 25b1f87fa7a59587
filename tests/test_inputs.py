"""What `run` is given is looked at before anything is trained; whatever is refused is named and quoted."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import NAMES, example, stream
from hypothesis import HealthCheck, given, settings
from junk import JUNK, OBJECTS, met, quoted
from small import clouds, net_for, refused, train, users_meet_it
from torch import nn

import clbook
from clbook import Data, Net, Result, Spring, loop, permuted, split
from clbook.inputs import pick_device
from clbook.methods import EWC, L2, MAS, Finetune


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any step of training fails the test: bad input must be refused before."""

    def step(*args: object) -> None:
        raise AssertionError("training has started")

    monkeypatch.setattr(loop, "train", step)


def spoiled(name: str, value: float) -> Data:
    d = clouds(classes=6)
    tensor = getattr(d, name).clone()
    tensor[0] = value
    return replace(d, **{name: tensor})


BAD: dict[str, tuple[str, dict[str, Any]]] = {
    # message, then what is changed in a call that is fine
    "scenario: none": ("scenario must be a Scenario, .*got None", {"scenario": None}),
    "methods: unknown name": (r"unknown method 'ewc': give an instance", {"methods": "ewc"}),
    "methods: class": (r"unknown method <class .*EWC'>: give an instance", {"methods": EWC}),
    "methods: one of two": ("unknown method 'si'", {"methods": lambda: [L2(lam=1.0), "si"]}),
    "methods: none": ("at least one method, got none", {"methods": []}),
    "seeds: none": ("seeds must be greater than or equal to 1, got 0", {"seeds": 0}),
    "seeds: too many": ("seeds must be less than or equal to 1000000, got 1000000000000", {"seeds": 10**12}),
    "seeds: empty": (r"at least one seed.*got \[\]", {"seeds": []}),
    "seeds: a word": (r"seeds are whole numbers; got 'x'", {"seeds": "x"}),
    "seeds: no numbers": (r"every seed must be a valid integer, got 0\.5", {"seeds": [0.5]}),
    "seeds: truth": (r"seeds must be a valid integer, got True", {"seeds": True}),
    "scenario: NaN": ("1 of 60 training inputs hold NaN", {"scenario": lambda: split(spoiled("x", math.nan), 3)}),
    "scenario: infinity": (
        "1 of 30 test inputs hold NaN or infinity",
        {"scenario": lambda: split(spoiled("x_test", math.inf), 3)},
    ),
    "scenario: label too large": (r"such as 6; allowed are 0\.\.5", {"scenario": lambda: split(spoiled("y", 6), 3)}),
    "scenario: label below 0": (r"such as -1; allowed are 0\.\.5", {"scenario": lambda: permuted(spoiled("y_test", -1), 3)}),
    "scenario: empty task": (r"task 2 \(4/5\) has no training samples", {"scenario": lambda: split(clouds(n=4, classes=6), 3)}),
    "scenario: no test": (r"task 2 \(4/5\) has no test samples", {"scenario": lambda: split(clouds(n_test=4, classes=6), 3)}),
    "steps and epochs": ("either epochs or steps per task, got epochs=1 and steps=2", {"epochs": 1}),
    "neither": ("got epochs=None and steps=None", {"steps": None}),
    "unknown": ("run does not know decay, momentum; it takes epochs, steps", {"decay": 1, "momentum": 0.9}),
    "steps": (r"Training\.steps must be greater than or equal to 1, got 0", {"steps": 0}),
    "steps: half": (r"Training\.steps must be a valid integer, .*got 2\.5", {"steps": 2.5}),
    "steps: word": (r"Training\.steps must be a valid integer, got '2'", {"steps": "2"}),
    "epochs": (r"Training\.epochs must be .* got -1", {"epochs": -1, "steps": None}),
    "batch_size": (r"Training\.batch_size must be .* got 0", {"batch_size": 0}),
    "eval_every": (r"Training\.eval_every must be .* got 0", {"eval_every": 0}),
    "eval_samples": (r"Training\.eval_samples must be .* got 0", {"eval_samples": 0}),
    "optimizer": (r"Training\.optimizer must be 'sgd' or 'adam', got 'rmsprop'", {"optimizer": "rmsprop"}),
    "lr: 0": (r"Training\.lr must be greater than 0, got 0", {"lr": 0.0}),
    "lr: NaN": (r"Training\.lr must be .*, got nan", {"lr": math.nan}),
    "lr: infinite": (r"Training\.lr must be a finite number, got inf", {"lr": math.inf}),
    "on_divergence": (r"Training\.on_divergence must be 'raise' or 'nan', got 'stop'", {"on_divergence": "stop"}),
    "chunk": ("chunk must be greater than or equal to 1, got 0", {"chunk": 0}),
    "checkpoint": ("checkpoint must be the name of a folder, got 3", {"checkpoint": 3}),
    "device": ("unknown device 'gpu'", {"device": "gpu"}),
    "device: no numbers in it": ("there is no device 'meta' here", {"device": "meta"}),
    "device: number": ("device.* 99", {"device": 99}),
    "dtype": ("dtype must be a floating type .* got torch.int64", {"dtype": torch.int64}),
    "dtype: none": ("dtype must be a floating type .* got None", {"dtype": None}),
    "net": ("net must be a Net, .* got 3", {"net": 3}),
    "net: outputs": ("the network has 5 outputs, and this scenario needs 6", {"net": lambda: clbook.mlp(6, 5)}),
    "net: inputs": (r"does not take this scenario's inputs, \[1, 6\]", {"net": lambda: clbook.mlp(7, 6)}),
    "net: two arguments": ("does not take this scenario's inputs", {"net": lambda: Net(lambda: nn.Bilinear(6, 6, 6))}),
    "net: no parameters": ("does not take this scenario's inputs", {"net": lambda: Net(lambda: nn.ReLU())}),
    "net: no outputs": ("does not take this scenario's inputs", {"net": lambda: Net(lambda: nn.LSTM(6, 6))}),
    "net: BatchNorm": (
        r"BatchNorm1d.*GroupNorm or LayerNorm",
        {"net": lambda: Net(lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))},
    ),
    "net: Dropout": (r"Dropout\) draws random", {"net": lambda: Net(lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout()))}),
    "net: of another likelihood": (
        r"the network was told Gaussian\(sigma=2\.0\), and the scenario says Categorical",
        {"net": lambda: clbook.mlp(6, 6).told(clbook.Gaussian(2.0))},
    ),
    "MAS: no such class": (
        r"MAS\.only names \[99\], and the outputs of these tasks are 0\.\.5",
        {"methods": lambda: MAS(1.0, only=(99,))},
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_training(case: str, untrained: None) -> None:
    message, change = BAD[case]
    good: dict[str, Any] = {"scenario": stream(), "methods": Finetune(), "seeds": 1, "steps": 2, "progress": False}
    with pytest.raises(AssertionError, match="training has started"):
        clbook.run(**good)  # nothing else is wrong with the call
    with refused(message):
        built = {k: v() if inspect.isfunction(v) else v for k, v in change.items()}
        clbook.run(**good | built)


def test_a_method_that_needs_the_task_says_so_before_training(untrained: None) -> None:
    needing = [name for name in NAMES if example(name).needs_task]
    assert {"XdG", "HAT", "PackNet", "Separate"} <= set(needing)
    for name in needing:
        with refused('needs kind="task", got kind="domain"'):
            clbook.run(permuted(clouds(classes=6), 2), example(name), steps=1)


def test_a_spring_says_how_stiff_it_is_before_training() -> None:
    class Slack(Spring):
        pass

    with refused("Slack must say how stiff its springs are"):
        Slack(lam=1.0)


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    with users_meet_it():
        result = train(stream(), [L2(lam=v) for v in np.logspace(0, 1, 2)], np.arange(2), steps=np.int64(2), lr=np.float32(0.5))
    assert [(r["lam"], r["seed"]) for r in result.runs] == [(1, 0), (1, 1), (10, 0), (10, 1)]
    result.save(tmp_path / "r")
    assert Result.load(tmp_path / "r").runs == result.runs


def test_classes_in_a_list_are_classes_in_a_tuple() -> None:
    with users_meet_it():
        listed = train(stream(), MAS(lam=1.0, only=[0, 1]))
    tupled = train(stream(), MAS(lam=1.0, only=(0, 1)))
    assert listed.runs == tupled.runs and listed.runs[0]["only"] == (0, 1) and torch.equal(listed.theta[0], tupled.theta[0])


# anything at all ---------------------------------------------------------------------------------------------------------

ARGUMENTS = [
    "scenario", "methods", "seeds", "net", "keep_thetas", "device", "dtype", "chunk", "checkpoint", "progress", "epochs",
    "steps",
    "batch_size", "optimizer", "lr", "keep_optimizer", "lr_decay", "eval_every", "eval_samples", "future", "on_divergence",
]  # fmt: skip


def test_the_fuzz_below_knows_every_argument() -> None:
    run = set(inspect.signature(clbook.run).parameters) - {"training"}
    assert set(ARGUMENTS) == run | set(inspect.signature(clbook.Training).parameters)


GOOD = {
    "methods": Finetune(),
    "seeds": 1,
    "steps": 1,
    "batch_size": 2,
    "progress": False,
    "device": "cpu",
    "on_divergence": "nan",
}
S, NET = stream().first(2), net_for(stream(), (3,))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_whatever_run_is_given_it_trains_or_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    for value in OBJECTS:
        tried(name, value, tmp_path)


@pytest.mark.parametrize("name", ARGUMENTS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JUNK)
def test_and_whatever_hypothesis_thinks_of(name: str, value: Any, tmp_path: Path) -> None:
    tried(name, value, tmp_path)


def tried(name: str, value: Any, tmp_path: Path) -> None:
    good = {"scenario": S, "net": NET, **GOOD} | ({"steps": None} if name == "epochs" else {})
    if name == "checkpoint" and isinstance(value, str):
        value = str(tmp_path / value.replace("\0", "").replace("/", ""))
    error = met(lambda: clbook.run(**good | {name: value}))
    assert error is None or (name.rstrip("s") in error and quoted(value, error)), error


# devices -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda", "mps", "wanted"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(cuda: bool, mps: bool, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device() == pick_device("auto") == torch.device(wanted)
    assert pick_device("cpu") == torch.device("cpu")
    for name, there in (("cuda", cuda), ("mps", mps)):
        if not there:
            with refused(f"no device '{name}' here"):
                pick_device(name)
    with refused("unknown device 'gpu': choose \"auto\", cuda, mps, cpu"):
        pick_device("gpu")
