"""What a field or an argument may be: declared in its type, checked by pydantic before anything is computed.

A method writes `lam: Strength` and is done: `EWC(lam=-1)` is refused with the name, the value and what is allowed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Hashable
from numbers import Integral
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from jaxtyping import jaxtyped
from pydantic import BeforeValidator, ConfigDict, Field, InstanceOf, TypeAdapter, ValidationError


class InputError(ValueError):
    """Something was given that cannot be used. The message quotes it and says what is allowed."""


def _whole(value: Any) -> Any:
    """NumPy's whole numbers as Python's own."""
    return value if isinstance(value, bool) or not isinstance(value, Integral) else int(value)


def _real(value: Any) -> Any:
    """NumPy's and PyTorch's truth values as Python's own, which are no numbers."""
    return value.tolist() if str(getattr(value, "dtype", "")).endswith("bool") else value


MOST = 2**63 - 1  # what PyTorch takes for a whole number
Real = Annotated[float, BeforeValidator(_real)]
Number = Annotated[Real, Field(allow_inf_nan=False)]
Strength = Annotated[Real, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[Real, Field(ge=0, le=1)]
ShareBelowOne = Annotated[Real, Field(ge=0, lt=1)]
AtLeastOne = Annotated[Real, Field(ge=1, allow_inf_nan=False)]
Fraction = Annotated[Real, Field(gt=0, lt=1)]
Whole = Annotated[int, BeforeValidator(_whole), Field(ge=-MOST, le=MOST)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST)]
Natural = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=MOST)]

F = TypeVar("F", bound=Callable[..., Any])


def check_fields(instance: Any) -> None:
    """Put the checked value of every field of a frozen dataclass in its place; whole numbers become floats where floats belong.

    Raises InputError for the first field whose value its type does not allow.
    """
    hints = _hints(cast(Hashable, type(instance)))
    for f in dataclasses.fields(instance):
        value = getattr(instance, f.name)
        vars(instance)[f.name] = check(value, hints[f.name], f"{type(instance).__name__}.{f.name}")


def check(value: Any, allowed: Any, name: str) -> Any:
    """The value as the type `allowed` has it. Raises InputError that names it, quotes it and says what is allowed."""
    adapter = _adapter(allowed)
    # where a tuple is meant, as in MAS(only=[0, 1])
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim):
        with contextlib.suppress(ValidationError):
            return adapter.validate_python(tuple(value.tolist() if isinstance(value, np.ndarray) else value), strict=True)
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        why = " or ".join(dict.fromkeys(e["msg"].replace("Input should be", "must be") for e in error.errors()))
        raise InputError(f"{name} {why}, got {short(value)}") from None


def checked(function: F) -> F:
    """A function that checks its arguments against their types before it does anything."""
    signature = inspect.signature(function)
    kinds = {p.name: p.kind for p in signature.parameters.values()}

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        given = signature.bind(*args, **named)
        hints = _hints(function)
        with jaxtyped("context"):  # a size named in two shapes, such as the N of x and y, is the same size
            for name, value in given.arguments.items():
                if name in hints and kinds[name] not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                    given.arguments[name] = check(value, hints[name], name)
        return function(*given.args, **given.kwargs)

    return call  # type: ignore[return-value]


def float_fields(owner: type) -> tuple[str, ...]:
    """The fields that are declared as floats, or as floats that may be left out."""
    return tuple(f.name for f in dataclasses.fields(owner) if _is_float(_hints(owner)[f.name]))


def short(value: Any, most: int = 200) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _is_float(hint: Any) -> bool:
    """float, a float with bounds, or one of these or None."""
    if get_origin(hint) is Annotated:
        return _is_float(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return all(part is type(None) or _is_float(part) for part in get_args(hint))
    return hint is float


@functools.cache
def _hints(owner: Hashable) -> dict[str, Any]:
    return get_type_hints(cast(Any, owner), include_extras=True)


@functools.cache
def _adapter(hint: Any) -> Any:
    """pydantic's check of a type; of a class that it does not know, that the value is an instance."""
    plain = hint in (bool, int, float, str) or not isinstance(hint, type) or bool(get_args(hint))
    config = ConfigDict(arbitrary_types_allowed=True)
    return TypeAdapter(hint if plain else InstanceOf[hint], config=None if not plain else config)
