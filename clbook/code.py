"""A digest of the code that numbers come from: the method, its base classes, the loop and all that these import.

Comments, docstrings and the rest of the package do not count, so that a better sentence does not make old numbers useless.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import types
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
# what only stores or reads numbers: a change there leaves them as they are
SPECTATORS = {f"{PACKAGE}.{name}" for name in ("checkpoints", "code", "metrics", "result", "store", "version")}


def digest(*owners: type | str) -> str:
    """A number that changes with the code of these classes and modules and of what they import from the package."""
    found = hashlib.sha256()
    modules: set[str] = set()
    for owner in owners:
        names = [owner] if isinstance(owner, str) else [c.__module__ for c in owner.__mro__]
        modules |= {name for name in names if name.partition(".")[0] == PACKAGE}
        for base in () if isinstance(owner, str) else owner.__mro__:
            if base.__module__.partition(".")[0] not in (PACKAGE, "torch", "builtins", "typing"):
                found.update(_of_class(base).encode())
    for name in sorted(_reached(modules)):
        found.update(f"{name}: {_of_module(name)}".encode())
    return found.hexdigest()[:16]


def digest_of(*sources: str) -> str:
    """A number that changes with all the code of the package that these pieces of code import, and what that imports in turn.

    Nothing is left out here: who judges an answer may use what only reads numbers, and a name that a package gathers.
    """
    found, reached = hashlib.sha256(), set[str]()
    waiting = [name for source in sources for name in _named(ast.parse(source))]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += _named_in(name)
    for name in sorted(reached):
        found.update(f"{name}: {_of_module(name)}".encode())
    return found.hexdigest()[:16]


@cache
def _named_in(module: str) -> list[str]:
    return _named(_tree(module))


def _named(tree: ast.Module) -> list[str]:
    """The modules and packages that are imported anywhere in a piece of code; of a package's modules, those that are named."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{a.name}" for a in node.names]
            found += [name if _source(name) is not None else str(node.module) for name in inner]
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names]
    return [name for name in dict.fromkeys(found) if name.partition(".")[0] == PACKAGE and _source(name) is not None]


def _reached(names: set[str]) -> set[str]:
    """The modules of the package that these import, and those that they import, and so on."""
    reached, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in reached and name not in SPECTATORS:
            reached.add(name)
            waiting += _imports(name)
    return reached


@cache
def _imports(module: str) -> tuple[str, ...]:
    found = []
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            found += [f"{node.module}.{a.name}" for a in node.names] + [str(node.module)]
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.partition(".")[0] == PACKAGE]
    return tuple(name for name in dict.fromkeys(found) if _file(name) is not None)


@cache
def _of_module(module: str) -> str:
    tree = _tree(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _of_class(owner: type) -> str:
    """A class from outside the package by its plain attributes and the compiled code of its functions.

    The functions of its module that these call are not followed.
    """
    values = {k: v.fget if isinstance(v, property) else v for k, v in vars(owner).items() if not k.startswith("__")}
    plain = {k: repr(v) for k, v in values.items() if isinstance(v, int | float | str | tuple | None)}
    return repr([plain, *(of_function(f) for f in values.values() if inspect.isfunction(f))])


def of_function(f: types.FunctionType) -> str:
    """A function by its compiled code, its defaults, and no docstring."""
    return repr([f.__defaults__, f.__kwdefaults__, _of_code(f.__code__, f.__doc__)])


def _of_code(code: types.CodeType, doc: str | None) -> tuple[object, ...]:
    consts = [c for c in code.co_consts if doc is None or c != doc]
    consts = [sorted(c, key=repr) if isinstance(c, frozenset) else c for c in consts]  # a set has an order of the day
    inner = tuple(_of_code(c, None) if isinstance(c, types.CodeType) else repr(c) for c in consts)
    return code.co_name, code.co_code.hex(), code.co_names, inner


def _tree(module: str) -> ast.Module:
    file = _source(module)
    return ast.parse(file.read_text(encoding="utf-8") if file is not None else "")


def _file(module: str) -> Path | None:
    """The module's file; none for a package, whose __init__ only gathers names, and for what is no module."""
    path = _source(module)
    return None if path is None or path.name == "__init__.py" else path


@cache
def _source(module: str) -> Path | None:
    """The file of a module or of a package; none for what is neither."""
    if module.partition(".")[0] != PACKAGE:
        return None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    path = Path(spec.origin) if spec is not None and spec.origin else None
    return path if path is not None and path.suffix == ".py" else None
