"""The numbers of the benchmark in the text, taken from the stored results when the pages are built.

A directive gives a table of some methods, a role one number with its interval; so no page holds a copy that could grow old:

    ```{benchmark}                                {benchmark}`domain: IMM, mean`
    IMM, mean                                     {benchmark}`permuted domain: EWC`
    average of weights
    ```
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole

from clbook import metrics
from clbook.lab import experiments
from clbook.lab.report import Report
from clbook.scenarios import KINDS

STORED = ("benchmark", "benchmark-permuted", "benchmark-fashion")
HEAD = ["method", "task told", "not told", "new classes", "kept (MB)"]


@cache
def reports() -> list[Report]:
    return [experiments.stored(name) for name in STORED if (experiments.published() / f"{name}.json").exists()]


def found(key: str) -> Report | None:
    """The report that has a result such as "split domain: EWC"."""
    return next((r for r in reports() if key in r.ours), None)


def accuracy(key: str) -> str:
    """What is printed for a result: the mean, and the half width of its 95 % interval where there are several runs."""
    holds = found(key)
    if holds is None:
        return ""
    mean, half = (float(v) for v in metrics.interval(holds.ours[key]))
    return f"{mean:.1f}" if math.isnan(half) else f"{mean:.1f}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{half:.1f}"


def kept(label: str) -> str:
    """The most that a method keeps between tasks in any of the three scenarios, in MB."""
    results = [r.results[key] for kind in KINDS if (r := found(key := f"split {kind}: {label}"))]
    size = max(result.memory_bytes.max() for result in results) / 1e6
    return "0" if size == 0 else f"{size:.1f}" if size >= 0.1 else f"{size:.3f}"


class Number(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        key = self.text if self.text.startswith(("permuted", "fashion")) else f"split {self.text}"
        shown = accuracy(key)
        if not shown:
            raise ExtensionError(f"{self.env.docname}: the stored benchmark has no {key!r}")
        self.env.note_dependency(str(experiments.published() / "benchmark.json"))
        return [nodes.Text(shown)], []


class Rows(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        lines = [HEAD, ["---"] * len(HEAD)]
        for label in (line.strip() for line in self.content if line.strip()):
            cells = [accuracy(f"split {kind}: {label}") for kind in KINDS]
            if not any(cells):
                raise ExtensionError(f"{self.env.docname}: the stored benchmark has no method {label!r}")
            lines.append([label, *(cell or "–" for cell in cells), kept(label)])
        self.env.note_dependency(str(experiments.published() / "benchmark.json"))
        table = nodes.Element()
        self.state.nested_parse(StringList(["| " + " | ".join(line) + " |" for line in lines]), self.content_offset, table)
        return table.children


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("benchmark", Rows)
    app.add_role("benchmark", Number())
    return {"parallel_read_safe": True}
