"""What a field or an argument may be: refused with its name and its value, or taken as the number that it is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import NAMES, example
from hypothesis import given, settings
from hypothesis import strategies as st
from junk import JUNK, OBJECTS, met, quoted
from small import clouds, net_for, refused, users_meet_it

import clbook
from clbook import InputError, Method, Net, checks, methods
from clbook.checks import Strength, check, checked
from clbook.methods import CLSER, ER, EWC, GEM, HAT, MAS, DERpp, FastWeights, LwF, PackNet, Separate

# fields ------------------------------------------------------------------------------------------------------------------

BAD: list[tuple[Callable[..., Any], str, Any, str]] = [
    (ER, "lam", -1, "must be greater than or equal to 0"),
    (ER, "lam", None, "must be a valid number"),
    (ER, "lam", True, "must be a valid number"),
    (ER, "lam", np.True_, "must be a valid number"),
    (ER, "size", True, "must be a valid integer"),
    (ER, "size", 1.0, "must be a valid integer"),
    (ER, "buffer", "ring", "must be 'balanced' or 'reservoir'"),
    (DERpp, "alpha", -3, "must be greater than or equal to 0"),
    (GEM, "margin", -1, "must be greater than or equal to 0"),
    (CLSER, "fast", -5, "must be greater than or equal to 0"),
    (CLSER, "beta", "", "must be a valid number"),
    (FastWeights, "decay", -1e12, "must be greater than or equal to 0"),
    (MAS, "n_samples", 2.5, "must be a valid integer"),
    (MAS, "n_samples", 0, "must be greater than or equal to 1"),
    (EWC, "lam", float("nan"), "must be"),
    (EWC, "lam", float("-inf"), "must be"),
    (EWC, "gamma", 2, "must be less than or equal to 1"),
    (LwF, "t_squared", 1, "must be a valid boolean"),
    (LwF, "warmup", -1, "must be greater than or equal to 0"),
    (HAT, "s_max", 0.5, "must be greater than or equal to 1"),
    (PackNet, "prune", "half", "must be a valid number"),
    (Separate, "begin", None, "must be 'fresh' or 'previous'"),
    (clbook.Gaussian, "sigma", 0, "must be greater than 0"),
    (clbook.Categorical, "measure", "error", "must be 'accuracy' or 'log_likelihood'"),
    (clbook.Training, "lr", -0.1, "must be greater than 0"),
    (clbook.Training, "keep_optimizer", "no", "must be a valid boolean"),
]


@pytest.mark.parametrize(("make", "name", "value", "why"), BAD, ids=lambda v: repr(v)[:30])
def test_a_field_that_is_none_is_refused_with_its_name_and_its_value(make: Any, name: str, value: Any, why: str) -> None:
    needed = {"lam": 1.0} if make in (MAS, EWC) else {}
    with refused(rf"^{make.__name__}\.{name} {why}.*, got {re.escape(repr(value))}$"):
        make(**needed | {name: value})


def test_a_whole_number_becomes_a_float_where_a_float_belongs() -> None:
    for value in (1, np.int64(1), np.float32(1), torch.tensor(1.0), 1.0):
        with users_meet_it():
            m = ER(lam=value)
        assert type(m.lam) is float and m == ER(lam=1.0) and m.hyper == {"lam": 1.0}
    for value in (7, np.int32(7), np.uint8(7)):
        with users_meet_it():
            assert type(ER(size=value).size) is int and ER(size=value) == ER(size=7)


def test_a_list_becomes_a_tuple() -> None:
    """A method is a key of a dictionary, so none of its fields may be changed later."""
    with users_meet_it():
        m = MAS(lam=1.0, only=[0, np.int64(3)])
    assert m.only == (0, 3) and hash(m) == hash(MAS(lam=1.0, only=(0, 3)))


def test_a_readers_own_method_is_checked_by_its_types() -> None:
    @dataclass(frozen=True)
    class Mine(Method):
        rate: Strength = 0.5
        plain: float = 1.0
        maybe: float | None = None
        word: str = "a"

    assert Mine(rate=2).hyper == {"rate": 2.0, "plain": 1.0} and Mine(maybe=3).hyper == {
        "rate": 0.5,
        "plain": 1.0,
        "maybe": 3.0,
    }
    for name, value in (("rate", -1), ("plain", "x"), ("maybe", "x"), ("word", 3)):
        with refused(rf"Mine\.{name} must be .*, got {value!r}"):
            Mine(**{name: value})


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_method_is_given_it_takes_or_refuses_by_name(name: str) -> None:
    """Every field with every object; what is taken is what the type of the field says."""
    m = example(name)
    made = {f.name: getattr(m, f.name) for f in fields(m)}
    for f in made:
        for value in OBJECTS:
            error = met(lambda: type(m)(**made | {f: value}))  # noqa: B023
            assert error is None or ((f"{name}.{f}" in error or f"{name} needs" in error) and quoted(value, error)), error
            if error is None and isinstance(made[f], float):
                with users_meet_it():
                    assert type(getattr(type(m)(**made | {f: value}), f)) is float


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(NAMES), data=st.data())
def test_any_fields_at_all(name: str, data: st.DataObject) -> None:
    make = getattr(methods, name)
    names = [f.name for f in fields(make)]
    given_names = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    values = {n: data.draw(JUNK) for n in given_names}
    error = met(lambda: make(**values))
    assert error is None or any(n in error and quoted(values[n], error) for n in values) or "lam" in error, error


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_field_has_is_pythons_own_error(name: str) -> None:
    with users_meet_it(), pytest.raises(TypeError, match="strength"):
        getattr(methods, name)(strength=1.0)


# arguments ---------------------------------------------------------------------------------------------------------------

D, FLAT = clouds(n=24, n_test=8, classes=4), clbook.split(clouds(n=24, n_test=8, classes=4), 2)
NET = net_for(FLAT, (3,))
THETA, X, Y = NET.init(0), D.x[:5], D.y[:5]
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "permuted": (clbook.permuted, {"data": D, "tasks": 2, "seed": 0, "square": 2, "kind": "domain", "first_identity": True}),
    "rotated": (clbook.rotated, {"data": D, "angles": [0.0, 10.0], "kind": "domain"}),
    "split": (clbook.split, {"data": D, "tasks": 2, "kind": "task", "order": [0, 1, 2, 3]}),
    "sequence": (clbook.sequence, {"datas": [D, D], "kind": "task"}),
    "reconstruct": (clbook.reconstruct, {"scenario": FLAT, "sigma": 1.0}),
    "held_out": (FLAT.held_out, {"fraction": 0.5, "seed": 0}),
    "first": (FLAT.first, {"n_tasks": 1}),
    "subset": (D.subset, {"n_train": 5, "n_test": 5, "seed": 0}),
    "load": (clbook.load, {"name": "digits", "root": "/dev/null/nowhere"}),
    "mlp": (clbook.mlp, {"n_in": 3, "n_out": 2, "hidden": (4,), "dropout": (0.0, 0.5), "norm": False}),
    "cnn": (clbook.cnn, {"shape": (1, 4, 4), "n_out": 2, "channels": (2,), "hidden": 3}),
    "transformer": (clbook.transformer, {"tokens": 5, "context": 4, "width": 8, "heads": 2, "depth": 1}),
    "Net": (Net, {"factory": lambda: torch.nn.Linear(3, 2), "example": torch.zeros(1, 3)}),
    "fisher": (
        clbook.fisher,
        {"net": NET, "theta": THETA, "x": X, "y": Y, "mask": torch.ones(4, dtype=torch.bool), "estimator": "empirical",
         "algorithm": "auto", "batch_size": 2, "rng": torch.Generator()},
    ),
    "mas_importance": (
        clbook.mas_importance,
        {"net": NET, "theta": THETA, "x": X, "mask": torch.ones(4, dtype=torch.bool), "algorithm": "auto", "per_output": False},
    ),
    "Training": (clbook.Training, {"steps": 3, "batch_size": 2, "optimizer": "sgd", "lr": 0.1, "future": True}),
    "preset": (clbook.preset, {"name": "quick"}),
}  # fmt: skip
ARGUMENTS = [(call, name) for call, (_, arguments) in CALLS.items() for name in arguments]
TENSORS = [
    torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.bool), torch.zeros(5), torch.full((5,), 77),
    torch.full((5,), -1), torch.zeros(5, 6), torch.zeros(5, 7),
    torch.zeros(0, 6), torch.zeros(5, 6).double(), torch.zeros(5, 6).int(), torch.zeros(5, 2, 3),
    torch.ones(3, dtype=torch.bool),
    torch.zeros(4, dtype=torch.bool), THETA.double(), THETA[:-1], THETA[:, None], THETA + torch.nan, torch.zeros(()),
    torch.tensor(True),
]  # fmt: skip


def tried(call: str, name: str, value: Any) -> None:
    function, arguments = CALLS[call]
    if (isinstance(value, float) and value > 1e6) or (isinstance(value, int) and 100 < value < 2**63):
        return  # allowed, and too much for the memory of a computer
    error = met(lambda: function(**arguments | {name: value}))
    named = (
        name,
        name.rstrip("s"),
        "data set",
        *{"name": ("preset",), "factory": ("network",), "x": ("y must",), "y": ("label",)}.get(name, ()),
    )
    assert error is None or any(n in error for n in named), f"{error!r} does not say {name!r}"
    if error is not None and isinstance(value, str | int | float | list | tuple):
        assert quoted(value, error) or (isinstance(value, list | tuple) and any(c in error for c in "0123456789")), error


@pytest.mark.parametrize(("call", "name"), ARGUMENTS, ids="-".join)
def test_whatever_an_argument_is_it_is_taken_or_refused_by_name(call: str, name: str) -> None:
    for value in [*OBJECTS, *(TENSORS if call in ("fisher", "mas_importance", "Net") else [])]:
        tried(call, name, value)


@settings(max_examples=400, deadline=None)
@given(argument=st.sampled_from(ARGUMENTS), value=JUNK)
def test_and_whatever_hypothesis_thinks_of(argument: tuple[str, str], value: Any) -> None:
    tried(*argument, value)


def test_the_fuzz_above_knows_every_argument() -> None:
    for call, (function, arguments) in CALLS.items():
        known = set(inspect.signature(function).parameters) - {"self"}
        assert set(arguments) <= known and (call == "Training" or set(arguments) == known), call


def test_sizes_that_belong_together_are_checked_together() -> None:
    with refused(r"y must be an instance of Shaped\[Tensor, 'N \*K'\], got tensor\(\[0, 1, 2\]"):
        clbook.fisher(NET, THETA, X, D.y[:3], estimator="empirical")
    with refused(r"the network has 37 parameters and does not go with theta \[36\]"):
        clbook.fisher(NET, THETA[:-1], X)
    with refused("mask must have one entry for each of the 4 outputs, got 3"):
        clbook.fisher(NET, THETA, X, mask=torch.ones(3, dtype=torch.bool))


# checked and check -------------------------------------------------------------------------------------------------------


def test_a_checked_function_looks_at_its_arguments_before_it_does_anything() -> None:
    done: list[Any] = []

    @checked
    def f(a: checks.Count, b: Strength = 2, *rest: int, c: str = "x", **more: int) -> Any:
        done.append((a, b, rest, c, more))
        return done[-1]

    assert f(1) == (1, 2, (), "x", {}) and f(np.int64(2), 3, 4, 5, c="y", d=6) == (2, 3.0, (4, 5), "y", {"d": 6})
    done.clear()
    for arguments, words in (((0,), "a must be"), ((1, -1), "b must be"), ((1.5,), "a must be")):
        with pytest.raises(InputError, match=words):
            f(*arguments)
    with pytest.raises(InputError, match="c must be a valid string, got 3"):
        f(1, c=3)
    assert done == []
    with pytest.raises(TypeError, match="missing"):
        f()


@given(st.text(min_size=300, max_size=2000))
@settings(max_examples=20, deadline=None)
def test_a_long_value_is_shown_by_its_beginning(value: str) -> None:
    with pytest.raises(InputError) as error:
        check(value, Strength, "lam")
    assert len(str(error.value)) < 300 and repr(value)[:100] in str(error.value)


def test_an_input_error_is_a_value_error(tmp_path: Path) -> None:
    assert issubclass(InputError, ValueError)
    with pytest.raises(ValueError, match="there is no r"):
        clbook.Result.load(tmp_path / "r")
