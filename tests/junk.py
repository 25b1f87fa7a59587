"""Whatever somebody may put where something else belongs, and what an argument is met with."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from small import clouds, users_meet_it
from torch import nn

from clbook import InputError, Net
from clbook.methods import Finetune

MEETING = re.compile("missing .*required .*argument|got an unexpected keyword argument|multiple values for argument")

OBJECTS: list[Any] = [
    None, object(), Finetune, Finetune(), clouds(), torch.tensor(2), torch.tensor(0.5), torch.zeros(3), torch.tensor([1, 2]),
    torch.zeros(0), torch.ones(2, 2), np.zeros(2), np.array(2.0), np.array(["auto", "x"]), nn.Linear(2, 2), nn.Linear,
    lambda: 3, len,
    torch.float16,
    torch.int64, torch.float32, b"ab", range(3), {1: 2}, {"a": None}, {3}, iter([1]), Ellipsis, type, InputError("x"), Net,
    [], (), [None], ["x"], [0, 1], (1, 2), (0.5, 0.5), [2.5], [True], [-1], [10**30], [[1]], "", "x", "auto", "cpu",
    "cuda:77", "meta",
    -1, 0, 1, 2, 2.5, float("nan"), float("inf"), 10**30, -(10**30), 2**63, True, np.bool_(True), np.float64(0.5),
    np.int64(2), 3 + 4j,
]  # fmt: skip
JUNK = st.recursive(
    st.one_of(st.integers(-3, 12), st.floats(), st.text(max_size=6), st.sampled_from(OBJECTS)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.tuples(inner, inner)),
    max_leaves=4,
)


def met(call: Callable[[], Any]) -> str | None:
    """None where the call works, else the text of its InputError; any other error is one of the package and is raised.

    A TypeError that is about the names of arguments, and no value, is Python's own and fine.
    """
    try:
        with users_meet_it():
            call()
    except InputError as error:
        return str(error)
    except TypeError as error:
        if not MEETING.search(str(error)):
            raise
        return str(error)
    return None


def quoted(value: Any, error: str) -> bool:
    """Whether a text shows the value, or the one of its elements that is at fault, as Python writes it."""
    if isinstance(value, list | tuple) and not value and " none" in error:
        return True
    elements = value.tolist() if isinstance(value, np.ndarray) else value if isinstance(value, list | tuple | range) else ()
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        return repr(value) in error or repr(value.item()) in error
    if isinstance(value, int) and not isinstance(value, bool) and repr(float(value)) in error:
        return True  # a whole number where a float belongs
    return repr(value)[:100] in error or str(value)[:100] in error or any(quoted(v, error) for v in elements)
