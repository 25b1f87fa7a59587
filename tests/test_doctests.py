"""The examples in the docstrings of the package print what stands below them."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import clbook

MODULES = [m.name for m in pkgutil.walk_packages(clbook.__path__, "clbook.") if not m.name.endswith("__main__")]


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [t for name in MODULES for t in finder.find(importlib.import_module(name), name) if t.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.name)
def test_an_example_prints_what_stands_below_it(example: doctest.DocTest) -> None:
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=said.append, clear_globs=False)
    assert not said, "".join(said)


@pytest.mark.parametrize("module", ["clbook.metrics", "clbook"])
def test_what_is_called_first_has_an_example(module: str) -> None:
    public = importlib.import_module(module)
    names = getattr(public, "__all__", [n for n in vars(public) if not n.startswith("_")])
    own = [f for f in (getattr(public, n) for n in names) if inspect.isfunction(f) and f.__module__.startswith(module)]
    assert own and [f.__name__ for f in own if ">>> " not in (f.__doc__ or "")] == []
