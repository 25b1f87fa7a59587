"""Trees of tensors: dictionaries and named tuples, one within the other, with None where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def over(f: Callable[..., Any], *trees: Any) -> Any:
    """A tree with f of the leaves of all trees in each place."""
    first = trees[0]
    if isinstance(first, dict):
        return {k: over(f, *(t[k] for t in trees)) for k in first}
    if isinstance(first, tuple):
        parts = [over(f, *leaves) for leaves in zip(*trees, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    return f(*trees)


def take(tree: Any, r: int) -> Any:
    """Run r's part of a tree of stacked tensors."""
    return over(lambda v: v[r] if isinstance(v, Tensor) else v, tree)


def stack(trees: list[Any], device: torch.device) -> Any:
    """One tree of stacked tensors from a tree for each run."""
    return over(lambda *vs: torch.stack(vs).to(device) if isinstance(vs[0], Tensor) else vs[0], *trees)


def add_axis(tree: Any) -> Any:
    """The tree of a single run as a stack of one."""
    return over(lambda v: v[None] if isinstance(v, Tensor) else v, tree)


def dims(tree: Any) -> Any:
    """Where vmap finds the axis of runs: 0 in tensors, and none in anything else."""
    return over(lambda v: 0 if isinstance(v, Tensor) else None, tree)


def form(tree: Any) -> str:
    """The names, shapes and types in a tree, as text."""
    return repr(over(lambda v: (list(v.shape), str(v.dtype)) if isinstance(v, Tensor) else v, tree))
