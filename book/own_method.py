"""The figure of the page on a method of one's own, made by the code that stands on the page.

python book/own_method.py
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import matplotlib

PAGE = Path(__file__).with_name("own_method.md")
FIGURE = Path(__file__).parent / "_static" / "own_method.png"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", flags=re.S | re.M)


def blocks() -> list[tuple[str, str]]:
    """Each block of code before the exercises, and what the page says it prints."""
    return BLOCK.findall(PAGE.read_text(encoding="utf-8").split("## Exercises")[0])


def run_page() -> tuple[dict[str, Any], list[str]]:
    """Run the blocks one after the other, as a reader would; return the names they define, and what each printed."""
    names: dict[str, Any] = {"__name__": "own_method"}
    printed = []
    for code, _ in blocks():
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, names)
        printed.append(out.getvalue())
    return names, printed


def curves(names: dict[str, Any]) -> dict[str, list[float]]:
    """What the figure shows: the mean of each method at each strength, and the bounds, in percent."""
    shown = {name: values.mean(0) for name, values in names["curves"].items()}
    shown |= {name: names["accuracy"](result).mean(keepdims=True) for name, result in names["bounds"].items()}
    return {name: [round(float(v), 1) for v in values] for name, values in shown.items()}


if __name__ == "__main__":
    matplotlib.use("agg")
    names, printed = run_page()
    # the numbers lie in the picture, so that a test can tell whether it is still that of the code
    said = {"Description": json.dumps(curves(names)), "Software": None}
    names["figure"].savefig(FIGURE, dpi=150, bbox_inches="tight", metadata=said)
    print("\n".join(printed))
