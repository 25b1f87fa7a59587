"""What no notebook computes, drawn by code: each name is a drawing of the book, a row of panels."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

from .classes import classes_that_never_met
from .families import families
from .gem import gem_cone
from .heads import lwf_heads
from .methods import averages, memories, neurons, si_path, sums
from .replay import replay
from .scenarios import scenarios
from .sensitivity import mas_sensitivity
from .sketch import Panel, style_sheet
from .springs import springs
from .valleys import common_solution, where_held

DRAWINGS: dict[str, Callable[[], list[Panel]]] = {
    "averages": averages,
    "classes-that-never-met": classes_that_never_met,
    "common-solution": common_solution,
    "ewc-mas-lwf-data": where_held,
    "families": families,
    "gem-cone": gem_cone,
    "lwf-heads": lwf_heads,
    "mas-sensitivity": mas_sensitivity,
    "memories": memories,
    "neurons": neurons,
    "path": si_path,
    "replay": replay,
    "scenarios": scenarios,
    "springs": springs,
    "sums": sums,
}

__all__ = ["DRAWINGS", "draw", "style_sheet"]


def draw(name: str) -> list[str]:
    """The panels of a drawing as SVG, from left to right.

    Raises:
        KeyError: there is no drawing of this name.
    """
    if name not in DRAWINGS:
        raise KeyError(f"there is no drawing {name!r}. Those of book/drawings are {', '.join(sorted(DRAWINGS))}.")
    return [ET.tostring(panel.svg(), encoding="unicode") for panel in DRAWINGS[name]()]
