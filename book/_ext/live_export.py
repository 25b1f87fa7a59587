"""Write the data of the live figures into book/_static/live: the digits, and the inputs of the two-weight problem.

python book/_ext/live_export.py writes digits.js and weights.js; a test checks that they hold what `scripts` returns.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import clbook

FOLDER = Path(__file__).parents[1] / "_static" / "live"
# the two tasks of notebook 3, "The picture, computed": how their inputs spread, the weights that drew the labels, the seed
SPREAD = {"A": [[2.5, 0.0], [0.0, 0.2]], "B": [[0.3, 0.2], [-0.3, 1.6]]}
WEIGHTS = {"A": [1.5, -1.0], "B": [-1.5, 2.5]}
SEEDS = {"A": 0, "B": 1}
KEPT = 250  # of 2,000 inputs: enough for the eye, and quick enough for a finger


def letters(x: Tensor) -> str:
    """Images [N, 64] with values 0, 1/16 .. 1 as text: one letter a pixel, "a" for 0 to "q" for 1."""
    levels = (16 * x).round().long()
    assert torch.equal(levels / 16, x), "the digits come in sixteenths"
    return "".join(chr(97 + v) for v in levels.flatten().tolist())


def inputs(task: str) -> list[float]:
    """The first inputs of a task of notebook 3 [KEPT * 2], to three decimals."""
    g = torch.Generator().manual_seed(SEEDS[task])
    x = torch.randn(2000, 2, generator=g) @ torch.tensor(SPREAD[task])
    return [round(v, 3) for v in x[:KEPT].flatten().tolist()]


def scripts() -> dict[str, str]:
    """The text of each script, by its name."""
    d = clbook.load("digits")
    parts = {"train": (d.x, d.y), "test": (d.x_test, d.y_test)}
    digits = {name: {"x": letters(x), "y": "".join(map(str, y.tolist()))} for name, (x, y) in parts.items()}
    toy = {task: {"x": inputs(task), "w": WEIGHTS[task]} for task in SPREAD}
    return {
        "digits.js": script("digits", digits, "the 8x8 digits of scikit-learn, one letter a pixel"),
        "weights.js": script("toy", toy, "the inputs and the weights of the two tasks of notebook 3"),
    }


def script(name: str, value: Any, words: str) -> str:
    """A script that puts a value under Live.data."""
    text = json.dumps(value, separators=(",", ":"))
    return (
        f"/* Written by book/_ext/live_export.py: {words}. */\n"
        f"window.Live = window.Live || {{}};\nLive.data = Live.data || {{}};\nLive.data.{name} = {text};\n"
    )


if __name__ == "__main__":
    for name, text in scripts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"{FOLDER / name}: {len(text):,} bytes")
