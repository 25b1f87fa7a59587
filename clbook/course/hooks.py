"""Other hooks in the place of a method's own, such as those that ask whether it returns what the loop needs.

So a forgotten `return` is called that. Book: book/grading, "A contest of methods".
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clbook.checks import InputError, short
from clbook.method import Method

RETURNS = {
    "start": "the first state, a dictionary of tensors", "before_task": "theta and the state, a pair", "prepare": "the batch",
    "observe": "the state, a dictionary of tensors", "loss": "one number, a tensor []", "direction": "a tensor [P]",
    "after_step": "theta and the state, a pair", "after_task": "the new state, a dictionary of tensors",
    "importance": "one number for each parameter, a tensor [P]",
}  # fmt: skip
PAIRS, STATES, VECTORS = {"before_task", "after_step"}, {"start", "observe", "after_task"}, {"direction", "importance"}


def answering(method: Method) -> Method:
    """The method with hooks that raise InputError where they return something else than the loop needs."""
    owner = type(method)

    def answers(hook: str) -> Callable[..., Any]:
        original = getattr(owner, hook)

        @functools.wraps(original)
        def call(self: Method, *args: Any, **named: Any) -> Any:
            answer = original(self, *args, **named)
            if wrong := _wrong(hook, answer, named.get("theta", args[1] if len(args) > 1 else None)):
                raise InputError(f"{owner.__name__}.{hook} must return {RETURNS[hook]}, and it returned {wrong}")
            return answer

        return call

    return with_members(method, {h: answers(h) for h in RETURNS if getattr(owner, h, None) is not getattr(Method, h, None)})


def with_members(method: Method, members: dict[str, Any]) -> Method:
    """A copy of the method whose class has these in place of its own, under the same name."""
    owner, found = type(method), copy.copy(method)
    object.__setattr__(found, "__class__", type(owner.__name__, (owner,), {**members, "__module__": owner.__module__}))
    return found


def _wrong(hook: str, answer: Any, theta: Any) -> str:
    """What a hook returned in place of what it must return; nothing where it is that."""
    if answer is None:
        return "nothing; is its `return` missing?"
    if hook in PAIRS:
        if not isinstance(answer, tuple) or len(answer) != 2:
            return _shown(answer)
        return _no_state(answer[1])
    if hook in STATES:
        return _no_state(answer)
    if hook == "loss" and (not isinstance(answer, Tensor) or answer.dim()):
        return _shown(answer)
    if hook in VECTORS and (not isinstance(answer, Tensor) or (isinstance(theta, Tensor) and answer.shape != theta.shape)):
        return f"{_shown(answer)}, where theta is {_shown(theta)}"
    return ""


def _no_state(state: Any) -> str:
    if not isinstance(state, dict):
        return f"{_shown(state)} for the state"
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    return f"a state in which {short(odd[0], 40)} is {_shown(state[odd[0]])}" if odd else ""


def _shown(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, torch.Tensor) else short(value, 60)
