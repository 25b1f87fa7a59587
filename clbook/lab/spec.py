"""What a sweep is about, as a TOML file: methods x fields x scenarios x seeds, checked against the dataclasses they become.

    seeds = 5
    [training]
    steps = 2000
    [[scenario]]
    name = "split"
    kind = ["task", "domain", "class"]
    [[method]]
    name = "EWC"
    lam = [1e3, 1e4, 1e5]

A list means: each of these. `[network]` may say name, hidden, channels and dropout. Book: book/cluster.
"""

from __future__ import annotations

import itertools
import os
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from clbook import methods
from clbook.checks import InputError, short
from clbook.lab.parts import Part, Shape, Stream, parts_of
from clbook.loop import Training
from clbook.method import Method

TABLES = {"seeds", "training", "network", "scenario", "method"}


def read(path: str | os.PathLike[str], device: str = "auto") -> list[Part]:
    """The parts that the file describes. Raises InputError with the table and the name where it cannot be understood."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    return list(parts(found, device))


def parts(spec: dict[str, Any], device: str = "auto") -> Iterator[Part]:
    """The parts of a sweep: every scenario with every method, all their listed values, and every seed."""
    _known("the file", spec, TABLES)
    seeds = _seeds(spec.get("seeds", 1))
    training = _one(Training, "[training]", _table(spec, "training"))
    shape = _one(Shape, "[network]", _table(spec, "network"))
    streams = [s for t in _tables(spec, "scenario") for s in _each(Stream, "[[scenario]]", t)]
    chosen: list[Method] = []
    for table in _tables(spec, "method"):
        chosen += _each(_class(table), "[[method]]", {k: v for k, v in table.items() if k != "name"})
    for stream in streams:
        yield from parts_of(stream, shape, training, chosen, seeds, device)


def _each(owner: type, where: str, table: dict[str, Any]) -> list[Any]:
    """One instance for every combination of the listed values."""
    _known(where, table, {f.name for f in fields(owner)})
    lists = {k: v if isinstance(v, list) and not (_is_tuple(owner, k) and not _nested(v)) else [v] for k, v in table.items()}
    for name, values in lists.items():
        if not values:
            raise InputError(f"{where} {name} is an empty list; give at least one value")
    return [_one(owner, where, dict(zip(lists, values, strict=True))) for values in itertools.product(*lists.values())]


def _one(owner: type, where: str, table: dict[str, Any]) -> Any:
    _known(where, table, {f.name for f in fields(owner)})
    needed = [f.name for f in fields(owner) if f.default is MISSING and f.default_factory is MISSING and f.name not in table]
    if needed:
        raise InputError(f"{where} {owner.__name__} needs {', '.join(needed)}")
    return owner(**{name: tuple(value) if isinstance(value, list) else value for name, value in table.items()})


def _class(table: dict[str, Any]) -> type[Method]:
    name = table.get("name")
    known = {n.lower(): getattr(methods, n) for n in methods.__all__}
    if not isinstance(name, str) or name.lower() not in known:
        raise InputError(f"[[method]] name must be one of {', '.join(methods.__all__)}, got {short(name)}")
    found: type[Method] = known[name.lower()]
    return found


def _seeds(given: Any) -> Sequence[int]:
    if isinstance(given, int) and not isinstance(given, bool) and given >= 1:
        return range(given)
    if isinstance(given, list) and given and all(isinstance(s, int) and not isinstance(s, bool) for s in given):
        return given
    raise InputError(f"seeds must be a number of at least 1 or a list of whole numbers, got {short(given)}")


def _table(spec: dict[str, Any], name: str) -> dict[str, Any]:
    found = spec.get(name, {})
    if not isinstance(found, dict):
        raise InputError(f"[{name}] must be a table, got {short(found)}")
    return found


def _tables(spec: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = spec.get(name, [])
    if not isinstance(found, list) or not found or not all(isinstance(t, dict) for t in found):
        raise InputError(f"there must be at least one [[{name}]], got {short(found)}")
    return found


def _known(where: str, table: dict[str, Any], names: set[str]) -> None:
    if unknown := sorted(set(table) - names):
        raise InputError(f"{where} does not know {', '.join(unknown)}; it takes {', '.join(sorted(names))}")


def _is_tuple(owner: type, name: str) -> bool:
    """Whether a field holds several values by itself, so that a list of them is one value."""
    hint = get_type_hints(owner)[name]
    return get_origin(hint) is tuple or any(get_origin(part) is tuple for part in get_args(hint))


def _nested(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(v, list) for v in values)
