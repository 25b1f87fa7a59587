"""The sizes of every experiment, in one place: CLBOOK_PRESET is quick, book (default) or paper.

quick: the embedded 8x8 digits, no network, seconds; what the tests run. book: MNIST and Fashion-MNIST, minutes on two CPU
cores; what the stored outputs show. paper: the published sizes and at least 10 seeds. Book: book/about, "Three sizes".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

from clbook.checks import InputError, checked
from clbook.data import Data, load

T = TypeVar("T")
PRESETS = ("quick", "book", "paper")


@dataclass(frozen=True)
class Preset:
    """One preset: its name, the data it loads and the sizes it picks."""

    name: str

    def load(self, name: str) -> Data:
        """The named data set; at "quick" always the embedded digits. Never falls back silently otherwise."""
        return load("digits" if self.name == "quick" else name)

    def pick(self, *, quick: T, book: T, paper: T) -> T:
        """The one of three sizes that belongs to this preset."""
        return {"quick": quick, "book": book, "paper": paper}[self.name]


@checked
def preset(name: str | None = None) -> Preset:
    """The preset of that name, by default the one that CLBOOK_PRESET names, else "book".

    Raises InputError for an unknown name.

    >>> preset("quick").name
    'quick'
    """
    name = name or os.environ.get("CLBOOK_PRESET") or "book"
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r} (CLBOOK_PRESET): choose one of {', '.join(PRESETS)}")
    return Preset(name)
