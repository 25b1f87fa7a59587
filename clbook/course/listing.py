"""What is understood: the kinds with their arguments and conventions, and a file of each kind to start from."""

from __future__ import annotations

from collections.abc import Iterator

from clbook.checks import InputError, short
from clbook.course.calling import WHAT
from clbook.course.check import conventions, wrapped
from clbook.course.kinds import KINDS

# The arguments of each kind, in the order in which they are shown.
ARGUMENTS = {
    "fisher": "model x y mask classes loader dataset criterion device theta", "penalty": "model star importance lam theta",
    "remember": "model", "ewc": "model x y mask classes loader dataset criterion device lam",
    "mas": "model x y mask classes loader dataset device theta", "distillation": "new_outputs old_outputs T",
    "si": "gradients directions thetas xi", "agem": "g g_ref", "method": "",
    "replay": "model x y mask x_old y_old mask_old k criterion device",
}  # fmt: skip


def template(kind: str) -> str:
    """A file of this kind that is right. Raises InputError for an unknown kind."""
    if kind not in KINDS:
        raise InputError(f"unknown kind {short(kind)}: there are templates for {', '.join(KINDS)}")
    return KINDS[kind].template.format(file=f"my_{kind}.py")


def listed() -> str:
    """The kinds, one paragraph each, and then what the arguments are."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "A function is known by its name, and asks for what it needs by the names of its arguments, in any order."
    for kind, k in KINDS.items():
        yield ""
        yield f"{kind}: {k.says}"
        yield f"  as in       {k.example}"
        if len(k.names) > 1:
            yield from wrapped(", ".join(k.names), "  known as    ", "              ")
        if ARGUMENTS[kind]:
            yield from wrapped(", ".join(ARGUMENTS[kind].split()), "  may ask for ", "              ")
        for name, values in conventions(kind).items():
            yield f"  declares    {name} = {' or '.join(repr(v) for v in values)}"
            if name == "carry":
                yield "  declares    gamma = 0.9, or what it is with 'online'"
    yield ""
    yield "What the arguments are:"
    for name in dict.fromkeys(n for words in ARGUMENTS.values() for n in words.split()):
        yield f"  {name:12}{WHAT[name]}"
    yield ""
    yield 'The first value of a convention is the book\'s. Declare another one as an attribute: fisher.reduction = "sum"'
