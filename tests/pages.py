"""The pages of the book, as _toc.yml lists them, and what a build of it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
# Jupyter Book writes these beside the pages of the table of contents.
EXTRA = ["genindex", "search"]


def _files(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (node[key] for key in ("root", "file") if key in node)
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _files(child)


PAGES = list(_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@dataclass(frozen=True)
class Built:
    """A built book: the folder of its pages, what the build printed, and how it ended."""

    html: Path
    log: str
    returncode: int
